"""Cuts time into sections, so that the solvers reason about sections instead of instants.

    shapes   a ██████████           a: sections 0-1, b: section 0,
             b ████                 c: section 1, d: section 2
             c       █████
             d             ████     The instant where a is alive alone says nothing that
    sections  |  0  |  1  | 2 |     section 0 does not say already, so it is no section.

A section is a largest set of shapes that are alive at one instant. Two shapes are neighbours when
some section holds both: exactly then their bytes must not overlap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass

from planish.memory.problem import Problem, Shape, shapes


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another shape that is alive together with this one, and how far apart the two must be."""

    shape: int
    above: int  # if it lies above this shape: its offset is at least this much higher
    below: int  # if it lies below: its offset is at least this much lower


@dataclass(frozen=True, slots=True)
class Sweep:
    """A problem, cut into sections. Shapes and sections are numbered from 0, sections in time."""

    shapes: tuple[Shape, ...]
    spans: tuple[range, ...]  # of a shape: from its first section to its last
    loads: tuple[tuple[tuple[int, int], ...], ...]  # of a shape: (section, bytes taken there)
    neighbours: tuple[tuple[Neighbour, ...], ...]  # of a shape
    members: tuple[tuple[int, ...], ...]  # of a section: the shapes alive there
    totals: tuple[int, ...]  # of a section: bytes taken by its members


def sweep(problem: Problem) -> Sweep:
    """Finds the sections of a problem, who lives in which, and who must keep clear of whom."""
    all_shapes = shapes(problem)
    instants = _instants(all_shapes)
    extents: list[dict[int, tuple[int, int]]] = [{} for _ in instants]  # shape -> bottom, top
    spans, loads = [], []
    for number, shape in enumerate(all_shapes):
        taken: dict[int, int] = defaultdict(int)
        for rectangle in shape.rectangles:
            first = bisect_left(instants, rectangle.lower)
            for section in range(first, bisect_left(instants, rectangle.upper)):
                low, high = extents[section].get(number, (rectangle.low, rectangle.high))
                extents[section][number] = min(low, rectangle.low), max(high, rectangle.high)
                taken[section] += rectangle.high - rectangle.low
        spans.append(range(min(taken), max(taken) + 1))
        loads.append(tuple(sorted(taken.items())))
    totals = [0] * len(instants)
    for section, taken_there in (load for row in loads for load in row):
        totals[section] += taken_there
    return Sweep(
        shapes=all_shapes,
        spans=tuple(spans),
        loads=tuple(loads),
        neighbours=_neighbours(len(all_shapes), extents),
        members=tuple(tuple(section) for section in extents),
        totals=tuple(totals),
    )


def _instants(all_shapes: tuple[Shape, ...]) -> list[int]:
    """An instant of every section: the last birth before a death."""
    rectangles = [rectangle for shape in all_shapes for rectangle in shape.rectangles]
    births = sorted({rectangle.lower for rectangle in rectangles})
    deaths = {rectangle.upper for rectangle in rectangles}
    return sorted({births[bisect_left(births, death) - 1] for death in deaths})


def _neighbours(
    count: int, extents: list[dict[int, tuple[int, int]]]
) -> tuple[tuple[Neighbour, ...], ...]:
    """For each shape its neighbours, by number."""
    apart: list[dict[int, int]] = [{} for _ in range(count)]  # lower -> upper -> how far
    before: dict[int, tuple[int, int]] = {}
    for section in extents:
        changed = [one for one, extent in section.items() if before.get(one) != extent]
        for one in changed:  # pairs of two that are as they were are known already
            low, high = section[one]
            for other, (other_low, other_high) in section.items():
                if other != one:
                    up, down = high - other_low, other_high - low
                    apart[one][other] = max(up, apart[one].get(other, up))
                    apart[other][one] = max(down, apart[other].get(one, down))
        before = section
    return tuple(
        tuple(Neighbour(other, row[other], apart[other][one]) for other in sorted(row))
        for one, row in enumerate(apart)
    )
