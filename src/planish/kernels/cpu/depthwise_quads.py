"""What a depthwise convolution of bytes looks like to its kernel: axes, lines, quads, weights.

The taps along one axis, the vertical one, are taken four at a time. A tile of `rows` × `width`
outputs reads some lines of the input; four lines are a quad. For 3 taps, stride 1 and 2 rows one
quad serves both rows, with the weights at different places:

    lines    0   1   2   3
    row 0   w0  w1  w2   -
    row 1    -  w0  w1  w2
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planish.base.expr import Const, Expr, Load, Var, loads_of, transform, walk
from planish.base.shapes import Dim
from planish.kernels.conv_shape import ConvShape, conv_shape
from planish.kernels.cpu.quads import CHUNKS, Dot, channel_order, dot_for, weight_vectors
from planish.kernels.cpu.requantize import Rounding, take_rounding
from planish.kernels.kernel import Config
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget

_UNPACK, _LOAD, _ENDING = 0.4, 0.15, 2.0  # cycles of an unpack, a load, a vector's epilogue
Places = tuple[int, ...]  # the tap at each line of a quad, -1 for none


@dataclass(frozen=True)
class Axis:
    """A spatial axis, or one of a single place that stands for none.

    Attributes:
        number: Which spatial axis; -1 for none.
        size: Extent of the input.
        out: Extent of the output.
        kernel: Taps.
        stride: Step of the window.
        dilation: Distance between taps.
        before: Padding before the first element.
        padded: Whether taps may lie outside the input.
    """

    number: int
    size: Dim
    out: Dim
    kernel: int
    stride: int
    dilation: int
    before: int
    padded: bool

    @property
    def reach(self) -> int:
        """Distance from the first tap to the last."""
        return (self.kernel - 1) * self.dilation

    @property
    def line(self) -> ConvShape:
        """The axis as the shape of a convolution of one axis and channel."""
        return ConvShape(
            1, 1, 1, 1, (self.size,), (self.out,), (self.kernel,), (self.stride,),
            (self.dilation,), (self.before,),
        )  # fmt: skip


_NONE = Axis(-1, 1, 1, 1, 1, 1, 0, False)


def axes_of(s: ConvShape) -> tuple[tuple[Axis, ...], Axis, Axis]:
    """The outer axes, the vertical one and the horizontal one, in that order of loops."""
    axes = [
        Axis(n, s.size[n], s.out[n], s.kernel[n], s.stride[n], s.dilation[n], s.before[n],
             s.padded(n))
        for n in range(s.rank)
    ]  # fmt: skip
    if s.rank == 1:
        return (), axes[0], _NONE
    *outer, vertical, horizontal = axes
    if vertical.kernel == 1 and isinstance(vertical.size, int) and isinstance(vertical.out, int):
        vertical, horizontal = horizontal, vertical
    return tuple(outer), vertical, horizontal


@dataclass(frozen=True)
class Tile:
    """A config as numbers.

    Attributes:
        bytes: Channels of a block: a vector's bytes.
        rows: Output rows of a tile.
        width: Output columns of a tile.
        chunks: Chunks whose sums are in registers together.
    """

    bytes: int
    rows: int
    width: int
    chunks: int

    @property
    def config(self) -> Config:
        """As a config."""
        return (
            ("bytes", self.bytes),
            ("rows", self.rows),
            ("width", self.width),
            ("chunks", self.chunks),
        )


def tile_of(c: Config) -> Tile:
    """A config's tile."""
    return Tile(**{name: int(value) for name, value in c})


@dataclass(frozen=True)
class Quads:
    """The lines of a tile of some rows, four at a time, and which taps of each row they meet.

    Attributes:
        lines: Distances of the input lines from the window's first, quad by quad.
        places: [row][quad] -> taps; None where a row needs none of a quad.
    """

    lines: tuple[tuple[int, ...], ...]
    places: tuple[tuple[Places | None, ...], ...]


def quads_of(axis: Axis, rows: int) -> Quads:
    """Cut the lines under `rows` output rows into quads."""
    taps = {
        (row, row * axis.stride + tap * axis.dilation): tap
        for row in range(rows)
        for tap in range(axis.kernel)
    }
    lines = sorted({line for _, line in taps})
    quads = tuple(tuple(lines[n : n + 4]) for n in range(0, len(lines), 4))
    places = []
    for row in range(rows):
        found = [
            tuple(taps.get((row, line), -1) for line in (*quad, -1, -1, -1)[:4]) for quad in quads
        ]
        places.append(tuple(one if max(one) >= 0 else None for one in found))
    return Quads(quads, tuple(places))


class Depthwise:
    """A workload and a tile, with all that follows from them."""

    def __init__(self, w: Workload, tile: Tile, t: CpuTarget) -> None:
        self.w, self.t, self.tile = w, t, tile
        self.s = conv_shape(w)
        self.outer, self.vertical, self.horizontal = axes_of(self.s)
        self.dot: Dot = dot_for(t, w.inputs[0].dtype)
        self.lanes = tile.bytes // CHUNKS
        self.rounding = ending(w, t)
        self.ordered = ordered_constants(w) if self.rounding else frozenset()

    @cached_property
    def overlaps(self) -> bool:
        """Whether the last block reaches back over channels of the one before.

        It does not where an operand of the epilogue may lie in the output's memory.
        """
        inputs = self.w.inputs
        loads = [e for expr in self.w.epilogue for e in walk(expr) if isinstance(e, Load)]
        whole = self.s.channels >= self.tile.bytes
        return whole and all(inputs[load.tensor].const for load in loads)

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.s.channels // self.tile.bytes)

    @property
    def tail(self) -> int:
        """Channels of a last block that is not whole; 0 if all are."""
        return 0 if self.overlaps else self.s.channels % self.tile.bytes

    def first_channel(self, block: int) -> int:
        """The channel at which a block starts."""
        start = block * self.tile.bytes
        return min(start, self.s.channels - self.tile.bytes) if self.overlaps else start

    @cached_property
    def variants(self) -> dict[int, Quads]:
        """Rows of a tile -> its quads: whole tiles, and single rows where they do not fit."""
        rows, out = self.tile.rows, self.vertical.out
        ragged = not isinstance(out, int) or out % rows
        return {n: quads_of(self.vertical, n) for n in dict.fromkeys((rows, *[1] * bool(ragged)))}

    @cached_property
    def patterns(self) -> tuple[Places, ...]:
        """Every arrangement of taps in a quad that occurs."""
        rows = [row for quads in self.variants.values() for row in quads.places]
        return tuple(dict.fromkeys(p for row in rows for p in row if p is not None))

    # ---- packed weights: [block][outer tap][column][pattern][part][chunk][bytes] -----------------

    @property
    def pattern_bytes(self) -> int:
        """Bytes of the weights of a pattern."""
        return self.dot.parts * CHUNKS * self.tile.bytes

    @property
    def plane_bytes(self) -> int:
        """Bytes of the weights of a block and a tap of the outer axes."""
        return self.horizontal.kernel * len(self.patterns) * self.pattern_bytes

    @property
    def block_bytes(self) -> int:
        """Bytes of the weights of a block."""
        return self.plane_bytes * int(np.prod([a.kernel for a in self.outer], dtype=np.int64))

    def channels_of(self) -> np.ndarray:
        """[block, chunk, lane] -> channel; -1 beyond the last."""
        first = np.array([self.first_channel(b) for b in range(self.blocks)])
        channel = first[:, None, None] + channel_order(self.tile.bytes)
        return np.where(channel < self.s.channels, channel, -1)

    def pack_weights(self, array: np.ndarray) -> np.ndarray:
        """Weights [C, 1, *kernel] as the code reads them."""
        order = [
            1 + a.number for a in (*self.outer, self.vertical, self.horizontal) if a.number >= 0
        ]
        flat = array[:, 0].transpose(0, *order)
        flat = flat.reshape(self.s.channels, -1, self.vertical.kernel, self.horizontal.kernel)
        none = np.zeros((1, *flat.shape[1:]), flat.dtype)
        lanes = np.concatenate([flat, none])[self.channels_of()]  # [block, chunk, lane, o, v, h]
        lanes = lanes.transpose(0, 3, 5, 1, 2, 4)  # [block, o, h, chunk, lane, v]
        zero = np.zeros((*lanes.shape[:-1], 1), lanes.dtype)
        taps = np.concatenate([lanes, zero], axis=-1)
        quads = np.stack([taps[..., list(p)] for p in self.patterns], axis=3)
        return weight_vectors(self.dot, quads)

    def pack_constant(self, array: np.ndarray) -> np.ndarray:
        """A constant of one value a channel, in the order of the chunks."""
        return np.ascontiguousarray(array.reshape(-1)[self.channels_of()])

    # ---- how long it takes -----------------------------------------------------------------------

    @property
    def sums(self) -> int:
        """Dot products of vectors in a tile and a tap of the outer axes."""
        uses = sum(p is not None for row in self.variants[self.tile.rows].places for p in row)
        return uses * self.horizontal.kernel * self.tile.width * CHUNKS

    def tile_cycles(self) -> float:
        """Cycles of a tile on whole vectors, if a dot product takes one an instruction."""
        tile, quads = self.tile, self.variants[self.tile.rows]
        columns = (tile.width - 1) * self.horizontal.stride + self.horizontal.reach + 1
        spread = {"bytes": 0, "pairs": 2, "ones": 8}[self.dot.name] * CHUNKS
        cycles = float(self.sums * self.dot.steps)
        for quad in quads.lines:
            loads = len(quad) * CHUNKS / tile.chunks
            unpacks = 2 * CHUNKS if tile.chunks > 1 else 3 * CHUNKS
            cycles += columns * (_UNPACK * unpacks + _LOAD * loads + spread / 2)
        outer = int(np.prod([a.kernel for a in self.outer], dtype=np.int64))
        return cycles * outer + tile.rows * tile.width * CHUNKS * _ENDING


def ending(w: Workload, t: CpuTarget) -> Rounding | None:
    """The end of the epilogue where packs can do it and operands can take the chunks' order."""
    if not (w.epilogue and t.triple.startswith("x86_64") and w.outputs[0].strides[1] == 1):
        return None
    made = take_rounding(w.epilogue[0])
    if made is None or made.dtype is not w.outputs[0].dtype:
        return None
    return made if _follows_order(w, w.epilogue[0]) else None


def ordered_constants(w: Workload) -> frozenset[int]:
    """Operands of an epilogue that are read channel by channel."""
    loads = [e for e in walk(w.epilogue[0]) if isinstance(e, Load)]
    return frozenset(load.tensor for load in loads if _by_channel(w, load))


def _by_channel(w: Workload, load: Load) -> bool:
    """Whether an operand is a dense constant of one value a channel, read at the own channel."""
    operand = w.inputs[load.tensor]
    if load.tensor < 2 or not operand.const:
        return False
    axes = [axis for axis, at in enumerate(load.index) if at == Var("o1")]
    if len(axes) != 1 or operand.strides[axes[0]] != 1:
        return False
    rest = [at for axis, at in enumerate(load.index) if axis != axes[0]]
    zeros = all(isinstance(at, Const) and at.value == 0 for at in rest)
    extents = [d for axis, d in enumerate(operand.shape) if axis != axes[0]]
    right = operand.shape[axes[0]] == w.outputs[0].shape[1]
    return zeros and right and all(extent == 1 for extent in extents)


def _follows_order(w: Workload, expr: Expr) -> bool:
    """Whether the channel occurs only as the index of constants of one value a channel."""
    channel, ordered = Var("o1"), ordered_constants(w)
    rest = transform(expr, lambda e: Const(0, e.dtype) if isinstance(e, Load) else e)
    if channel in walk(rest):
        return False
    for load in loads_of(expr):
        reads = any(channel in walk(at) for at in load.index)
        if reads != (load.tensor in ordered) or (reads and not _by_channel(w, load)):
            return False
    return True
