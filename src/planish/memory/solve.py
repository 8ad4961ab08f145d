"""Lifetimes to offsets: the greedy layouts first, a search where they fall short.

    bound    bytes of the largest live set: no layout is lower
    greedy   a few orders, some milliseconds; for networks it mostly meets the bound
    search   asked for a layout below a ceiling, with a budget counted in placements

The same problem gives the same layout on any machine, as long as the time limit is not hit: that
is a last guard only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from planish.base.errors import BuildError
from planish.memory.greedy import Placement, height_of, lay_out_greedily
from planish.memory.problem import Problem, lower_bound, naive_sum
from planish.memory.search import Budget, search
from planish.memory.sweep import Sweep, sweep

GOOD_ENOUGH = 1.02  # times the lower bound: what is aimed at where neither target nor capacity is
PLACEMENTS_TO_FIT = 1_000_000  # spent on meeting a capacity, without which there is no plan
PLACEMENTS_TO_IMPROVE = 20_000  # spent on a layout that is valid already; about a second
CEILINGS = 4  # tried one after the other when improving
WORTH_TRYING = 0.005  # of the lower bound: two ceilings closer than this are one


@dataclass(frozen=True, slots=True)
class Layout:
    """Where every buffer lies, and how good that is."""

    offsets: dict[str, int]  # of every buffer, by id, in the order of the problem
    height: int  # the arena's size
    lower_bound: int  # the largest live set
    naive: int  # the sum of all sizes
    method: str  # what found it
    seconds: float = field(compare=False)


def solve(
    problem: Problem,
    *,
    time_limit_s: float = 60.0,
    target: int | None = None,
    placements: int | None = None,
) -> Layout:
    """Lays out the buffers of a problem in one arena.

    Args:
        problem: The buffers, and the capacity where there is one.
        time_limit_s: A last guard, in seconds. It should never be what ends a search.
        target: A height that is good enough. By default the capacity, or else 1.02 times the
            lower bound.
        placements: Budget of the search. By default large where the capacity is not met yet and
            small where a valid layout is merely to be improved.

    Returns:
        The lowest layout found. It may be higher than the target, but never than the capacity.

    Raises:
        BuildError: No layout within the capacity exists, or none was found.
    """
    begin = time.monotonic()
    bound, capacity = lower_bound(problem), problem.capacity
    if capacity is not None and bound > capacity:
        raise BuildError(
            f"memory: {bound} bytes are alive at the same time, the capacity is {capacity}",
            hint="raise the capacity or shrink the problem; no layout can do it",
        )
    swept = sweep(problem)
    best = lay_out_greedily(swept, bound)
    goal = max(bound, _goal(bound, capacity, target))
    deadline = begin + time_limit_s
    if capacity is not None and best.height > capacity:
        best = _fit(swept, capacity, Budget(placements or PLACEMENTS_TO_FIT, deadline), best)
    if best.height > goal:
        budget = placements or PLACEMENTS_TO_IMPROVE
        best = _improve(swept, best, goal, bound, budget, deadline)
    return Layout(
        offsets=_offsets_by_id(problem, swept, best),
        height=best.height,
        lower_bound=bound,
        naive=naive_sum(problem),
        method=best.method,
        seconds=time.monotonic() - begin,
    )


def _goal(bound: int, capacity: int | None, target: int | None) -> int:
    if target is not None:
        return target
    return int(GOOD_ENOUGH * bound) if capacity is None else capacity


def _fit(problem: Sweep, capacity: int, budget: Budget, greedy: Placement) -> Placement:
    """A layout within the capacity."""
    allowed = budget.placements
    offsets = search(problem, capacity, budget)
    if offsets is None:
        raise BuildError(
            f"memory: no layout within the capacity of {capacity} was found in "
            f"{allowed - budget.placements} placements; the lowest one has {greedy.height}",
            hint="raise the capacity, or the placements or time that the search may spend",
        )
    return _searched(problem, offsets)


def _improve(
    problem: Sweep, best: Placement, goal: int, bound: int, placements: int, deadline: float
) -> Placement:
    """The lowest layout that a small budget finds.

    The bound itself comes first, for the tighter the ceiling, the more it rules out early on. Then
    the goal, and then bisection between the goal and what there is.
    """
    failed = bound - 1
    ceiling = bound
    for _ in range(CEILINGS):
        offsets = search(problem, ceiling, Budget(placements // CEILINGS, deadline))
        if offsets is None:
            failed = ceiling
        else:
            best = _searched(problem, offsets)
        if best.height <= max(goal, failed + WORTH_TRYING * bound):
            break
        ceiling = goal if failed < goal else (failed + best.height) // 2
    return best


def _searched(problem: Sweep, offsets: list[int]) -> Placement:
    return Placement(tuple(offsets), height_of(problem, offsets), "search")


def _offsets_by_id(problem: Problem, swept: Sweep, placement: Placement) -> dict[str, int]:
    """Offsets of buffers from those of the shapes that they belong to."""
    found = {
        name: offset + distance
        for shape, offset in zip(swept.shapes, placement.offsets, strict=True)
        for name, distance in shape.members
    }
    return {buffer.id: found[buffer.id] for buffer in problem.buffers}
