"""Weights rounded by what a layer's results lose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_networks import RESIDUAL, feed, graph_of

from planish.base.errors import BuildError
from planish.graph.reference import interpret
from planish.quantize import rounding
from planish.quantize.correct import conv_taps, mean_patch, sample_patches
from planish.quantize.rounding import (
    Rounding,
    encode_weights,
    from_rows,
    loss,
    round_rows,
    weight_rows,
)
from planish.quantize.scales import quantize_weights, weight_scales


def moments(groups: int, size: int, seed: int = 0, rank: int | None = None) -> np.ndarray:
    """Second moments of inputs that go together."""
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((groups, 4 * size if rank is None else rank, size))
    inputs += 2.0 * inputs.mean(axis=2, keepdims=True) * np.sqrt(size)
    return (inputs.transpose(0, 2, 1) @ inputs).astype(np.float32)


def rows_of(groups: int, channels: int, size: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-127, 127, (groups, channels, size))


@pytest.mark.parametrize("shape", [(1, 6, 27), (1, 8, 100), (5, 1, 9), (3, 4, 40)])
def test_less_is_lost_than_by_the_nearest_codes(shape: tuple[int, int, int]) -> None:
    rows, known = rows_of(*shape), moments(shape[0], shape[2])
    codes = round_rows(rows, known)
    assert codes is not None
    nearest = np.rint(rows)
    assert np.abs(codes - nearest).max() == 1
    assert codes.dtype == np.int8
    assert loss(rows - codes, known) < 0.6 * loss(rows - nearest, known)


def test_the_codes_are_those_of_the_definition() -> None:
    """One weight after the other, the rest being free: what the factor of H does in one go."""
    rows, known = rows_of(1, 3, 12), moments(1, 12).astype(np.float64)
    h = known[0] + 0.01 * np.trace(known[0]) / 12 * np.eye(12)
    order = np.argsort(-np.diag(h), kind="stable")
    expected = np.zeros_like(rows[0])
    for channel, weights in enumerate(rows[0]):
        left = weights.copy()
        for n, place in enumerate(order):
            rest = order[n:]
            inverse = np.linalg.inv(h[np.ix_(rest, rest)])
            nearest = np.rint(weights[place])
            code = np.clip(np.rint(left[place]), nearest - 1, nearest + 1)
            expected[channel, place] = code
            left[rest] -= (left[place] - code) / inverse[0, 0] * inverse[0]
    found = round_rows(rows, known)
    assert found is not None
    assert np.array_equal(found[0], expected)


def test_channels_may_be_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, known = rows_of(2, 7, 40), moments(2, 40)
    whole, lost = round_rows(rows, known), loss(rows - np.rint(rows), known)
    monkeypatch.setattr(rounding, "_SWEPT", 3 * 2 * 40)
    widths: list[int] = []
    sweep = rounding._sweep

    def counted(part: np.ndarray, order: np.ndarray, lower: np.ndarray) -> np.ndarray:
        widths.append(part.shape[1])
        return sweep(part, order, lower)

    monkeypatch.setattr(rounding, "_sweep", counted)
    assert np.array_equal(round_rows(rows, known), whole)
    assert widths == [3, 3, 1]
    assert loss(rows - np.rint(rows), known) == pytest.approx(lost)


def test_moments_that_tell_nothing() -> None:
    rows = rows_of(2, 3, 8)
    for known in (np.zeros((2, 8, 8)), np.broadcast_to(np.eye(8), (2, 8, 8))):
        codes = round_rows(rows, known.astype(np.float32))
        assert codes is not None
        assert np.array_equal(codes, np.rint(rows))
    assert round_rows(rows, np.full((2, 8, 8), np.inf, np.float32)) is None


def test_dead_and_repeated_inputs() -> None:
    known = moments(1, 10, rank=2)  # singular
    known[:, 4] = known[:, :, 4] = 0.0
    rows = rows_of(1, 5, 10)
    codes = round_rows(rows, known)
    assert codes is not None
    assert np.array_equal(codes[..., 4], np.rint(rows[..., 4]))
    assert loss(rows - codes, known) < loss(rows - np.rint(rows), known)


def test_codes_stay_within_their_range() -> None:
    rows = np.full((1, 2, 20), 127.0)
    rows[0, 1] = -127.0
    rows[..., ::2] *= 0.996
    codes = round_rows(rows, moments(1, 20))
    assert codes is not None
    assert np.abs(codes).max() == 127


@given(numbers=st.lists(st.integers(-1, 1), min_size=1, max_size=23))
def test_offsets_and_back(numbers: list[int]) -> None:
    offsets = np.array(numbers, np.int8)
    nearest = np.arange(offsets.size, dtype=np.int8)
    made = Rounding.parse(Rounding.of(nearest, offsets).text)
    assert np.array_equal(made.offsets(nearest, "c"), offsets)


def test_offsets_of_other_weights() -> None:
    nearest = np.arange(7, dtype=np.int8)
    made = Rounding.of(nearest, np.ones(7, np.int8))
    for other in (nearest + 1, np.arange(8, dtype=np.int8), np.arange(2, dtype=np.int8)):
        with pytest.raises(BuildError, match="rounds other weights of 'c' than these"):
            made.offsets(other, "c")
    with pytest.raises(BuildError, match="rounds other weights"):
        Rounding(made.digest, bytes([0, *made.packed[1:]])).offsets(nearest, "c")


@pytest.mark.parametrize("text", ["", "abcd", "abcd ***", "abcd /w==", "abcd AA="])
def test_nonsense_is_no_rounding(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|padding|five a byte"):
        Rounding.parse(text)


def test_codes_are_moved() -> None:
    weights = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)
    plain, scales = encode_weights(weights, 0)
    assert np.array_equal(plain, quantize_weights(weights, weight_scales(weights, 0), 0))
    offsets = np.zeros((4, 6), np.int8)
    offsets[:, ::2] = np.where(plain[:, ::2] > 0, -1, 1)
    made, same = encode_weights(weights, 0, rounding=Rounding.of(plain, offsets))
    assert np.array_equal(made, plain + offsets)
    assert np.array_equal(same, scales)


def test_a_channel_that_its_bias_rescales_is_rounded_to_nearest() -> None:
    weights = np.random.default_rng(2).standard_normal((2, 6)).astype(np.float32)
    nearest, _ = encode_weights(weights, 0)
    offsets = np.where(nearest > 0, -1, 1).astype(np.int8)
    bias = np.array([1e6, 0.0])
    made, scales = encode_weights(
        weights, 0, rounding=Rounding.of(nearest, offsets), bias=bias, input_step=1e-4
    )
    assert np.array_equal(made[0], quantize_weights(weights, scales, 0)[0])
    assert np.array_equal(made[1], nearest[1] + offsets[1])


@pytest.mark.parametrize("name", ["c0", "c1", "c2", "m"])
def test_patches_are_what_the_weights_meet(name: str) -> None:
    graph = graph_of(RESIDUAL)
    node = next(n for n in graph.nodes if n.name == name)
    x, weights = node.inputs[0], node.inputs[1]
    assert x is not None and weights is not None and weights.data is not None
    known = interpret(graph, feed(graph))
    data = np.asarray(weights.data)
    patches = sample_patches(node, known[x.name], 10**6)
    assert np.allclose(patches.mean(axis=1), mean_patch(node, known[x.name]))
    rows = weight_rows(node, data)
    assert np.array_equal(from_rows(node, rows), data)
    results = patches @ rows.transpose(0, 2, 1)
    wanted = known[node.output.name]
    if node.op == "Conv":
        bias = node.input(2)
        wanted = np.moveaxis(wanted, 1, -1) - (0.0 if bias is None else np.asarray(bias.data))
    got = results.transpose(1, 0, 2).reshape(wanted.shape)
    assert np.allclose(got, wanted, atol=1e-4)


def test_places_are_spread() -> None:
    graph = graph_of(RESIDUAL)
    node = next(n for n in graph.nodes if n.name == "c0")
    x = np.zeros((1, 3, 8, 8), np.float32)
    count = next(iter(conv_taps(node, x)))[0, 0].size
    x[:] = np.arange(64).reshape(8, 8)
    few, others = (sample_patches(node, x, 7, start) for start in (0, 7))
    assert few.shape[1] == 7 < count
    assert len(np.unique(few[0, :, 0])) > 4
    assert not np.array_equal(few, others)
