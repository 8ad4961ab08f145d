"""Layouts: golden ones, the twin that tries everything, networks, and the minimalloc problems."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from memory_cases import MEBI, NETWORKS, buffers, minimalloc_file, problems

from planish.base.errors import BuildError
from planish.memory.problem import Buffer, Group, Problem, lower_bound, read_csv
from planish.memory.search import Budget, search
from planish.memory.solve import solve
from planish.memory.sweep import sweep
from planish.memory.validate import validate


def lowest_by_trying_everything(made: tuple[Buffer, ...]) -> int:
    """The optimum: in some order, first fit meets it."""
    return min(_first_fit(order) for order in itertools.permutations(made))


def _first_fit(order: tuple[Buffer, ...]) -> int:
    lying: list[tuple[int, Buffer]] = []
    for new in order:
        offset = 0
        for low, old in sorted(lying, key=lambda entry: entry[0]):
            apart = old.upper <= new.lower or new.upper <= old.lower
            if not apart and low < offset + new.size and offset < low + old.size:
                offset = low + old.size
                offset += -offset % new.align
        lying.append((offset, new))
    return max(offset + buffer.size for offset, buffer in lying)


def budget(placements: int) -> Budget:
    return Budget(placements, time.monotonic() + 60)


def test_golden_layout() -> None:
    problem = Problem(
        (Buffer("in", 0, 2, 4), Buffer("out", 1, 3, 8), Buffer("next", 2, 4, 2, 8)),
    )
    layout = solve(problem)
    assert layout.offsets == {"in": 8, "out": 0, "next": 8}
    assert (layout.height, layout.lower_bound, layout.naive) == (12, 12, 14)
    assert layout.method == "greedy by pressure, size"


def test_nothing_needs_nothing() -> None:
    layout = solve(Problem(()))
    assert (layout.offsets, layout.height) == ({}, 0)


def test_empty_buffers_get_an_offset() -> None:
    problem = Problem((Buffer("none", 0, 9, 0), Buffer("some", 1, 5, 3)), 3)
    validate(problem, solve(problem).offsets)


@given(problems())
@settings(max_examples=80, deadline=None)
def test_every_layout_is_valid_and_not_below_the_bound(problem: Problem) -> None:
    layout = solve(problem, target=lower_bound(problem), placements=2000)
    validate(problem, layout.offsets)
    assert layout.height >= layout.lower_bound
    assert layout == solve(problem, target=lower_bound(problem), placements=2000)


@given(buffers(5, (1, 1, 1, 2, 4)))
@settings(max_examples=60, deadline=None)
def test_search_finds_a_layout_exactly_where_there_is_one(made: tuple[Buffer, ...]) -> None:
    problem = Problem(made)
    lowest = lowest_by_trying_everything(made)
    assert search(sweep(problem), lowest - 1, budget(100_000)) is None
    offsets = search(sweep(problem), lowest, budget(100_000))
    assert offsets is not None
    by_name = {buffer.id: offset for buffer, offset in zip(made, offsets, strict=True)}
    validate(Problem(made, lowest), by_name)


def test_search_improves_on_every_greedy() -> None:
    path = minimalloc_file("E.1048576.csv")
    problem = read_csv(path)
    greedy = solve(problem, target=10 * MEBI)
    better = solve(problem)
    assert greedy.method.startswith("greedy")
    assert better.method == "search"
    assert better.height <= 1.02 * better.lower_bound < greedy.height
    validate(problem, better.offsets)


def test_depth_costs_no_recursion() -> None:
    made = tuple(Buffer(f"b{n}", n, n + 2, 1) for n in range(1200))
    assert search(sweep(Problem(made)), 2, budget(10_000)) is not None


def test_a_group_keeps_its_distances_and_leaves_its_hollow_to_others() -> None:
    parts = (
        Buffer("late", 4, 8, 8),
        Buffer("early", 0, 8, 8),
        Buffer("guest", 0, 4, 8),
    )
    problem = Problem(parts, 16, (Group("concat", (("late", 0), ("early", 8))),))
    layout = solve(problem)
    validate(problem, layout.offsets)
    assert layout.offsets == {"late": 0, "early": 8, "guest": 0}


def test_more_alive_than_fits_is_refused() -> None:
    with pytest.raises(BuildError, match="12 bytes are alive at the same time, the capacity is 11"):
        solve(Problem((Buffer("a", 0, 2, 4), Buffer("b", 1, 3, 8)), 11))


def test_a_capacity_that_no_layout_meets_is_refused() -> None:
    made = (Buffer("a", 0, 2, 1, 4), Buffer("b", 1, 3, 1, 4))
    assert solve(Problem(made, 5)).height == 5
    with pytest.raises(BuildError, match=r"no layout within the capacity of 4 .* lowest one has 5"):
        solve(Problem(made, 4))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_meet_the_bound_without_search(name: str) -> None:
    layout = solve(Problem(NETWORKS[name]))
    validate(Problem(NETWORKS[name]), layout.offsets)
    assert layout.height <= 1.02 * layout.lower_bound
    assert layout.method.startswith("greedy")


@pytest.mark.parametrize("name", ["E", "G", "J", "K"])
def test_minimalloc_problems_that_are_quick(name: str) -> None:
    problem = read_csv(minimalloc_file(f"{name}.{MEBI}.csv"), capacity=MEBI)
    layout = solve(problem)
    validate(problem, layout.offsets)
    assert layout.height <= MEBI
    assert layout.method == "search"


def test_minimalloc_example_at_its_optimum() -> None:
    problem = read_csv(minimalloc_file("input.12.csv"), capacity=12)
    layout = solve(problem)
    validate(problem, layout.offsets)
    assert layout.height == layout.lower_bound == 12
