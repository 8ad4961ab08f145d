"""Lays out shapes one after the other, each in a gap between those that lie already.

This is fast, and everything hangs on who goes first. No order wins everywhere, so a handful is
tried, and the lowest layout is kept. Largest first with the tightest gap is the classic (Pisarchyk
and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planish.memory.sweep import Sweep

Order = Callable[[Sweep, int], tuple[int, ...]]  # a shape's sort key: smallest goes first


@dataclass(frozen=True, slots=True)
class Greedy:
    """One way of going about it."""

    name: str
    order: Order
    tightest: bool  # into the tightest gap it fits in, or else into the lowest


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the shapes of a sweep lie."""

    offsets: tuple[int, ...]
    height: int
    method: str


def _pressure(problem: Sweep, shape: int) -> int:
    span = problem.spans[shape]
    return max(problem.totals[span.start : span.stop])


def _by_size(problem: Sweep, shape: int) -> tuple[int, ...]:
    return -problem.shapes[shape].height, -problem.shapes[shape].lifetime


def _by_lifetime(problem: Sweep, shape: int) -> tuple[int, ...]:
    return -problem.shapes[shape].lifetime, -problem.shapes[shape].height


def _by_area(problem: Sweep, shape: int) -> tuple[int, ...]:
    return -problem.shapes[shape].area, -problem.shapes[shape].height


def _by_pressure_and_size(problem: Sweep, shape: int) -> tuple[int, ...]:
    return -_pressure(problem, shape), -problem.shapes[shape].height


def _by_pressure_and_lifetime(problem: Sweep, shape: int) -> tuple[int, ...]:
    return -_pressure(problem, shape), -problem.shapes[shape].lifetime


def _by_birth(problem: Sweep, shape: int) -> tuple[int, ...]:
    return problem.spans[shape].start, -problem.shapes[shape].height


GREEDIES = (
    Greedy("pressure, size", _by_pressure_and_size, tightest=False),
    Greedy("size", _by_size, tightest=True),
    Greedy("pressure, lifetime", _by_pressure_and_lifetime, tightest=False),
    Greedy("size, lowest gap", _by_size, tightest=False),
    Greedy("area", _by_area, tightest=False),
    Greedy("lifetime", _by_lifetime, tightest=False),
    Greedy("birth", _by_birth, tightest=True),
)


def lay_out_greedily(problem: Sweep, good_enough: int) -> Placement:
    """Tries every greedy until one is good enough, and returns the lowest layout.

    Args:
        problem: The shapes and who their neighbours are.
        good_enough: A height at which to look no further.
    """
    best: Placement | None = None
    for greedy in GREEDIES:
        keys = [greedy.order(problem, shape) for shape in range(len(problem.shapes))]
        shapes = sorted(range(len(keys)), key=keys.__getitem__)
        offsets = _place_in_order(problem, shapes, greedy.tightest)
        height = height_of(problem, offsets)
        if best is None or height < best.height:
            best = Placement(tuple(offsets), height, f"greedy by {greedy.name}")
        if height <= good_enough:
            break
    assert best is not None, "there is at least one greedy"
    return best


def height_of(problem: Sweep, offsets: Sequence[int]) -> int:
    """The top of the highest shape."""
    tops = (offset + s.height for offset, s in zip(offsets, problem.shapes, strict=True))
    return max(tops, default=0)


def _place_in_order(problem: Sweep, shapes: Sequence[int], tightest: bool) -> list[int]:
    """Offsets of all shapes, placed one by one in the given order."""
    offsets = [-1] * len(shapes)
    for x in shapes:
        taken = sorted(
            (offsets[n.shape] - n.above, offsets[n.shape] + n.below)
            for n in problem.neighbours[x]
            if offsets[n.shape] >= 0
        )
        offsets[x] = _offset_between(taken, problem.shapes[x].align, tightest)
    return offsets


def _offset_between(taken: list[tuple[int, int]], align: int, tightest: bool) -> int:
    """The offset to use, given open intervals that no offset may lie in, sorted.

    Without a gap that is tight enough, the lowest offset above all of them.
    """
    best, slack = -1, -1
    offset = 0
    for low, high in taken:
        if offset <= low and (best < 0 or low - offset < slack):
            best, slack = offset, low - offset
            if not tightest or not slack:
                return best
        if offset < high:
            offset = high + -high % align
    return offset if best < 0 else best
