"""Pairs: what the quantised graph computes, by the ONNX reference."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import (
    BRANCHES,
    DEPTHWISE,
    NORMED,
    RESIDUAL,
    feed,
    graph_of,
    layers_of,
)

from planish.graph.reference import interpret
from planish.graph.verify import verify
from planish.quantize.histogram import Histogram
from planish.quantize.insert import bias_of, insert_pairs
from planish.quantize.observers import observe
from planish.quantize.placement import Placement, place
from planish.quantize.scales import Scale, activation_scale
from planish.quantize.settings import make_settings
from planish.quantize.simulate import observed_graph, simulate

ALL = (RESIDUAL, BRANCHES, DEPTHWISE, NORMED)


def scales_for(placement: Placement, values: dict[str, np.ndarray]) -> dict[str, Scale]:
    scales = {}
    for group in placement.groups:
        seen = Histogram.new()
        for root in group.roots:
            seen.add(values[root.name])
        scales[group.name] = activation_scale(observe(seen, "max"))
    return scales


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_quantised_graph_is_near_the_float_one(text: str, per_channel: bool) -> None:
    graph = graph_of(text)
    placement = place(graph, layers_of(graph), make_settings())
    inputs = feed(graph)
    values = interpret(graph, inputs)
    (name,) = [v.name for v in graph.outputs]
    exact = values[name]
    scales = scales_for(placement, values)
    insert_pairs(graph, placement, scales, per_channel)
    verify(graph)
    found = interpret(graph, inputs)[name]
    assert 0 < np.abs(found - exact).max() < 0.06 * np.abs(exact).max()


@pytest.mark.parametrize("text", ALL)
def test_a_value_has_one_pair_and_weights_are_s8(text: str) -> None:
    graph = graph_of(text)
    placement = place(graph, layers_of(graph), make_settings())
    insert_pairs(graph, placement, scales_for(placement, interpret(graph, feed(graph))))
    quantised = [n.inputs[0] for n in graph.nodes if n.op == "QuantizeLinear"]
    assert len(quantised) == len(set(quantised)) == len(placement.readers)
    for node in placement.contractions:
        weights = node.inputs[1]
        assert weights is not None
        assert weights.producer is not None
        codes = weights.producer.inputs[0]
        assert codes is not None
        assert str(codes.dtype) == "i8"


@pytest.mark.parametrize("text", ALL)
def test_the_simulation_computes_what_the_pairs_do(text: str) -> None:
    graph = graph_of(text)
    placement = place(graph, layers_of(graph), make_settings())
    inputs = feed(graph)
    scales = scales_for(placement, interpret(graph, inputs))
    simulation = simulate(graph, placement)
    verify(simulation.graph)
    (name,) = [v.name for v in graph.outputs]
    made = interpret(simulation.graph, {**inputs, **simulation.parameters(scales)})[name]
    insert_pairs(graph, placement, scales)
    expected = interpret(graph, inputs)[name]
    # Products with the inverse may round to the neighbouring code.
    assert np.abs(made - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("text", ALL)
def test_without_scales_the_simulation_rounds_weights_only(text: str) -> None:
    graph = graph_of(text)
    placement = place(graph, layers_of(graph), make_settings())
    inputs = feed(graph)
    (name,) = [v.name for v in graph.outputs]
    exact = interpret(graph, inputs)[name]
    simulation = simulate(graph, placement)
    made = interpret(simulation.graph, {**inputs, **simulation.parameters({})})[name]
    assert np.abs(made - exact).max() < 0.04 * np.abs(exact).max()


def test_biases_of_a_simulation_reach_their_channels() -> None:
    graph = graph_of(BRANCHES)
    placement = place(graph, layers_of(graph), make_settings())
    simulation = simulate(graph, placement)
    inputs = feed(graph)
    plain = interpret(simulation.graph, {**inputs, **simulation.parameters({})})
    added = np.array([1.0, 0.0, -2.0], np.float32)
    given = simulation.parameters({}, {"c2": added})
    moved = interpret(simulation.graph, {**inputs, **given})
    mean = simulation.means["c2"]
    assert moved[mean] - plain[mean] == pytest.approx(added, abs=1e-5)


def test_what_calibration_looks_at() -> None:
    graph = graph_of(RESIDUAL)
    placement = place(graph, layers_of(graph), make_settings())
    observed, roots, means, reads = observed_graph(graph, placement)
    verify(observed)
    assert set(reads) == set(means)
    inputs = feed(graph)
    values, exact = interpret(observed, inputs), interpret(graph, inputs)
    assert set(roots) == {root.name for group in placement.groups for root in group.roots}
    for name, output in roots.items():
        assert np.array_equal(values[output], exact[name])
    assert values[means["c1"]] == pytest.approx(exact["c1"].mean(axis=(0, 2, 3)), abs=1e-5)
    assert values[means["m"]] == pytest.approx(exact["m"].mean(axis=0), abs=1e-5)


def test_biases_are_found() -> None:
    graph = graph_of(RESIDUAL)
    nodes = {node.name: node for node in graph.nodes}
    assert bias_of(graph, nodes["c2"]) is None
    first, last = bias_of(graph, nodes["c0"]), bias_of(graph, nodes["m"])
    assert first is not None
    assert last is not None
    assert (first.shape, last.shape) == ((8,), (5,))
