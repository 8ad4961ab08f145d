"""The end of a register tile whose results are bytes, on x86: packs narrow, clamp and join vectors.

    4 vectors of i32  →  2 of i16  →  1 of bytes  →  one permutation, one store

A pack takes 16 bytes of either operand in turn; the permutation restores the channels' order.
"""

from __future__ import annotations

from collections.abc import Sequence

from planish.base.expr import Expr
from planish.base.shapes import Dim
from planish.kernels.cpu.expression import ExprEmitter
from planish.kernels.cpu.pack import Columns
from planish.kernels.cpu.quads import store_bytes
from planish.kernels.cpu.requantize import (
    Rounding,
    at_most,
    bytes_of,
    halve,
    round_to_i32,
    take_rounding,
)
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Val, vector

_JOINED = 4  # vectors of i32 in a vector of bytes


def byte_rounding(value: Expr, channel: Dim, target: CpuTarget) -> Rounding | None:
    """The rounding end of an epilogue that packs can do; None where they cannot.

    Args:
        value: The epilogue.
        channel: Elements between neighbouring channels of the output.
        target: What for.
    """
    if channel != 1 or not target.triple.startswith("x86_64"):
        return None
    return take_rounding(value)


def byte_groups(columns: Columns) -> list[tuple[int, ...]]:
    """The vectors of a row that are packed together: two to four of the full width."""
    whole = [v for v, lanes in enumerate(columns.lanes) if lanes == columns.lanes[0]]
    groups = [tuple(whole[n : n + _JOINED]) for n in range(0, len(whole), _JOINED)]
    return [group for group in groups if len(group) > 1]


def rounded(f: Function, emitter: ExprEmitter, rounding: Rounding) -> Val:
    """A vector of results as i32, neither clamped below nor moved by the zero point."""
    value = emitter.emit(rounding.value, exact=True)
    return round_to_i32(f, at_most(f, value, rounding.most))


def store_group(
    f: Function,
    target: CpuTarget,
    rounding: Rounding,
    parts: Sequence[Val],
    place: Val,
    count: int,
) -> None:
    """Narrow and store neighbouring vectors of `rounded`.

    Args:
        f: Function being written.
        target: What for.
        rounding: How they become bytes.
        parts: Two to four vectors of one width.
        place: Address of the first byte.
        count: Bytes that exist.
    """
    lanes, number = parts[0].lanes, len(parts)
    ends = parts[2:] or parts[:2]
    halves = [halve(f, rounding, parts[0], parts[1]), halve(f, rounding, ends[0], ends[-1])]
    mixed = bytes_of(f, rounding, halves)
    rows = lanes // 4
    words = f.cast("bitcast", mixed, vector("i32", lanes))
    order = [row * 4 + part for part in range(number) for row in range(rows)]
    if count < number * lanes:
        order += [-1] * (lanes - len(order))
    if order != list(range(lanes)):
        words = f.shuffle(words, words, order)
    whole = f.cast("bitcast", words, vector("i8", 4 * words.lanes))
    store_bytes(f, whole, place, count, masked=target.isa == "avx512")
