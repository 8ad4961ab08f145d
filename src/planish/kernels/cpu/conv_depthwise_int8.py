"""Depthwise convolution of bytes over channels-last activations: exact i32 sums of u8·s8 or s8·s8.

A block of channels is a vector of bytes. Four lines of the input at a time are interleaved, so that
the four bytes of a lane are vertical neighbours of one channel, and one dot instruction does four
taps (`quads.py`). An interleaved column serves every output of the tile that it touches. Lines
outside the input are read from zeros; columns outside are left out when the code is made.

The sums lie in the order in which the unpack instructions leave the channels. Constants of one
value a channel are packed in that order, and the packs that end a requantisation undo it; any other
epilogue sees the channels brought back into order first. A last block that is not whole reaches
back over channels that the block before does, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, product
from planish.kernels.conv_shape import conv_shape, refuse_depthwise
from planish.kernels.cpu.depthwise_code import DepthwiseWriter
from planish.kernels.cpu.depthwise_quads import Axis, Depthwise, Tile, axes_of, tile_of
from planish.kernels.cpu.epilogue import accumulator_dtype
from planish.kernels.cpu.pack import lay_out
from planish.kernels.kernel import Config, Kernel, Phase, Source, symbol_for
from planish.kernels.workload import Workload, typical
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Module

_BYTES = (DType.U8, DType.I8)
_MAX_TAPS = 100  # of the last two axes: each is written out
_MAX_LINE = 1 << 18  # bytes of zeros
_MAX_SUMS = 500  # dot instructions in the straight-line code of one tile
_TILES = ((1, 14), (1, 7), (2, 7), (2, 4), (1, 4), (2, 2), (4, 1), (8, 1))
_NARROW = 0.62  # time of an instruction on half a vector or less


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    if w.inputs[0].dtype not in _BYTES or w.inputs[1].dtype is not DType.I8:
        return "not u8 or s8 data with s8 weights"
    if reason := refuse_depthwise(w):
        return reason
    if accumulator_dtype(w, 0) is not DType.I32:
        return "the sums are not i32"
    if any(extent == 0 for o in (*w.inputs, *w.outputs) for extent in o.shape):
        return "an extent is 0"
    _, vertical, horizontal = axes_of(conv_shape(w))
    if vertical.kernel * horizontal.kernel > _MAX_TAPS:
        return f"more than {_MAX_TAPS} taps of the last two axes"
    if not _reaches(w, horizontal, 1):
        return "pixels lie too far apart, or how far is symbolic"
    return None


def _reaches(w: Workload, h: Axis, width: int) -> bool:
    """Whether the columns of a tile lie at distances that are known and not too far."""
    columns = (width - 1) * h.stride + h.reach
    step = 0 if h.number < 0 else w.inputs[0].strides[h.number + 2]
    return columns == 0 or (isinstance(step, int) and 0 <= columns * step <= _MAX_LINE)


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    tiles = sorted(_candidates(w, t), key=lambda tile: cost(w, tile.config, t))
    yield from (tile.config for tile in tiles[:8])


def _candidates(w: Workload, t: CpuTarget) -> Iterator[Tile]:
    s = conv_shape(w)
    _, vertical, horizontal = axes_of(s)
    sizes = [n for n in (16, 32, 64) if n <= t.vector_bytes and n < 2 * s.channels]
    for bytes_ in sizes or [16]:
        seen = set()
        for rows, wide in _TILES:
            width = _even(horizontal.out, wide)
            few = isinstance(vertical.out, int) and vertical.out < rows
            if few or not _reaches(w, horizontal, width) or (rows, width) in seen:
                continue
            seen.add((rows, width))
            for chunks in (1, 2):
                tile = Tile(bytes_, rows, width, chunks)
                live = min(width, horizontal.reach // horizontal.stride + 1)
                if rows * live * chunks + 4 <= t.registers and _short(w, tile, t):
                    yield tile
    yield Tile(16, 1, 1, 1)


def _even(out: Dim, wide: int) -> int:
    """The width near `wide` that cuts a row into equal tiles as nearly as can be."""
    return -(-out // -(-out // wide)) if isinstance(out, int) else wide


def _short(w: Workload, tile: Tile, t: CpuTarget) -> bool:
    """Whether the straight-line code of a tile is not too long."""
    d = Depthwise(w, tile, t)
    return d.sums * d.dot.steps <= _MAX_SUMS


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds: dot products, and what feeds and ends them, at 3 GHz."""
    d = Depthwise(w, tile_of(c), t)
    tiles = typical(d.s.batch) * typical(product(tuple(a.out for a in d.outer)))
    tiles *= -(-typical(d.vertical.out) // d.tile.rows)
    tiles *= -(-typical(d.horizontal.out) // d.tile.width)
    share = 1.0 if d.tile.bytes == t.vector_bytes else _NARROW
    cycles = d.tile_cycles() * share + 12
    return tiles * d.blocks * cycles / 3e9 / min(t.threads, 64)


def pack(w: Workload, c: Config, t: CpuTarget, number: int, array: np.ndarray) -> np.ndarray:
    """Weights as quads, constants by channel in the order of the lanes, others by their strides."""
    d = Depthwise(w, tile_of(c), t)
    if number == 1:
        return d.pack_weights(array)
    if number in d.ordered:
        return d.pack_constant(array)
    return lay_out(w.inputs[number], array)


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """Pure: the same arguments give the same text."""
    module = Module()
    symbol = symbol_for(KERNEL.name, w, c, t)
    units = DepthwiseWriter(module, symbol, Depthwise(w, tile_of(c), t)).write()
    return Source(module.text(), (Phase(symbol, units),))


KERNEL = Kernel("cpu.conv_u8.depthwise", "conv", refuse, configs, emit, pack, cost)
