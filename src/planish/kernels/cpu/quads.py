"""Sums of four products a lane over bytes of four rows: interleaving, and the dot instructions.

Four rows of V bytes (V channels) become four vectors, in each lane of which the four bytes of one
channel lie side by side. Unpack instructions work within 16 bytes, so the lanes of the four vectors
("chunks") are channels in this order, for V = 32:

    chunk 0:  0  1  2  3  16 17 18 19        chunk 2:  8  9 10 11  24 25 26 27
    chunk 1:  4  5  6  7  20 21 22 23        chunk 3: 12 13 14 15  28 29 30 31
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.kernels.cpu.dots import add_quads, sum_pairs
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Val, integer, vector, zero

CHUNKS = 4


@dataclass(frozen=True)
class Dot:
    """How sums of four products are made.

    Attributes:
        name: "bytes", "pairs" or "ones", the products that one instruction adds up.
        parts: Vectors of weights for each vector of quads.
        weight: Type of a weight in memory.
        steps: Instructions of one sum.
    """

    name: str
    parts: int
    weight: DType
    steps: int


_DOTS = {
    "bytes": Dot("bytes", 1, DType.I8, 1),
    "pairs": Dot("pairs", 2, DType.I16, 4),
    "": Dot("ones", 4, DType.I32, 8),
}


def dot_for(t: CpuTarget, x: DType) -> Dot:
    """The best way on a target; the instruction for bytes takes unsigned data alone."""
    return _DOTS["pairs" if t.dot == "bytes" and x is not DType.U8 else t.dot]


def channel_order(bytes_: int) -> np.ndarray:
    """[chunk, lane] -> channel."""
    lane = np.arange(bytes_ // CHUNKS)
    return 16 * (lane // 4) + 4 * np.arange(CHUNKS)[:, None] + lane % 4


def weight_vectors(dot: Dot, quads: np.ndarray) -> np.ndarray:
    """Weights [..., chunk, lane, 4] as the vectors that `multiply` takes: [..., part, bytes]."""
    kind = dot.weight.numpy
    split = [quads[..., part :: dot.parts].astype(kind) for part in range(dot.parts)]
    stacked = np.stack(split, axis=-4)  # [..., part, chunk, lane, 4 / parts]
    return np.ascontiguousarray(stacked)


def interleave(f: Function, rows: Sequence[Val], chunks: Sequence[int]) -> list[Val]:
    """Some chunks of at most four rows of bytes; missing rows repeat another."""
    filled = [*rows, *rows] if len(rows) == 2 else [*rows, rows[-1], rows[-1], rows[-1]]
    a, b, c, d = filled[:4]
    made: dict[int, Val] = {}
    for half in dict.fromkeys(chunk // 2 for chunk in chunks):
        top = _unpack(f, a, b, half)
        low = top if len(rows) <= 2 else _unpack(f, c, d, half)
        high = f.cast("bitcast", top, vector("i16", top.lanes // 2))
        rest = f.cast("bitcast", low, vector("i16", low.lanes // 2))
        for chunk in chunks:
            if chunk // 2 == half:
                made[chunk] = f.cast(
                    "bitcast", _unpack(f, high, rest, chunk % 2), vector("i32", a.lanes // 4)
                )
    return [made[chunk] for chunk in chunks]


def _unpack(f: Function, a: Val, b: Val, half: int) -> Val:
    """The elements of one half of each 16 bytes of two vectors, in turn."""
    lane = 16 // (int(a.element[1:]) // 8)
    order = []
    for start in range(half * lane // 2, a.lanes, lane):
        for element in range(start, start + lane // 2):
            order += [element, a.lanes + element]
    return f.shuffle(a, b, order)


def prepare(f: Function, dot: Dot, quads: Val, x: DType) -> list[Val]:
    """A vector of quads (i32) as `multiply` takes it."""
    if dot.name == "bytes":
        return [quads]
    if dot.name == "pairs":
        pairs = f.cast("bitcast", quads, vector("i16", 2 * quads.lanes))
        eight = integer(8, pairs.ty)
        if x is DType.U8:
            return [f.binary("and", pairs, integer(255, pairs.ty)), f.binary("lshr", pairs, eight)]
        return [
            f.binary("ashr", f.binary("shl", pairs, eight), eight),
            f.binary("ashr", pairs, eight),
        ]
    made = []
    for byte in range(4):
        top = f.binary("shl", quads, integer(24 - 8 * byte, quads.ty))
        made.append(f.binary("lshr" if x is DType.U8 else "ashr", top, integer(24, quads.ty)))
    return made


def multiply(f: Function, dot: Dot, total: Val, data: Sequence[Val], weights: Sequence[Val]) -> Val:
    """Total plus the products of a vector of quads; i32 sums wrap.

    Args:
        f: Where to.
        dot: How.
        total: i32 sums.
        data: From `prepare`.
        weights: Vectors of weights, one a part.
    """
    if dot.name == "bytes":
        return add_quads(f, total, *data, *weights)
    for value, weight in zip(data, weights, strict=True):
        pairs = dot.name == "pairs"
        product = sum_pairs(f, value, weight) if pairs else f.binary("mul", value, weight)
        total = f.add(total, product)
    return total


def natural_order(f: Function, parts: Sequence[Val]) -> list[Val]:
    """Four chunks as four vectors of neighbouring channels."""
    lanes = parts[0].lanes
    if lanes == 4:
        return list(parts)
    pairs = [_join(f, parts[n], parts[n + 1]) for n in (0, 2)]
    whole = _join(f, *pairs)
    place = np.argsort(channel_order(4 * lanes).ravel())
    return [
        f.shuffle(whole, whole, [int(p) for p in place[n * lanes : (n + 1) * lanes]])
        for n in range(CHUNKS)
    ]


def _join(f: Function, a: Val, b: Val) -> Val:
    return f.shuffle(a, b, range(a.lanes + b.lanes))


def load_bytes(f: Function, pointer: Val, width: int, count: int, *, masked: bool) -> Val:
    """`count` bytes in the first lanes of a vector of `width`; the other lanes are 0."""
    ty = vector("i8", width)
    if count == width:
        return f.load(ty, pointer)
    if masked:
        return f.masked_load(ty, pointer, f.first_lanes(width, count))
    whole, done = zero(ty), 0
    for piece in (16, 8, 4, 2, 1):
        while count - done >= piece:
            view = f.cast("bitcast", whole, vector(f"i{8 * piece}", width // piece))
            part = f.load(f"i{8 * piece}", f.offset(pointer, done), align=1)
            whole = f.cast("bitcast", f.insert(view, part, done // piece), ty)
            done += piece
    return whole


def store_bytes(f: Function, value: Val, pointer: Val, count: int, *, masked: bool) -> None:
    """The first `count` lanes of a vector of bytes."""
    if count == value.lanes:
        f.store(value, pointer)
        return
    if masked:
        f.masked_store(value, pointer, f.first_lanes(value.lanes, count))
        return
    done = 0
    for piece in (16, 8, 4, 2, 1):
        while count - done >= piece:
            view = f.cast("bitcast", value, vector(f"i{8 * piece}", value.lanes // piece))
            f.store(f.extract(view, done // piece), f.offset(pointer, done), align=1)
            done += piece
