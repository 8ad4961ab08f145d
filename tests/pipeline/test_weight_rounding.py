"""Rounding of weights by moments: what is judged, cut into pieces, done in several goes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from planish.graph.graph import Node
from planish.graph.parse import parse_graph
from planish.pipeline import weights as stage
from planish.pipeline.options import silent
from planish.pipeline.samples import Arrays
from planish.quantize.rounding import Rounding, encode_weights

_TEXT = """
graph products
  input %x: f32[1,40]
  const %w: f32[40,6] = random(1)
  const %v: f32[40,6] = random(2)
  %m: f32[1,6] = MatMul(%x, %w)
  %n: f32[1,6] = MatMul(%x, %v)
  output %m
  output %n
"""


def nodes() -> list[Node]:
    return list(parse_graph(_TEXT).nodes)


def samples(count: int, together: bool = True) -> list[Arrays]:
    """Inputs that go together, or each by itself."""
    random = np.random.default_rng(3)
    made = random.standard_normal((count, 30, 40))
    shared = random.standard_normal((count, 30, 1)) if together else 0.0
    return [{"x": rows.astype(np.float32)} for rows in made * 0.3 + shared]


def reads(arrays: Arrays) -> Mapping[str, np.ndarray]:
    return {node.name: arrays["x"] for node in nodes()}


def lost(node: Node, rounding: Rounding | None, kept: list[Arrays]) -> float:
    held = node.inputs[1]
    assert held is not None and held.data is not None
    data = np.asarray(held.data)
    codes, scales = encode_weights(data, 1, rounding=rounding)
    return float(sum(np.sum((a["x"] @ (data - codes * scales)) ** 2) for a in kept))


def rounded(kept: list[Arrays]) -> dict[str, Rounding]:
    return stage.round_weights(nodes(), kept, reads, {}, True, silent)


def test_results_lose_less_on_samples_that_were_not_seen() -> None:
    found = rounded(samples(12))
    assert list(found) == ["m", "n"]
    others = [{"x": -rows["x"]} for rows in samples(40)[20:]]
    for node in nodes():
        assert lost(node, found[node.name], others) < 0.5 * lost(node, None, others)


def test_what_does_not_help_stays_at_the_nearest() -> None:
    assert rounded(samples(12, together=False)) == {}


def test_what_helps_by_chance_stays_at_the_nearest() -> None:
    """Two results a sample: the samples to round by are met exactly, the others are not."""
    few = [{"x": rows["x"][:2]} for rows in samples(4, together=False)]
    assert rounded(few) == {}
    one = few[:1]  # where there are too few to judge by, those have to do
    assert list(rounded(one)) == ["m", "n"]


def test_moments_in_several_goes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rounded(samples(6))
    monkeypatch.setattr(stage, "_MEMORY", 1)
    runs: list[Arrays] = []

    def counted(arrays: Arrays) -> Mapping[str, np.ndarray]:
        runs.append(arrays)
        return reads(arrays)

    kept = samples(6)
    assert stage.round_weights(nodes(), kept, counted, {}, True, silent) == whole
    assert len(runs) == 2 * len(kept)


def test_channels_of_many_weights_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = samples(12)
    whole = rounded(kept)
    monkeypatch.setattr(stage, "_WIDEST", 15)
    done: list[tuple[int, int]] = []
    cut = stage.round_weights(
        nodes(), kept, reads, {}, True, lambda what, n, total: done.append((n, total))
    )
    assert done == [(0, 2), (0, 2), (1, 2), (1, 2), (1, 2), (2, 2)]
    for node in nodes():
        assert cut[node.name] != whole[node.name]
        assert lost(node, cut[node.name], kept) < lost(node, None, kept)


def test_the_mean_counts_where_no_bias_makes_up_for_it() -> None:
    kept = [{"x": rows["x"] + np.float32(5.0)} for rows in samples(12, together=False)]
    mean = np.mean([rows["x"].mean(axis=0) for rows in kept], axis=0, dtype=np.float64)[None]
    means = {node.name: mean for node in nodes()}
    assert stage.round_weights(nodes(), kept, reads, means, True, silent) == {}
    assert list(rounded(kept)) == ["m", "n"]
