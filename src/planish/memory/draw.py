"""Draws a layout as text: time from left to right, addresses from bottom to top."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_letters, digits

from planish.memory.problem import Problem

MARKS = ascii_letters + digits
FREE = "."


def draw(problem: Problem, offsets: Mapping[str, int], *, columns: int = 80, rows: int = 24) -> str:
    """A picture of the arena with a legend, for dumps.

    Marks repeat after the 62nd buffer. A buffer that is smaller than a cell may not show in the
    picture; the legend has them all.

    Args:
        problem: The buffers.
        offsets: Where each lies, by id.
        columns: The picture's width at most; a column is a step where there is room.
        rows: The picture's height at most; a row is a byte where there is room.
    """
    buffers = problem.buffers
    if not buffers:
        return "(no buffers)\n"
    start = min(buffer.lower for buffer in buffers)
    steps = max(buffer.upper for buffer in buffers) - start
    height = max(offsets[buffer.id] + buffer.size for buffer in buffers)
    columns, rows = min(columns, steps), min(rows, height)
    cells = [[FREE] * columns for _ in range(rows)]
    marks = {buffer.id: MARKS[n % len(MARKS)] for n, buffer in enumerate(buffers)}
    for buffer in buffers:
        across = _cells(buffer.lower - start, buffer.upper - start, steps, columns)
        up = _cells(offsets[buffer.id], offsets[buffer.id] + buffer.size, height, rows)
        for row in up:
            for column in across:
                cells[row][column] = marks[buffer.id]
    picture = [
        f"{row * height // rows:>12} |{''.join(cells[row])}|" for row in reversed(range(rows))
    ]
    legend = [
        f"{marks[b.id]} {b.id}: {b.size} at {offsets[b.id]}, steps {b.lower} to {b.upper}"
        for b in buffers
    ]
    scale = f"{height} high; steps {start} to {start + steps}, {steps / columns:g} a column"
    return "\n".join([scale, *picture, "", *legend, ""])


def _cells(lower: int, upper: int, extent: int, count: int) -> range:
    """The cells, of `count` that share an extent evenly, whose middle lies in [lower, upper)."""
    return range(_first_middle(lower, extent, count), _first_middle(upper, extent, count))


def _first_middle(position: int, extent: int, count: int) -> int:
    """The first cell whose middle, (cell + 1/2) · extent / count, is not below a position."""
    return -((extent - 2 * position * count) // (2 * extent))
