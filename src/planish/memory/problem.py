"""What is to be laid out in one arena: buffers with lifetimes, and the bounds they imply.

A lifetime is the half-open interval [lower, upper): a buffer that dies at 3 and one that is born at
3 may share bytes. The file format is that of minimalloc: `id,lower,upper,size`, a buffer a line.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from planish.base.errors import BuildError

COLUMNS = ("id", "lower", "upper", "size")
OPTIONAL_COLUMNS = ("align", "offset")


@dataclass(frozen=True, slots=True)
class Buffer:
    """A block of memory that is needed for a while."""

    id: str
    lower: int  # first step at which it is alive
    upper: int  # first step at which it is not alive any more
    size: int  # bytes, or any other unit used throughout the problem
    align: int = 1  # its offset must be a multiple of this


@dataclass(frozen=True, slots=True)
class Group:
    """Buffers that move as one: slices of a concatenation, say.

    Members may share bytes with each other (a slice and the whole that it lies in).
    """

    id: str
    members: tuple[tuple[str, int], ...]  # (buffer id, its distance from the group's base)


@dataclass(frozen=True, slots=True)
class Problem:
    """Buffers to lay out, and how much room there is.

    Raises:
        BuildError: A buffer or a group makes no sense. All of them are listed.
    """

    buffers: tuple[Buffer, ...]
    capacity: int | None = None  # highest height allowed; None: as low as possible
    groups: tuple[Group, ...] = ()

    def __post_init__(self) -> None:
        faults = [*_faulty_buffers(self), *_faulty_groups(self)]
        if self.capacity is not None and self.capacity < 0:
            faults.append(f"capacity {self.capacity}: expected 0 or more")
        if faults:
            raise BuildError(
                "\n  - ".join(["this memory problem is malformed", *faults]),
                hint="lifetimes are half-open, [lower, upper), and every id is used once",
            )


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Bytes [low, high) above a shape's base, taken during [lower, upper)."""

    lower: int
    upper: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What moves as one: a lone buffer, or a group."""

    members: tuple[tuple[str, int], ...]  # (buffer id, its distance from the base)
    align: int  # of the base
    rectangles: tuple[Rectangle, ...]  # disjoint; together they are all that the shape covers

    @property
    def height(self) -> int:
        """Bytes from the base to the top."""
        return max(rectangle.high for rectangle in self.rectangles)

    @property
    def lifetime(self) -> int:
        """Steps from the birth of the first member to the death of the last."""
        lower = min(rectangle.lower for rectangle in self.rectangles)
        return max(rectangle.upper for rectangle in self.rectangles) - lower

    @property
    def area(self) -> int:
        """Bytes times steps."""
        return sum((r.upper - r.lower) * (r.high - r.low) for r in self.rectangles)


def shapes(problem: Problem) -> tuple[Shape, ...]:
    """The shapes of a problem: its lone buffers in their order, then its groups."""
    grouped = {name for group in problem.groups for name, _ in group.members}
    by_id = {buffer.id: buffer for buffer in problem.buffers}
    lone = (
        Shape(((b.id, 0),), b.align, (Rectangle(b.lower, b.upper, 0, b.size),))
        for b in problem.buffers
        if b.id not in grouped
    )
    joined = (
        Shape(
            group.members,
            math.lcm(*(by_id[name].align for name, _ in group.members)),
            tuple(_covered([(by_id[name], distance) for name, distance in group.members])),
        )
        for group in problem.groups
    )
    return (*lone, *joined)


def lower_bound(problem: Problem) -> int:
    """Bytes of the largest live set: no layout is lower."""
    changes: dict[int, int] = {}
    for shape in shapes(problem):
        for r in shape.rectangles:
            changes[r.lower] = changes.get(r.lower, 0) + r.high - r.low
            changes[r.upper] = changes.get(r.upper, 0) - r.high + r.low
    live = largest = 0
    for time in sorted(changes):
        live += changes[time]
        largest = max(largest, live)
    return largest


def naive_sum(problem: Problem) -> int:
    """Bytes needed when nothing is ever reused: every buffer by itself."""
    return sum(buffer.size for buffer in problem.buffers)


def read_csv(path: Path, *, capacity: int | None = None) -> Problem:
    """Reads a problem in minimalloc's format; a column `align` is optional, `offset` is ignored.

    Raises:
        BuildError: The file is not of that format.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        found = reader.fieldnames or []
        missing = [name for name in COLUMNS if name not in found]
        if missing:
            raise BuildError(
                f"{path}: expected the columns {','.join(COLUMNS)}; found {','.join(found)}",
                hint=f"add {', '.join(missing)} to the first line",
            )
        return Problem(tuple(_buffer(path, reader.line_num, row) for row in reader), capacity)


def write_csv(problem: Problem, path: Path, offsets: Mapping[str, int] | None = None) -> None:
    """Writes a problem in minimalloc's format, with a column of offsets where given."""
    aligned = any(buffer.align != 1 for buffer in problem.buffers)
    columns = [*COLUMNS, *(["align"] if aligned else []), *(["offset"] if offsets else [])]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for b in problem.buffers:
            row = {"id": b.id, "lower": b.lower, "upper": b.upper, "size": b.size, "align": b.align}
            writer.writerow({**row, "offset": offsets[b.id]} if offsets else row)


def _buffer(path: Path, line: int, row: Mapping[str, str]) -> Buffer:
    try:
        align = int(row.get("align") or 1)
        return Buffer(row["id"], int(row["lower"]), int(row["upper"]), int(row["size"]), align)
    except (TypeError, ValueError):
        raise BuildError(
            f"{path}, line {line}: expected id,lower,upper,size with whole numbers; "
            f"found {','.join(str(value) for value in row.values())}"
        ) from None


def _covered(members: list[tuple[Buffer, int]]) -> Iterator[Rectangle]:
    """Cuts the union of a group's members into disjoint rectangles, as long-lived as possible."""
    times = sorted({time for buffer, _ in members for time in (buffer.lower, buffer.upper)})
    since: dict[tuple[int, int], int] = {}  # bytes taken now -> since when
    for lower, upper in pairwise(times):
        taken = _merged(
            [(d, d + b.size) for b, d in members if b.lower <= lower and upper <= b.upper]
        )
        for low, high in [extent for extent in since if extent not in taken]:
            yield Rectangle(since.pop((low, high)), lower, low, high)
        for extent in taken:
            since.setdefault(extent, lower)
    for (low, high), lower in since.items():
        yield Rectangle(lower, times[-1], low, high)


def _merged(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of half-open intervals, as disjoint ones in order."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(extents):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def _faulty_buffers(problem: Problem) -> Iterator[str]:
    seen: set[str] = set()
    for b in problem.buffers:
        if b.id in seen:
            yield f"buffer {b.id!r}: the id is used twice"
        seen.add(b.id)
        if b.lower >= b.upper:
            yield f"buffer {b.id!r}: lifetime [{b.lower}, {b.upper}) is empty"
        if b.size < 0:
            yield f"buffer {b.id!r}: size {b.size}, expected 0 or more"
        if b.align < 1:
            yield f"buffer {b.id!r}: align {b.align}, expected 1 or more"


def _faulty_groups(problem: Problem) -> Iterator[str]:
    by_id = {buffer.id: buffer for buffer in problem.buffers}
    owner: dict[str, str] = {}
    for group in problem.groups:
        if not group.members:
            yield f"group {group.id!r}: it has no members"
        for name, distance in group.members:
            if name not in by_id:
                yield f"group {group.id!r}: there is no buffer {name!r}"
                continue
            if name in owner:
                yield f"group {group.id!r}: {name!r} is in group {owner[name]!r} already"
            owner[name] = group.id
            if distance < 0 or distance % max(by_id[name].align, 1):
                yield (
                    f"group {group.id!r}: {name!r} lies at {distance}, expected a multiple, "
                    f"not negative, of its alignment {by_id[name].align}"
                )
