"""The plain twin of the solver: says what is wrong with a layout, and shares no code with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planish.base.errors import VerifyError
from planish.memory.problem import Buffer, Problem

SHOWN = 20  # faults that a message lists


def validate(problem: Problem, offsets: Mapping[str, int]) -> None:
    """Checks that a layout solves a problem.

    Args:
        problem: What was asked for.
        offsets: Where each buffer lies, by id.

    Raises:
        VerifyError: It does not. The faults are listed, with the buffers' names.
    """
    faults = [*_misnamed(problem, offsets)]
    if not faults:
        faults = [
            *_misplaced(problem, offsets),
            *_overlapping(problem, offsets),
            *_torn_groups(problem, offsets),
        ]
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise VerifyError(
            "\n  - ".join(["this memory layout is wrong", *faults[:SHOWN], *more]),
            hint="the layout came from somewhere else, or the solver has a defect: report it",
        )


def _misnamed(problem: Problem, offsets: Mapping[str, int]) -> Iterator[str]:
    known = {buffer.id for buffer in problem.buffers}
    for name in sorted(known - offsets.keys()):
        yield f"{name!r} has no offset"
    for name in sorted(offsets.keys() - known):
        yield f"{name!r} has an offset, but the problem has no such buffer"


def _misplaced(problem: Problem, offsets: Mapping[str, int]) -> Iterator[str]:
    for buffer in problem.buffers:
        offset = offsets[buffer.id]
        if offset < 0:
            yield f"{buffer.id!r} lies at {offset}, below the arena"
        if offset % buffer.align:
            yield f"{buffer.id!r} lies at {offset}, no multiple of its alignment {buffer.align}"
        if problem.capacity is not None and offset + buffer.size > problem.capacity:
            yield (
                f"{buffer.id!r} ends at {offset + buffer.size}, above the capacity "
                f"{problem.capacity}"
            )


def _overlapping(problem: Problem, offsets: Mapping[str, int]) -> Iterator[str]:
    group_of = {name: group.id for group in problem.groups for name, _ in group.members}
    alive: list[Buffer] = []
    for born in sorted(problem.buffers, key=lambda buffer: buffer.lower):
        alive = [buffer for buffer in alive if buffer.upper > born.lower]
        for other in alive:
            if born.id in group_of and group_of[born.id] == group_of.get(other.id):
                continue
            low = max(offsets[born.id], offsets[other.id])
            high = min(offsets[born.id] + born.size, offsets[other.id] + other.size)
            if low < high:
                yield (
                    f"{other.id!r} and {born.id!r} share bytes {low} to {high} "
                    f"from step {born.lower} to {min(born.upper, other.upper)}"
                )
        alive.append(born)


def _torn_groups(problem: Problem, offsets: Mapping[str, int]) -> Iterator[str]:
    for group in problem.groups:
        bases = {offsets[name] - distance for name, distance in group.members}
        if len(bases) > 1:
            yield f"group {group.id!r} is torn apart: its members put its base at {sorted(bases)}"
