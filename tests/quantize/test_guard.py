"""The accuracy guard's policy, on made-up networks whose layers' harm is known."""

from __future__ import annotations

import math

import pytest

from planish.quantize.guard import Attempt, hold_accuracy

LAYERS = [f"conv{n}" for n in range(40)]


class Network:
    """Each layer in 8 bits does its harm; harms add up."""

    def __init__(self, harm: dict[str, float]) -> None:
        self.harm = {name: harm.get(name, 0.0) for name in LAYERS}
        self.asked: list[frozenset[str]] = []

    def drop(self, floats: frozenset[str]) -> float:
        self.asked.append(floats)
        return sum(h for name, h in self.harm.items() if name not in floats)

    def rank(self) -> list[str]:
        return sorted(LAYERS, key=lambda name: -self.harm[name])


def test_nothing_is_done_inside_the_bound() -> None:
    network = Network({"conv3": 0.2})
    held = hold_accuracy(network.drop, 0.3, lambda: pytest.fail("ranked in vain"))
    assert held.layers == () and held.inside
    assert [a.layers for a in held.path] == [()]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 40])
def test_the_fewest_worst_layers_go(count: int) -> None:
    network = Network({name: 1.0 + n for n, name in enumerate(LAYERS[:count])})
    held = hold_accuracy(network.drop, 0.5, network.rank)
    assert sorted(held.layers) == sorted(LAYERS[:count])
    assert held.inside and held.path[0].drop > 0.5
    assert len(network.asked) == len(set(network.asked)) <= 18


def test_what_saves_most_time_comes_back_where_the_bound_allows() -> None:
    network = Network({"conv0": 1.0, "conv1": 0.9, "conv2": 5.0})
    saved = {"conv0": 1.0, "conv1": 9.0, "conv2": 99.0}
    held = hold_accuracy(network.drop, 1.0, network.rank, saved)
    assert held.layers == ("conv2", "conv0")  # without times conv1, the least, is left out anyway
    network.harm["conv1"] = 1.0
    held = hold_accuracy(network.drop, 1.0, lambda: ["conv2", "conv1", "conv0"], saved)
    assert held.layers == ("conv2", "conv1")


def test_restoring_one_that_a_joint_effect_needed() -> None:
    def drop(floats: frozenset[str]) -> float:
        return 0.0 if {"b", "c"} <= floats else 9.0

    held = hold_accuracy(drop, 1.0, lambda: ["a", "b", "c", "d"], {"a": 5.0})
    assert held.layers == ("b", "c")


def test_a_network_that_nothing_helps() -> None:
    held = hold_accuracy(lambda floats: math.nan, 0.5, lambda: LAYERS)
    assert not held.inside and list(held.layers) == LAYERS
    assert all(a.drop == math.inf for a in held.path)


def test_the_path_is_told_as_it_goes() -> None:
    network = Network({"conv7": 3.0})
    told: list[Attempt] = []
    held = hold_accuracy(network.drop, 1.0, network.rank, told=told.append)
    assert tuple(told) == held.path
    assert told[-1].layers == ("conv7",) and told[-1].inside


def test_no_layers_at_all() -> None:
    held = hold_accuracy(lambda floats: 2.0, 1.0, list)
    assert held.layers == () and not held.inside
