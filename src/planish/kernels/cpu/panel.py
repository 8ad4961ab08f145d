"""Copies a block of a run-time matrix into panels: rows of whole vectors, dense and aligned.

A panel is [steps rounded up to lanes][width]. Columns past the last of the matrix hold copies of
other elements, rows past its last zeros or copies: readers must not let them reach a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planish.targets.ir import Function, Val, element_bytes, i64, vector


@dataclass(frozen=True)
class Matrix:
    """A matrix in memory.

    Attributes:
        pointer: Element (0, 0).
        rows: Number of rows (steps of the reduction).
        columns: Number of columns.
        row_step: Bytes between rows.
        column_step: Bytes between columns.
        element: LLVM type of an element of the panel.
        read: Reads an element at an address in type `element`; None where it lies there as such.
    """

    pointer: Val
    rows: Val
    columns: Val
    row_step: Val
    column_step: Val
    element: str
    read: Callable[[Val], Val] | None = None

    @property
    def size(self) -> int:
        """Bytes of an element of the panel."""
        return element_bytes(self.element)


def pack_panel(f: Function, m: Matrix, to: Val, first: Val, vectors: int, lanes: int) -> None:
    """Copy the columns from `first` on, at most `vectors` vectors of them, to a panel at `to`."""
    row = vectors * lanes * m.size
    count = f.min(f.sub(m.columns, first), i64(vectors * lanes))
    with f.loop(0, count, lanes) as at:
        column = f.add(first, at.index)
        left = f.sub(m.columns, column)
        into = f.offset(to, f.mul(at.index, m.size))
        if m.read is not None:
            _gather_rows(f, m, into, column, left, row, lanes)
        elif m.column_step.literal == m.size:
            _copy_rows(f, m, into, column, left, row, lanes)
        elif m.row_step.literal == m.size and lanes > 1:
            _turn_blocks(f, m, into, column, row, lanes)
        else:
            _gather_rows(f, m, into, column, left, row, lanes)


def _copy_rows(
    f: Function, m: Matrix, into: Val, column: Val, left: Val, row: int, lanes: int
) -> None:
    """Neighbouring columns: whole vectors, masked at the edge."""
    ty = vector(m.element, lanes)
    start = f.offset(m.pointer, f.mul(column, m.size))
    full, edge, done = f.label("full"), f.label("edge"), f.label("copied")
    f.branch_if(f.icmp("sge", left, lanes), full, edge)
    f.start(full)
    with f.loop(0, m.rows) as k:
        value = f.load(ty, f.offset(start, f.mul(k.index, m.row_step)))
        f.store(value, f.offset(into, f.mul(k.index, row)))
    f.branch(done)
    f.start(edge)
    mask = f.first_lanes(lanes, left)
    with f.loop(0, m.rows) as k:
        value = f.masked_load(ty, f.offset(start, f.mul(k.index, m.row_step)), mask)
        f.store(value, f.offset(into, f.mul(k.index, row)))
    f.branch(done)
    f.start(done)


def _turn_blocks(f: Function, m: Matrix, into: Val, column: Val, row: int, lanes: int) -> None:
    """Neighbouring rows: square blocks turned in registers. Columns past the last repeat it."""
    last = f.sub(m.columns, 1)
    starts = [
        f.offset(m.pointer, f.mul(f.min(f.add(column, c), last), m.column_step))
        for c in range(lanes)
    ]
    if lanes * m.size > 16:  # masks cost nothing, a second copy of the code does
        with f.loop(0, m.rows, lanes) as k:
            mask = f.first_lanes(lanes, f.sub(m.rows, k.index))
            _turn(f, m, starts, k.index, into, row, mask)
        return
    whole = f.sub(m.rows, f.urem(m.rows, lanes))
    with f.loop(0, whole, lanes) as k:
        _turn(f, m, starts, k.index, into, row, None)
    rest = f.sub(m.rows, whole)
    with f.when(f.icmp("sgt", rest, 0)):
        _turn(f, m, starts, whole, into, row, f.first_lanes(lanes, rest))


def _turn(
    f: Function, m: Matrix, starts: list[Val], k: Val, into: Val, row: int, mask: Val | None
) -> None:
    """One square block: its rows from `k` on."""
    ty = vector(m.element, len(starts))
    places = [f.offset(s, f.mul(k, m.size)) for s in starts]
    columns = [f.load(ty, s) if mask is None else f.masked_load(ty, s, mask) for s in places]
    into = f.offset(into, f.mul(k, row))
    for n, value in enumerate(transpose(f, columns)):
        f.store(value, f.offset(into, n * row))


def transpose(f: Function, rows: list[Val]) -> list[Val]:
    """A square block with its rows and columns exchanged; the side is a power of two.

    Each stage exchanges the off-diagonal quarters of ever smaller blocks.
    """
    side = len(rows)
    half = side // 2
    while half:
        for start in range(side):
            if start & half:
                continue
            a, b = rows[start], rows[start + half]
            low = [lane if not lane & half else side + lane - half for lane in range(side)]
            high = [lane + half if not lane & half else side + lane for lane in range(side)]
            rows[start], rows[start + half] = f.shuffle(a, b, low), f.shuffle(a, b, high)
        half //= 2
    return rows


def _gather_rows(
    f: Function, m: Matrix, into: Val, column: Val, left: Val, row: int, lanes: int
) -> None:
    """Any strides: element by element."""
    count = f.min(left, lanes)
    start = f.offset(m.pointer, f.mul(column, m.column_step))
    with f.loop(0, m.rows) as k:
        source = f.offset(start, f.mul(k.index, m.row_step))
        target = f.offset(into, f.mul(k.index, row))
        with f.loop(0, count) as c:
            place = f.offset(source, f.mul(c.index, m.column_step))
            value = m.read(place) if m.read else f.load(m.element, place)
            f.store(value, f.offset(target, f.mul(c.index, m.size)))
