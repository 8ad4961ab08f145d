"""A network with any set of layers in 8 bits, what that does to it, and how it is scored."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planish import pipeline
from planish.base.errors import InputError
from planish.graph.copy import copy_graph
from planish.graph.reference import interpret
from planish.lower.profiles import fix_dims, make_profiles
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.pipeline.data import inputs_of
from planish.pipeline.labels import Labels
from planish.pipeline.options import silent
from planish.pipeline.samples import from_iterable
from planish.pipeline.scoring import (
    Loss,
    OutputNoise,
    TopOne,
    UserMetric,
    decibels,
    halves,
    percent,
    pick,
)
from planish.pipeline.sensitivity import alone, layer_noise, measure_sensitivity, worst_first
from planish.pipeline.simulation import Simulation, in_floats
from planish.quantize.insert import insert_pairs
from planish.quantize.observers import Range
from planish.quantize.placement import place
from planish.quantize.scales import Scale, activation_scale
from planish.quantize.settings import make_settings
from planish.targets.cpu import host_target

RNG = np.random.default_rng(3)
DATA = RNG.standard_normal((12, 3, 8, 8)).astype(np.float32)


def model() -> onnx.ModelProto:
    """Two convolutions, a residual sum, a wide-ranged third one, a classifier."""
    random = np.random.default_rng(7)

    def weight(name: str, *shape: int, wild: float = 1.0) -> TensorProto:
        data = random.standard_normal(shape).astype(np.float32) * 0.2
        data[0] *= wild
        return numpy_helper.from_array(data, name)

    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["ra"], name="relu_a"),
        helper.make_node("Conv", ["ra", "wb"], ["b"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "ra"], ["sum"], name="add"),
        helper.make_node("Conv", ["sum", "wc"], ["c"], name="third[x]*"),
        helper.make_node("GlobalAveragePool", ["c"], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "wg"], ["scores"], name="classify"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])],
        [
            weight("wa", 8, 3, 3, 3),
            weight("wb", 8, 8, 3, 3),
            weight("wc", 16, 8, 1, 1, wild=40.0),
            weight("wg", 16, 5),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Network:
    """The model with scales that cover what it computes on the data."""

    def __init__(self) -> None:
        graph = pipeline.read_graph(model())
        self.ranges = fix_dims(graph, make_profiles(graph, "N=1:2:16"))
        self.graph = pipeline.optimise(graph).graph
        self.settings = make_settings()
        values = interpret(self.graph, {"x": DATA})
        self.scales: dict[str, Scale] = {}
        for group in self.placement().groups:
            data = np.concatenate([np.asarray(values[v.name]).ravel() for v in group.values])
            low, high = min(0.0, float(data.min())), max(0.0, float(data.max()))
            self.scales[group.name] = activation_scale(Range(low, high))

    def placement(self, floats: frozenset[str] = frozenset()):
        layers = fuse_layers(self.graph, native_reason, lambda kind, node: True)
        return place(self.graph, layers, in_floats(self.settings, floats))

    def quantised(self, floats: frozenset[str], feeds: dict[str, np.ndarray]) -> np.ndarray:
        """What the graph with real pairs gives, by the reference interpreter."""
        copy = copy_graph(self.graph)[0]
        layers = fuse_layers(copy, native_reason, lambda kind, node: True)
        insert_pairs(copy, place(copy, layers, in_floats(self.settings, floats)), self.scales)
        return np.asarray(interpret(copy, feeds)["scores"])


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


@pytest.fixture(scope="module")
def simulation(network: Network) -> Iterator[Simulation]:
    made = Simulation(
        network.graph, network.settings, network.scales, host_target("", 2), network.ranges, silent
    )
    yield made
    made.close()


def samples(network: Network, keys: int = 12):
    return from_iterable(list(DATA[:keys]), inputs_of(network.graph), None)


def test_any_set_of_layers(network: Network, simulation: Simulation) -> None:
    feeds = {"x": DATA[:3]}
    first, second, third, last = simulation.layers
    assert third == "third[x]*"  # a name with the signs of patterns
    exact = np.asarray(interpret(network.graph, feeds)["scores"])
    np.testing.assert_allclose(simulation.reference(feeds)["scores"], exact, rtol=1e-4, atol=1e-5)
    for floats in ((), (first,), (third, last), (second, third, last), (first, second), ()):
        found = simulation.runner(frozenset(floats))(feeds)["scores"]
        wanted = network.quantised(frozenset(floats), feeds)
        assert np.abs(found - wanted).max() < 0.02 * np.abs(exact).max()
        assert not np.allclose(found, exact, rtol=1e-6)


def test_noise_in_decibels() -> None:
    assert decibels(100.0, 1.0) == pytest.approx(20.0)
    assert decibels(1.0, 0.0) == math.inf
    assert decibels(0.0, 1.0) == decibels(1.0, math.nan) == decibels(1.0, math.inf) == -math.inf


def test_ranking_finds_the_harmful_layer(network: Network, simulation: Simulation) -> None:
    noise = OutputNoise(list(samples(network).feeds()), simulation.reference)
    ratios = alone(simulation, noise, silent)
    assert set(ratios) == set(simulation.layers)
    assert worst_first(ratios)[0] == min(ratios, key=ratios.__getitem__)
    whole = noise.ratio(simulation.runner(frozenset()))
    assert whole < min(ratios.values()) + 1.0
    assert noise.ratio(simulation.reference) == math.inf
    assert percent(20.0) == pytest.approx(1.0) and percent(math.inf) == 0.0


def test_inputs_and_weights(network: Network, simulation: Simulation) -> None:
    found = layer_noise(simulation, list(samples(network)))
    for row in found.values():
        assert row.input_sqnr > 25 and row.weight_sqnr > 25
        assert 0.0 <= row.underflown < 0.2
        assert row.saturated < 0.01  # the ranges cover these very data


def test_the_table(network: Network, simulation: Simulation) -> None:
    data = samples(network)
    labels = Labels({str(n): n % 5 for n in range(12)})
    scorer = TopOne(data, labels, simulation.reference)
    made = measure_sensitivity(
        simulation, pick(data, 4), scorer, {name: 1.0 for name in simulation.layers}
    )
    assert made.samples == 4 and len(made.layers) == 4
    assert [r.output_sqnr for r in made.layers] == sorted(r.output_sqnr for r in made.layers)
    assert made.layers[0].saved == 1.0 and made.layers[0].drop is not None
    assert made.record()["layers"][0]["noise"]["input_sqnr"] > 0


def test_top_one_counts_only_real_samples(network: Network) -> None:
    data = from_iterable([DATA[:4], DATA[4:5]], inputs_of(network.graph), None)
    labels = Labels({str(n): n for n in range(5)}, first_class=1)

    def right(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        first = next(n for n in range(5) if np.array_equal(feeds["x"][0], DATA[n]))
        rows = np.zeros((len(feeds["x"]), 6), np.float32)
        rows[np.arange(len(rows)), first + 1 + np.arange(len(rows))] = 1
        return {"y": rows}

    scorer = TopOne(data, labels, right)
    assert scorer.loss(right) == Loss(0.0, 0.0) and scorer.count == 5
    worst = scorer.loss(lambda f: {"y": -right(f)["y"]})
    assert worst.drop == 100.0 and worst.error == pytest.approx(100.0 / 5**0.5)
    with pytest.raises(InputError, match="no row for each of 4"):
        scorer.loss(lambda feeds: {"y": np.zeros((1, 6))})


def test_a_metric_of_the_users() -> None:
    scorer = UserMetric(lambda run: float(run({})["y"][0]), lambda feeds: {"y": np.array([0.9])})
    assert scorer.loss(lambda feeds: {"y": np.array([0.4])}).drop == pytest.approx(0.5)


def test_the_same_samples_in_any_order(network: Network) -> None:
    inputs = inputs_of(network.graph)
    order = RNG.permutation(12)
    one = pick(from_iterable(list(DATA), inputs, None), 5)
    other = pick(from_iterable(list(DATA[order]), inputs, None), 5)
    assert len(one) == 5
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.arrays["x"], b.arrays["x"])


def test_halves_share_nothing_and_do_not_depend_on_the_order(network: Network) -> None:
    inputs = inputs_of(network.graph)
    data = from_iterable(list(DATA), inputs, None)
    one, other = halves(data)
    assert len(one) == len(other) == 6 and not one & other
    assert halves(from_iterable(list(DATA[::-1]), inputs, None)) == (one, other)
    labels = Labels({str(n): 0 for n in range(12)})
    scorers = [TopOne(data, labels, zeros_everywhere, only=half) for half in (one, other)]
    assert [scorer.count for scorer in scorers] == [6, 6]


def zeros_everywhere(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": np.zeros((len(feeds["x"]), 5), np.float32)}
