"""The accuracy guard's policy, on made-up networks whose layers' harm is known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from planish.quantize.guard import Attempt, Ladder, hold_accuracy, most_attempts

LAYERS = [f"conv{n}" for n in range(40)]


class Network:
    """Each layer in 8 bits does its harm; harms add up."""

    def __init__(self, harm: dict[str, float], prices: Mapping[str, float] | None = None) -> None:
        self.harm = {name: harm.get(name, 0.0) for name in LAYERS}
        self.prices = prices or {}
        self.asked: list[frozenset[str]] = []

    def drop(self, floats: frozenset[str]) -> float:
        self.asked.append(floats)
        return math.fsum(h for name, h in self.harm.items() if name not in floats)

    def ladder(self) -> Ladder:
        return Ladder(self.harm, self.prices)


def test_nothing_is_done_inside_the_bound() -> None:
    network = Network({"conv3": 0.2})
    held = hold_accuracy(network.drop, 0.3, lambda: pytest.fail("ranked in vain"))
    assert held.layers == () and held.inside and held.rung == 0
    assert [a.layers for a in held.path] == [()]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 40])
def test_without_prices_the_fewest_worst_layers_go(count: int) -> None:
    network = Network({name: 1.0 + n for n, name in enumerate(LAYERS[:count])})
    held = hold_accuracy(network.drop, 0.5, network.ladder)
    assert sorted(held.layers) == sorted(LAYERS[:count])
    assert held.inside and held.path[0].drop > 0.5
    assert len(network.asked) == len(set(network.asked)) <= most_attempts(len(LAYERS)) == 21


def test_the_search_comes_from_below() -> None:
    """Answers on the edge put rungs above 2 outside again, as counted ones may."""
    harm = {name: 40.0 - n for n, name in enumerate(LAYERS)}
    drops: dict[int, float] = {2: 0.4, 4: 0.8, 8: 0.8, 16: 1.2, 32: 0.8, 40: 0.0}
    held = hold_accuracy(lambda floats: drops.get(len(floats), 30.0), 0.5, Network(harm).ladder)
    assert held.inside and len(held.layers) == 2


def test_many_cheap_layers_go_before_a_dear_one() -> None:
    """The most harmful layer stays in 8 bits, where others bring the same for less time."""
    harm = {"conv0": 3.0, "conv1": 2.0, "conv2": 2.0}
    prices = dict.fromkeys(LAYERS, 1.0) | {"conv0": 50.0}
    held = hold_accuracy(Network(harm).drop, 3.5, Network(harm, prices).ladder)
    assert set(held.layers) == {"conv1", "conv2"}
    plain = hold_accuracy(Network(harm).drop, 4.5, Network(harm).ladder)
    assert set(plain.layers) == {"conv0"}


def test_a_really_harmful_layer_goes_whatever_it_costs() -> None:
    harm = dict.fromkeys(LAYERS, 0.01) | {"conv7": 1000.0}
    prices = dict.fromkeys(LAYERS, 1e-3) | {"conv7": 1e6}
    held = hold_accuracy(Network(harm).drop, 1.0, Network(harm, prices).ladder)
    assert held.layers == ("conv7",)  # none of the cheap ones that stood before it


def test_noise_in_times_does_not_decide() -> None:
    """A layer that seems to cost nothing, or less than nothing, is no bargain for that."""
    prices = {"conv0": 1.0, "conv1": 1e-9, "conv2": -5.0, "conv3": 1.0}
    ladder = Ladder({"conv0": 9.0, "conv1": 1.0, "conv2": 1.0, "conv3": 1.0}, prices)
    assert ladder.floats(1) == ("conv0",)
    assert ladder.floats(0) == () and set(ladder.floats(ladder.top)) == set(LAYERS[:4])


def test_each_rung_leaves_no_more_noise_and_costs_no_more_than_the_worst_layers() -> None:
    harm = {name: float((n * 7919) % 41 + 1) for n, name in enumerate(LAYERS)}
    prices = {name: float((n * 104729) % 37 + 1) for n, name in enumerate(LAYERS)}
    ladder = Ladder(harm, prices)
    by_harm = sorted(LAYERS, key=lambda name: -harm[name])
    for rung in range(ladder.top + 1):
        floats = set(ladder.floats(rung))
        worst = set(by_harm[:rung])
        assert sum(harm[n] for n in floats) >= sum(harm[n] for n in worst)
        assert sum(prices[n] for n in floats) <= sum(prices[n] for n in worst)
        assert list(ladder.floats(rung)) == [n for n in by_harm if n in floats]


def test_what_saves_most_time_comes_back_where_the_bound_allows() -> None:
    """The network is better than the harms say."""
    network = Network({"conv0": 1.0, "conv1": 1.0, "conv2": 5.0})
    believed = Ladder({"conv0": 4.0, "conv1": 4.0, "conv2": 5.0}, {"conv0": 1.0, "conv1": 9.0})
    held = hold_accuracy(network.drop, 1.0, lambda: believed)
    assert set(held.layers) == {"conv2", "conv0"}


def test_restoring_one_that_a_joint_effect_needed() -> None:
    def drop(floats: frozenset[str]) -> float:
        return 0.0 if {"b", "c"} <= floats else 9.0

    harms = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    held = hold_accuracy(drop, 1.0, lambda: Ladder(harms, {}))
    assert held.layers == ("b", "c")


def test_a_network_that_nothing_helps() -> None:
    broken = Ladder(dict.fromkeys(LAYERS, math.nan), {})
    held = hold_accuracy(lambda floats: math.nan, 0.5, lambda: broken)
    assert not held.inside and set(held.layers) == set(LAYERS)
    assert all(a.drop == math.inf for a in held.path)


def test_the_path_is_told_as_it_goes() -> None:
    network = Network({"conv7": 3.0})
    told: list[Attempt] = []
    held = hold_accuracy(network.drop, 1.0, network.ladder, told.append)
    assert tuple(told) == held.path
    assert held.layers == ("conv7",) and any(a.layers == ("conv7",) and a.inside for a in told)


def test_no_layers_at_all() -> None:
    held = hold_accuracy(lambda floats: 2.0, 1.0, lambda: Ladder({}, {}))
    assert held.layers == () and not held.inside
