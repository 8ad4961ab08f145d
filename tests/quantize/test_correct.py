"""Bias correction: layers are corrected in order, each against what is left of its own error."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from small_networks import BRANCHES, RESIDUAL, feed, graph_of

from planish.base.errors import BuildError
from planish.graph.reference import interpret
from planish.graph.verify import verify
from planish.quantize.apply import apply_biases, graph_digest
from planish.quantize.correct import (
    certain_mean,
    correct_biases,
    mean_patch,
    weight_correction,
)


def test_an_error_is_corrected_where_it_arises() -> None:
    wanted = {"a": np.array([[1.0, 2.0]] * 3), "b": np.array([[5.0]] * 3)}
    asked: list[int] = []

    def measure(biases: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        a = wanted["a"] - 0.25 + biases.get("a", 0.0)
        left = (a - wanted["a"]).sum(axis=1, keepdims=True)  # a's error goes on
        b = wanted["b"] + left + biases.get("b", 0.0)
        return {"a": a, "b": b}

    found = correct_biases(["a", "b"], wanted, measure, asked.append)
    assert found["a"].tolist() == [0.25, 0.25]
    assert found["b"].tolist() == [0.0]
    assert asked == [1, 2]


@pytest.mark.parametrize("name", ["c0", "c2", "m"])
def test_corrections_reach_the_results(name: str) -> None:
    graph = graph_of(RESIDUAL)
    node = next(n for n in graph.nodes if n.name == name)
    channels = {"c0": 8, "c2": 4, "m": 5}[name]
    added = np.arange(1, channels + 1, dtype=np.float32)
    inputs = feed(graph)
    reads = {"c0": "r0", "c2": "g", "m": "y"}[name]
    before = interpret(graph, inputs)[reads]
    apply_biases(graph, [node], {name: added, "another": added})
    verify(graph)
    after = interpret(graph, inputs)[reads]
    if name == "c0":
        assert np.all(after >= before)
    else:
        shape = (1, -1) + (1,) * (after.ndim - 2)
        assert after - before == pytest.approx(np.broadcast_to(added.reshape(shape), after.shape),
                                               abs=1e-4)  # fmt: skip


def test_a_result_of_the_network_is_corrected() -> None:
    graph = graph_of(BRANCHES)
    node = next(n for n in graph.nodes if n.name == "c2")
    inputs = feed(graph)
    before = interpret(graph, inputs)["c2"]
    apply_biases(graph, [node], {"c2": np.array([1.0, 2.0, 3.0], np.float32)})
    verify(graph)
    after = interpret(graph, inputs)["c2"]
    assert np.allclose((after - before).mean(axis=(0, 2, 3)), [1.0, 2.0, 3.0], atol=1e-4)


def test_the_wrong_number_of_channels() -> None:
    graph = graph_of(BRANCHES)
    node = next(n for n in graph.nodes if n.name == "c2")
    with pytest.raises(BuildError, match="corrects 2 channels of 'c2', it has 3"):
        apply_biases(graph, [node], {"c2": np.zeros(2, np.float32)})


def test_digests_tell_networks_apart() -> None:
    assert graph_digest(graph_of(BRANCHES)) == graph_digest(graph_of(BRANCHES))
    assert graph_digest(graph_of(BRANCHES)) != graph_digest(graph_of(RESIDUAL))
    other = BRANCHES.replace("random(3)", "random(4)")
    assert graph_digest(graph_of(BRANCHES)) != graph_digest(graph_of(other))
    batch = BRANCHES.replace("f32[1,", "f32[2,").replace("f32[4,4,1,1]", "f32[4,4,1,1]")
    assert graph_digest(graph_of(BRANCHES)) == graph_digest(graph_of(batch))


def test_what_chance_explains_is_no_error() -> None:
    rows = np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.5, 0.0]])
    assert certain_mean(rows).tolist() == [1.0, 0.0, 0.0]
    assert certain_mean(rows[:1]).tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["c0", "c1", "c2", "m"])
def test_the_mean_error_of_rounded_weights_is_known_without_a_run(name: str) -> None:
    graph = graph_of(RESIDUAL)
    node = next(n for n in graph.nodes if n.name == name)
    x, weights = node.inputs[0], node.inputs[1]
    assert x is not None and weights is not None and weights.data is not None
    known = interpret(graph, feed(graph))
    rounded = np.round(np.asarray(weights.data), 1)
    added = weight_correction(node, rounded, mean_patch(node, known[x.name]))
    weights.data = rounded
    after = interpret(graph, feed(graph))[node.output.name]
    axes = tuple(n for n in range(after.ndim) if n != (1 if node.op == "Conv" else after.ndim - 1))
    gap = (known[node.output.name] - after).mean(axis=axes)
    assert np.abs(gap).max() > 1e-3
    assert added == pytest.approx(gap, rel=1e-4, abs=1e-4)
