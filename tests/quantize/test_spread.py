"""Spread inputs: the function stays, and bytes come out as the bytes that they were."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import BRANCHES, RESIDUAL, feed, graph_of

from planish.graph.graph import Graph
from planish.graph.reference import interpret
from planish.graph.verify import verify
from planish.quantize.ends import Ends, channel_ends, join_ends
from planish.quantize.spread import apply_spread, spread_inputs

MATRIX = """
graph matrix
  input %x: f32[2,5,4]
  const %w: f32[4,3] = random(1)
  %y: f32[2,5,3] = MatMul(%x, %w)
  output %y
"""


def spread(text: str, ends: Ends, name: str = "x") -> Graph:
    graph = graph_of(text)
    apply_spread(graph, {name: ends})
    verify(graph)
    return graph


@pytest.mark.parametrize("text", [RESIDUAL, MATRIX])
def test_the_function_stays(text: str) -> None:
    plain = graph_of(text)
    inputs = feed(plain)
    (one,) = spread_inputs(plain)
    graph = spread(text, channel_ends(inputs["x"], one.axis))
    before, after = interpret(plain, inputs), interpret(graph, inputs)
    for name, wanted in before.items():
        assert after[name] == pytest.approx(wanted, abs=1e-4)


def test_bytes_are_bytes_again() -> None:
    mean, scale = np.array([0.3, 0.5, 0.6]), np.array([0.2, 0.1, 0.4])
    codes = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8))
    codes[0, :, 0, :2] = 0, 255
    x = ((codes / 255 - mean[:, None, None]) / scale[:, None, None]).astype(np.float32)
    graph = spread(RESIDUAL, channel_ends(x, 1))
    seen = interpret(graph, {"x": x})["x.spread"]
    assert np.abs(seen[:, :, 1:-1, 1:-1] - codes).max() < 1e-3
    assert seen.shape == (1, 3, 10, 10)  # padded, as zeros are no round number any more


def test_a_channel_that_never_changes() -> None:
    x = np.ones((2, 5, 4), np.float32) * 3
    graph = spread(MATRIX, channel_ends(x, 2))
    plain = interpret(graph_of(MATRIX), {"x": x})["y"]
    assert interpret(graph, {"x": x})["y"] == pytest.approx(plain, abs=1e-5)


def test_inputs_that_several_read_stay() -> None:
    assert not spread_inputs(graph_of(BRANCHES))
    assert "x.spread" not in str(spread(BRANCHES, (np.zeros(4), np.ones(4))))


def test_ends_add_up() -> None:
    data = np.random.default_rng(1).standard_normal((6, 3, 4))
    both = join_ends(channel_ends(data[:2], 1), channel_ends(data[2:], 1))
    for side, whole in zip(both, channel_ends(data, 1), strict=True):
        assert np.array_equal(side, whole)
