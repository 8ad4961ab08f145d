"""Equalisation: the function stays, the ranges come together."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import BRANCHES, DEPTHWISE, RESIDUAL, feed, graph_of

from planish.graph.graph import Graph
from planish.graph.reference import interpret
from planish.graph.verify import verify
from planish.quantize.equalise import equalise, find_pairs


def skewed(text: str, powers: list[float], bias_factor: float = 1.0) -> Graph:
    """A network whose first layer's channels differ widely."""
    graph = graph_of(text)
    node = next(n for n in graph.nodes if n.name == "c0")
    weights, bias = node.inputs[1], node.inputs[2]
    assert weights is not None
    assert bias is not None
    factors = np.float32(10.0) ** np.array(powers, np.float32)
    weights.data = np.asarray(weights.data) * factors.reshape(-1, 1, 1, 1)
    bias.data = np.asarray(bias.data) * factors * np.float32(bias_factor)
    return graph


@given(powers=st.lists(st.floats(-2, 2, width=32), min_size=6, max_size=6))
@settings(deadline=None, max_examples=15)
def test_the_function_stays(powers: list[float]) -> None:
    graph = skewed(DEPTHWISE, powers)
    inputs = feed(graph)
    before = interpret(graph, inputs)["c2"]
    equalise(graph)
    verify(graph)
    after = interpret(graph, inputs)["c2"]
    assert np.abs(after - before).max() <= 2e-6 * np.abs(before).max() + 1e-30


def test_channels_end_with_equal_ranges() -> None:
    graph = skewed(DEPTHWISE, [2.0, -2.0, 1.0, 0.0, -1.0, 0.5], bias_factor=0.0)
    _set_bias(graph, "c1", np.zeros(6, np.float32))
    pairs = equalise(graph)
    assert [(p.first.name, p.second.name) for p in pairs] == [("c0", "c1"), ("c1", "c2")]
    first, second, third = (np.abs(_weights(graph, name)) for name in ("c0", "c1", "c2"))
    made, middle = first.max(axis=(1, 2, 3)), second.max(axis=(1, 2, 3))
    assert np.allclose(made, middle, rtol=0.02)
    assert np.allclose(middle, third.max(axis=(0, 2, 3)), rtol=0.02)


def test_a_channel_that_is_all_bias_is_not_blown_up() -> None:
    graph = skewed(DEPTHWISE, [-8.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    bias = np.array([0.5, 1.0, -0.2, 0.1, 0.3, 0.4], np.float32)
    _set_bias(graph, "c0", bias)
    assert equalise(graph)[0].factors[0] >= 0.5
    assert np.abs(_bias(graph, "c0")).max() <= 1.0001


def test_a_clip_becomes_one_for_each_channel() -> None:
    graph = skewed(DEPTHWISE, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    pairs = equalise(graph)
    assert not [node for node in graph.nodes if node.op == "Clip"]
    (bound, _) = [node.inputs[1] for node in graph.nodes if node.op == "Min"]
    assert bound is not None
    assert np.allclose(np.asarray(bound.data).reshape(-1), 6.0 / pairs[0].factors)


def test_a_second_run_changes_next_to_nothing() -> None:
    graph = skewed(DEPTHWISE, [2.0, -2.0, 1.0, 0.0, -1.0, 0.5])
    equalise(graph)
    for pair in equalise(graph):
        assert np.allclose(pair.factors, 1.0, rtol=0.05)


def test_a_channel_of_zeros_stays() -> None:
    graph = graph_of(DEPTHWISE)
    node = next(n for n in graph.nodes if n.name == "c0")
    weights = node.inputs[1]
    assert weights is not None
    weights.data = np.asarray(weights.data) * np.array([0, 1, 1, 1, 1, 1], np.float32).reshape(
        -1, 1, 1, 1
    )
    assert equalise(graph)[0].factors[0] == 1.0
    assert np.all(np.isfinite(_weights(graph, "c1")))


def test_what_somebody_else_reads_is_left_alone() -> None:
    assert not list(find_pairs(graph_of(RESIDUAL)))  # r0 is a skip, p a pool of what is one
    assert not list(find_pairs(graph_of(BRANCHES)))


def _set_bias(graph: Graph, name: str, data: np.ndarray) -> None:
    (value,) = [node.inputs[2] for node in graph.nodes if node.name == name]
    assert value is not None
    value.data = data


def _bias(graph: Graph, name: str) -> np.ndarray:
    (value,) = [node.inputs[2] for node in graph.nodes if node.name == name]
    assert value is not None
    return np.asarray(value.data)


def _weights(graph: Graph, name: str) -> np.ndarray:
    (value,) = [node.inputs[1] for node in graph.nodes if node.name == name]
    assert value is not None
    return np.asarray(value.data)
