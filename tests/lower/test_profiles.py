"""Ranges of symbolic dims: how they are said, and what is said back where they make no sense."""

from __future__ import annotations

from typing import Any

import pytest
from small_models import MODELS, model

from planish.base.errors import ModelError, ShapeError
from planish.base.shapes import symbol
from planish.graph.graph import Graph
from planish.graph.parse import parse_graph
from planish.lower.assemble import block_sizes
from planish.lower.profiles import (
    DEFAULT_BATCH,
    DEFAULT_OTHER,
    fix_dims,
    make_profiles,
    settle_dims,
)
from planish.pipeline import read_graph


def _graph(name: str = "dynamic") -> Graph:
    return read_graph(model(MODELS[name]))


def test_what_nobody_says_is_assumed() -> None:
    (profile,) = make_profiles(_graph(), None)
    assert profile.dims == (("N", *DEFAULT_BATCH), ("M", *DEFAULT_OTHER))


@pytest.mark.parametrize(
    "said",
    [
        "x=1x3x2:4x3x8:8x3x16",
        "N=1:4:8,M=2:8:16",
        {"x": [(1, 3, 2), (4, 3, 8), (8, 3, 16)]},
        {"N": (1, 4, 8), "M": (2, 8, 16)},
    ],
)
def test_every_way_to_say_it_means_the_same(said: Any) -> None:
    (profile,) = make_profiles(_graph(), said)
    assert profile.dims == (("N", 1, 4, 8), ("M", 2, 8, 16))


def test_several_profiles() -> None:
    made = make_profiles(_graph(), ["N=1,M=2", "N=2:4:8,M=4"])
    assert [p.dims[0] for p in made] == [("N", 1, 1, 1), ("N", 2, 4, 8)]


def test_a_static_model_has_none() -> None:
    assert make_profiles(_graph("residual"), None) == ()


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("x", "expected name=MIN:OPT:MAX"),
        ("x=1x3x2:2x3x2", "one shape or three"),
        ("x=1xax2", "no size"),
        ("q=1", "neither an input"),
        ("x=1x3", "has 2 dims"),
        ("x=1x4x2", "axis 1 is 3 in the model"),
        ("N=4:2:8", "min <= opt <= max"),
        ("N=0:2:8", "0 < min"),
        ({"N": "many"}, "expected min, opt and max"),
        ({"x": 3}, "expected min, opt and max"),
        ([3], "text or a mapping"),
    ],
)
def test_profiles_that_make_no_sense(said: Any, says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        make_profiles(_graph(), said)


def test_dims_held_to_one_value_become_numbers() -> None:
    graph = _graph()
    left = fix_dims(graph, make_profiles(graph, "N=4,M=1:2:3"))
    assert left[0].dims == (("M", 1, 2, 3),)
    assert graph.inputs[0].shape == (4, 3, symbol("M"))
    assert fix_dims(graph, make_profiles(graph, "M=5")) == ()


def test_an_arena_that_grows_with_one_size_is_planned_for_one() -> None:
    n, m = symbol("N"), symbol("M")
    assert block_sizes([64 * n, 128, 10 * n + 3], {"N": 8}) == ([64, 128, 64], n)
    assert block_sizes([64 * n * n], {"N": 2}) == ([256], 1)
    assert block_sizes([4 * n, 4 * m], {"N": 16, "M": 32}) == ([64, 128], 1)


def test_dims_are_solved_for_where_a_node_holds_a_multiple_of_them() -> None:
    graph = parse_graph(
        "graph g\n  input %x: f32[5,2*N-2]\n  input %w: f32[6,3]\n"
        "  %y = MatMul(%x, %w)\n  output %y\n"
    )
    settle_dims(graph)
    assert graph.inputs[0].shape == (5, 6)
    graph = parse_graph(
        "graph g\n  input %x: f32[5,2*N]\n  input %w: f32[7,3]\n"
        "  %y = MatMul(%x, %w)\n  output %y\n"
    )
    with pytest.raises(ModelError, match=r"the size 2\*N would have to be 7"):
        settle_dims(graph)
