"""f32 3×3 convolution by Winograd's F(m×m, 3×3), after Lavin and Gray (2015).

The output is cut into tiles of m×m pixels. Each tile's (m+2)² inputs are transformed, lanes along
the channels; at each of the (m+2)² points the tiles of a block times the transformed weights is a
matrix product; its results are transformed back, lanes along the output channels.

    V[point][tile][c]     inputs, transformed                 scratch
    U[block][point][c][o] weights, transformed when packed
    P[point][tile][o]     products                            worker's scratch

"fused": a unit does all of it for a block of tiles. "split": a first phase transforms all inputs
into shared scratch, then units are blocks of tiles times blocks of output channels, so that with
few tiles each worker reads its own part of the weights once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import ceildiv, is_static, product
from planish.kernels.conv_shape import ConvShape, conv_shape, refuse_shape
from planish.kernels.cpu.epilogue import Cell, accumulator_dtype, store_for
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.gemm_tile import GemmTile, multiply
from planish.kernels.cpu.pack import lay_out
from planish.kernels.cpu.winograd_math import (
    Transforms,
    data_transform,
    output_transform,
    transform_filter,
    transforms,
)
from planish.kernels.kernel import Config, Kernel, Phase, Source, symbol_for
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Module, Val, i64, vector

_LINE = 64  # bytes; rows of V are one longer than a power of two would be


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    del t
    if any(o.dtype is not DType.F32 for o in w.inputs[:2]):
        return "Winograd is f32 only"
    if any(accumulator_dtype(w, n) is not DType.F32 for n in range(len(w.outputs))):
        return "the sums are not f32"
    if not w.inputs[1].const:
        return "the weights are not constant"
    if reason := refuse_shape(w):
        return reason
    s = conv_shape(w)
    if s.kernel != (3, 3) or s.stride != (1, 1) or s.dilation != (1, 1) or s.group != 1:
        return "not a 3×3 kernel of stride 1, dilation 1 and one group"
    if w.inputs[0].strides[1] != 1:
        return "channels are not the contiguous axis"
    if not is_static(o.shape[1] for o in w.outputs):
        return "the output channels are symbolic"
    if s.channels < 8 or s.features < 8:
        return "too few channels to pay for the transforms"
    return None


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    s = conv_shape(w)
    for m in (4, 2):
        if all(isinstance(o, int) and o < m for o in s.out):
            continue
        tiles = _tile_count(s, m)
        for nv, mr in _gemm_tiles(w, t):
            for form in ("fused", "split"):
                yield (
                    ("m", m),
                    ("form", form),
                    ("tiles", _block_tiles(s, t, m, nv, mr, tiles, form)),
                    ("mr", mr),
                    ("nv", nv),
                )


def _gemm_tiles(w: Workload, t: CpuTarget) -> list[tuple[int, int]]:
    """(vectors of output channels, tiles) of the register tile."""
    table = ((4, 6), (2, 12), (3, 8)) if t.registers >= 32 else ((2, 6), (3, 4))
    widest = max(-(-int(str(o.shape[1])) // t.lanes()) for o in w.outputs)
    return list(dict.fromkeys((min(nv, widest), mr) for nv, mr in table))


def _tile_count(s: ConvShape, m: int) -> int:
    """Tiles of the whole output; a symbolic batch counts as one."""
    count = s.batch if isinstance(s.batch, int) else 1
    for out in s.out:
        count *= -(-(out if isinstance(out, int) else 56) // m)
    return max(1, count)


def _block_tiles(
    s: ConvShape, t: CpuTarget, m: int, nv: int, mr: int, tiles: int, form: str
) -> int:
    """Tiles of a block: V and P of one fit the L2 cache, and there is a block for each worker."""
    points = (m + 2) ** 2
    row = nv * t.vector_bytes + (s.channels * 4 + _LINE if form == "fused" else 0)
    most = max(mr, (t.l2 * 5 // 8) // (points * row) // mr * mr)
    if form == "fused":
        most = max(mr, min(most, -(-tiles // t.threads // mr) * mr))
    blocks = max(1, -(-tiles // most))
    even = -(-tiles // blocks)
    return min(most, -(-even // mr) * mr)


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds: products at the tile's efficiency, the two transforms, reading weights."""
    s, values = conv_shape(w), dict(c)
    m, nv, mr = (int(values[name]) for name in ("m", "nv", "mr"))
    points, tiles = (m + 2) ** 2, _tile_count(s, m)
    lanes = t.lanes()
    outs = sum(-(-int(str(o.shape[1])) // (nv * lanes)) * nv for o in w.outputs)
    blocks = -(-tiles // int(values["tiles"]))
    products = points * -(-tiles // mr) * mr * s.channels * outs
    moved = tiles * (-(-s.channels // lanes) + outs) * points * 6
    weights = points * s.channels * outs * lanes * 4
    reads = weights * (blocks if values["form"] == "fused" else 1)
    per_byte = 0.03 if weights < t.l2 else 0.1 if weights < t.l3 else 0.25
    cycles = products * 1.08 + moved + reads * per_byte
    waves = blocks if values["form"] == "fused" else blocks * -(-outs // nv)
    balance = -(-waves // t.threads) * t.threads / waves
    return cycles * balance / 3e9 / max(1, t.threads)


@dataclass(frozen=True)
class _Block:
    """Output channels that are computed together: vectors of one output.

    Attributes:
        output: Which output.
        channel: First channel within it.
        feature: First channel of all outputs' channels together.
        vectors: Number of vectors.
        used: Channels; the lanes beyond are padding.
    """

    output: int
    channel: int
    feature: int
    vectors: int
    used: int


def _blocks(w: Workload, nv: int, lanes: int) -> list[_Block]:
    """All output channels in blocks of at most `nv` vectors, as even as can be."""
    found: list[_Block] = []
    feature = 0
    for number, output in enumerate(w.outputs):
        channels = int(str(output.shape[1]))
        vectors = -(-channels // lanes)
        count = -(-vectors // nv)
        short, longer = divmod(vectors, count)
        channel = 0
        for n in range(count):
            width = short + (n < longer)
            used = min(width * lanes, channels - channel)
            found.append(_Block(number, channel, feature + channel, width, used))
            channel += used
        feature += channels
    return found


def pack(w: Workload, c: Config, t: CpuTarget, number: int, array: np.ndarray) -> np.ndarray:
    """Weights as U[block][point][c][o], the blocks one after the other."""
    if number != 1:
        return lay_out(w.inputs[number], array)
    values, lanes = dict(c), t.lanes()
    points = transform_filter(transforms(int(values["m"])), array)
    points = points.reshape(-1, *points.shape[2:])
    parts = []
    for block in _blocks(w, int(values["nv"]), lanes):
        part = points[:, :, block.feature : block.feature + block.used]
        parts.append(np.pad(part, [(0, 0), (0, 0), (0, block.vectors * lanes - block.used)]))
    return np.concatenate([part.ravel() for part in parts])


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """Pure: the same arguments give the same text."""
    return _Writer(w, c, t).source()


class _Writer:
    """Writes the phases."""

    def __init__(self, w: Workload, c: Config, t: CpuTarget) -> None:
        values = dict(c)
        self.w, self.t, self.s = w, t, conv_shape(w)
        self.x = w.inputs[0]
        self.m, self.nv, self.mr = (int(values[name]) for name in ("m", "nv", "mr"))
        self.count, self.fused_form = int(values["tiles"]), values["form"] == "fused"
        self.math: Transforms = transforms(self.m)
        self.points = self.math.size**2
        self.lanes = t.lanes()
        self.ty = vector("float", self.lanes)
        self.channels = self.s.channels
        self.row = -(-self.channels // self.lanes) * t.vector_bytes + _LINE  # bytes of V's rows
        self.plane = self.row * self.count  # bytes of a point of V
        self.grid = tuple(ceildiv(out, self.m) for out in self.s.out)
        self.tiles = product((self.s.batch, *self.grid))
        self.tile_blocks = ceildiv(self.tiles, self.count)
        self.blocks = _blocks(w, self.nv, self.lanes)
        self.stores = [store_for(w, t, n, lane_axis=1) for n in range(len(w.outputs))]
        self.symbol = symbol_for(KERNEL.name, w, c, t)
        self.module = Module()

    def source(self) -> Source:
        """The whole module."""
        product_bytes = self.points * self.count * self.nv * self.t.vector_bytes
        block_bytes = self.points * self.plane
        if self.fused_form:
            self._fused_phase()
            return Source(
                self.module.text(),
                (Phase(self.symbol, self.tile_blocks),),
                0,
                block_bytes + product_bytes,
            )
        self._input_phase(self.symbol + "i")
        self._output_phase()
        phases = (
            Phase(self.symbol + "i", self.tiles),
            Phase(self.symbol, self.tile_blocks * len(self.blocks)),
        )
        return Source(self.module.text(), phases, self.tile_blocks * block_bytes, product_bytes)

    def _begin(self, symbol: str) -> Frame:
        self.frame = Frame(self.module, symbol, self.w)
        self.f = self.frame.f
        self.frame.prepare([*self.grid, self.tiles, self.tile_blocks])
        return self.frame

    # ---- phases ---------------------------------------------------------------------------------

    def _fused_phase(self) -> None:
        frame = self._begin(self.symbol)
        f = self.f
        data = frame.private
        products = f.offset(frame.private, self.points * self.plane)
        with frame.units() as unit:
            first, count = self._tiles_of(unit)
            with f.loop(0, count) as tile:
                place = f.offset(data, f.mul(tile.index, self.row))
                self._transform_input(f.add(first, tile.index), place)
            self._all_blocks(first, count, data, products)

    def _input_phase(self, symbol: str) -> None:
        frame = self._begin(symbol)
        f = self.f
        with frame.units() as tile:
            block, place = f.udiv(tile, self.count), f.urem(tile, self.count)
            at = f.offset(frame.shared, f.mul(block, self.points * self.plane))
            self._transform_input(tile, f.offset(at, f.mul(place, self.row)))

    def _output_phase(self) -> None:
        frame = self._begin(self.symbol)
        f = self.f
        with frame.units() as unit:
            tile_block = f.urem(unit, frame.size(self.tile_blocks))
            block = f.udiv(unit, frame.size(self.tile_blocks))
            first, count = self._tiles_of(tile_block)
            data = f.offset(frame.shared, f.mul(tile_block, self.points * self.plane))
            self._some_block(block, first, count, data, frame.private)

    def _tiles_of(self, block: Val) -> tuple[Val, Val]:
        """First tile of a block and how many it has."""
        f = self.f
        first = f.mul(block, self.count)
        return first, f.min(f.sub(self.frame.size(self.tiles), first), i64(self.count))

    # ---- inputs ---------------------------------------------------------------------------------

    def _transform_input(self, tile: Val, place: Val) -> None:
        """All points of one tile, every channel, to `place` in each point's plane of V."""
        f, frame, s = self.f, self.frame, self.s
        image, *at = frame.split(tile, (s.batch, *self.grid))
        starts = [f.sub(f.mul(a, self.m), b) for a, b in zip(at, s.before, strict=True)]
        source = frame.at(frame.inputs[0], self.x, [image, 0, *starts])
        inside: Val | None = None
        for axis, start in enumerate(starts):
            high = f.icmp("sle", f.add(start, self.math.size), frame.size(s.size[axis]))
            both = f.binary("and", f.icmp("sge", start, 0), high)
            inside = both if inside is None else f.binary("and", inside, both)
        assert inside is not None
        whole, edge, done = f.label("whole"), f.label("edge"), f.label("turned")
        f.branch_if(inside, whole, edge)
        f.start(whole)
        self._transform_channels(source, place, None)
        f.branch(done)
        f.start(edge)
        self._transform_channels(source, place, starts)
        f.branch(done)
        f.start(done)

    def _transform_channels(self, source: Val, place: Val, starts: list[Val] | None) -> None:
        """A loop over the channel vectors of a tile; `starts` where some inputs are padding."""
        f = self.f
        rest = self.channels % self.lanes
        whole = self.channels - rest
        valid = self._valid(starts) if starts is not None else None
        if whole:
            with f.loop(0, whole, self.lanes) as c:
                self._transform_vector(source, place, c.index, valid, None)
        if rest:
            mask = f.first_lanes(self.lanes, rest)
            self._transform_vector(source, place, i64(whole), valid, mask)

    def _valid(self, starts: list[Val]) -> list[list[Val]]:
        """For each axis and position in the tile: does the input exist?"""
        f, s = self.f, self.s
        return [
            [
                f.icmp("ult", f.add(start, n), self.frame.size(s.size[axis]))
                for n in range(self.math.size)
            ]
            for axis, start in enumerate(starts)
        ]

    def _transform_vector(
        self,
        source: Val,
        place: Val,
        channel: Val,
        valid: list[list[Val]] | None,
        mask: Val | None,
    ) -> None:
        f = self.f
        source, place = (f.offset(p, f.mul(channel, 4)) for p in (source, place))
        block = [
            [self._input(source, i, j, valid, mask) for j in range(self.math.size)]
            for i in range(self.math.size)
        ]
        for i, row in enumerate(data_transform(f, self.math, block, self.t.fma)):
            for j, value in enumerate(row):
                f.store(value, f.offset(place, (i * self.math.size + j) * self.plane), align=_LINE
                        if self.t.vector_bytes == _LINE else self.t.vector_bytes)  # fmt: skip

    def _input(
        self, source: Val, i: int, j: int, valid: list[list[Val]] | None, mask: Val | None
    ) -> Val:
        """A vector of channels of an input pixel of the tile; zero where it is padding."""
        f, frame = self.f, self.frame
        pointer = frame.move(frame.move(source, self.x, 2, i), self.x, 3, j)
        if valid is not None:
            exists = f.binary("and", valid[0][i], valid[1][j])
            pointer = f.select(exists, pointer, self.module.zeros())
        return f.load(self.ty, pointer) if mask is None else f.masked_load(self.ty, pointer, mask)

    # ---- products -------------------------------------------------------------------------------

    def _all_blocks(self, first: Val, count: Val, data: Val, products: Val) -> None:
        """Every block of output channels, in runs of blocks that share code."""
        f = self.f
        for start, stop in self._runs():
            with f.loop(start, stop) as block:
                self._run_block(start, block.index, first, count, data, products)

    def _some_block(self, block: Val, first: Val, count: Val, data: Val, products: Val) -> None:
        """The block of a number known at run time."""
        f = self.f
        for start, stop in self._runs():
            with f.when(f.icmp("ult", f.sub(block, start), stop - start)):
                self._run_block(start, block, first, count, data, products)

    def _runs(self) -> list[tuple[int, int]]:
        """Half-open runs of blocks of one output with the same number of vectors and lanes used."""
        runs: list[tuple[int, int]] = []
        for n, block in enumerate(self.blocks):
            last = self.blocks[runs[-1][0]] if runs else None
            alike = (block.output, block.vectors, block.used)
            if last is not None and (last.output, last.vectors, last.used) == alike:
                runs[-1] = (runs[-1][0], n + 1)
            else:
                runs.append((n, n + 1))
        return runs

    def _run_block(
        self, start: int, number: Val, first: Val, count: Val, data: Val, products: Val
    ) -> None:
        """Products of a block of tiles and block `number`, of a run that begins at `start`."""
        f, block = self.f, self.blocks[start]
        width = block.vectors * self.t.vector_bytes
        before = sum(b.vectors for b in self.blocks[:start]) * self.t.vector_bytes
        step = self.points * self.channels * width
        weights = f.offset(
            self.frame.inputs[1],
            f.add(f.mul(f.sub(number, start), step), self.points * self.channels * before),
        )
        channel = f.add(f.mul(f.sub(number, start), block.used), block.channel)
        rows = tuple(i64(r * self.row) for r in range(self.mr))
        tile = GemmTile(rows, block.vectors, self.lanes, fused=self.t.fma)
        with f.loop(0, self.points) as point:
            u = f.offset(weights, f.mul(point.index, self.channels * width))
            v = f.offset(data, f.mul(point.index, self.plane))
            p = f.offset(products, f.mul(point.index, self.count * width))
            with f.loop(0, count, self.mr) as at:
                a = f.offset(v, f.mul(at.index, self.row))
                sums = multiply(f, tile, tile.zeros(), (a, 4), (u, width), self.channels, unroll=4)
                for n, value in enumerate(sums):
                    to = f.offset(p, f.mul(at.index, width))
                    f.store(value, f.offset(to, n * self.t.vector_bytes), align=16)
        with f.loop(0, count) as at:
            self._transform_output(
                block, channel, f.add(first, at.index), f.offset(products, f.mul(at.index, width))
            )

    # ---- outputs --------------------------------------------------------------------------------

    def _transform_output(self, block: _Block, channel: Val, tile: Val, products: Val) -> None:
        """A tile's outputs of one block of channels."""
        f, frame, s = self.f, self.frame, self.s
        image, *at = frame.split(tile, (s.batch, *self.grid))
        starts = [f.mul(a, self.m) for a in at]
        rest = block.used % self.lanes
        whole = block.used // self.lanes
        ragged = any(not isinstance(o, int) or o % self.m for o in s.out)
        parts: list[tuple[Val, int, Val | None]] = []
        if rest:
            parts.append((i64(whole), 1, f.first_lanes(self.lanes, rest)))
        if whole:
            parts.insert(0, (i64(0), whole, None))
        for begin, vectors, mask in parts:
            with f.loop(begin, f.add(begin, vectors)) as v:
                sums = f.offset(products, f.mul(v.index, self.t.vector_bytes))
                plane = self.count * block.vectors * self.t.vector_bytes
                size = range(self.math.size)
                values = [
                    [
                        f.load(self.ty, f.offset(sums, (i * self.math.size + j) * plane), align=16)
                        for j in size
                    ]
                    for i in size
                ]
                done = output_transform(f, self.math, values, self.t.fma)
                o = f.add(channel, f.mul(v.index, self.lanes))
                index = [image, o, *starts]
                if ragged:
                    self._store_edge(block.output, done, index, mask)
                else:
                    self._store_whole(block.output, done, index, mask)

    def _cell(self, output: int, value: Val, index: Sequence[Val], i: int, j: int) -> Cell:
        f, frame, out = self.f, self.frame, self.w.outputs[output]
        base = frame.at(frame.outputs[output], out, index)
        place = frame.move(frame.move(base, out, 2, i), out, 3, j)
        image, channel, row, column = index
        return value, place, [image, channel, f.add(row, i), f.add(column, j)]

    def _store_whole(
        self, output: int, done: list[list[Val]], index: Sequence[Val], mask: Val | None
    ) -> None:
        cells = [
            self._cell(output, value, index, i, j)
            for i, row in enumerate(done)
            for j, value in enumerate(row)
        ]
        self.stores[output].run(self.frame, cells, mask)

    def _store_edge(
        self, output: int, done: list[list[Val]], index: Sequence[Val], mask: Val | None
    ) -> None:
        """Store a tile some of whose pixels may lie outside the output."""
        f, s = self.f, self.s
        ends = [self.frame.size(o) for o in s.out]
        whole: Val | None = None
        for start, end in zip(index[2:], ends, strict=True):
            fits = f.icmp("sle", f.add(start, self.m), end)
            whole = fits if whole is None else f.binary("and", whole, fits)
        assert whole is not None
        all_in, some_in, stored = f.label("allin"), f.label("somein"), f.label("stored")
        f.branch_if(whole, all_in, some_in)
        f.start(all_in)
        self._store_whole(output, done, index, mask)
        f.branch(stored)
        f.start(some_in)
        for i, row in enumerate(done):
            for j, value in enumerate(row):
                here = f.icmp("slt", f.add(index[2], i), ends[0])
                here = f.binary("and", here, f.icmp("slt", f.add(index[3], j), ends[1]))
                with f.when(here):
                    cell = self._cell(output, value, index, i, j)
                    self.stores[output].run(self.frame, [cell], mask)
        f.branch(stored)
        f.start(stored)


KERNEL = Kernel(
    "cpu.conv_f32.winograd",
    op="conv",
    refuse=refuse,
    configs=configs,
    emit=emit,
    pack=pack,
    cost=cost,
)
