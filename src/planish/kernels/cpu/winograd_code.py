"""The phases of Winograd's convolution: input transforms, products, output transforms.

    V[point][tile][word]     inputs, transformed                 scratch
    U[block][point][word][o] weights, transformed when packed
    P[point][tile][o]        products                            worker's scratch

A word is the channels that one step of a product takes: one of f32, two of s16.

Inputs at the image's border, and the last channels where they fill no vector, are first copied to a
patch of their own, zero where nothing is, so that one piece of code transforms them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.base.shapes import ceildiv, product
from planish.kernels.conv_shape import conv_shape
from planish.kernels.cpu.epilogue import store_for
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.gemm_tile import GemmTile, multiply
from planish.kernels.cpu.winograd_numbers import Numbers
from planish.kernels.kernel import Phase, Source
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Module, Val, i64, vector

LINE = 64  # bytes; rows of V are one longer than a power of two would be


@dataclass(frozen=True)
class WinogradShape:
    """What a config says about the code.

    Attributes:
        m: Outputs of a tile along an axis.
        fused: One phase; else inputs are transformed in a phase of their own.
        tiles: Tiles of a block.
        mr: Tiles of a register tile.
        nv: Vectors of output channels of a register tile, at most.
    """

    m: int
    fused: bool
    tiles: int
    mr: int
    nv: int


@dataclass(frozen=True)
class ChannelBlock:
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


def channel_blocks(w: Workload, nv: int, lanes: int) -> list[ChannelBlock]:
    """All output channels in blocks of at most `nv` vectors, as even as can be."""
    found: list[ChannelBlock] = []
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
            found.append(ChannelBlock(number, channel, feature + channel, width, used))
            channel += used
        feature += channels
    return found


class WinogradWriter:
    """Writes the phases of one tactic."""

    def __init__(
        self, w: Workload, shape: WinogradShape, numbers: Numbers, t: CpuTarget, symbol: str
    ) -> None:
        self.w, self.shape, self.numbers, self.t, self.symbol = w, shape, numbers, t, symbol
        self.s, self.x = conv_shape(w), w.inputs[0]
        self.size = numbers.math.size
        self.points = self.size**2
        self.lanes, self.bytes = t.lanes(), t.vector_bytes
        self.ty = vector(numbers.total, self.lanes)
        self.loaded = numbers.channels * self.x.dtype.size  # bytes of a vector of inputs
        self.channels, self.words = self.s.channels, numbers.words(self.s.channels)
        self.row = -(-self.words // self.lanes) * self.bytes + LINE  # bytes of V's rows
        self.plane = self.row * shape.tiles  # bytes of a point of V
        self.grid = tuple(ceildiv(out, shape.m) for out in self.s.out)
        self.tiles = product((self.s.batch, *self.grid))
        self.tile_blocks = ceildiv(self.tiles, shape.tiles)
        self.blocks = channel_blocks(w, shape.nv, self.lanes)
        self.stores = [store_for(w, t, n, lane_axis=1) for n in range(len(w.outputs))]
        self.module = Module()

    def source(self) -> Source:
        """The whole module. The worker's scratch: a patch, P, and V where it is not shared."""
        patch = self.points * self.bytes
        products = self.points * self.shape.tiles * self.shape.nv * self.bytes
        block = self.points * self.plane
        if self.shape.fused:
            self._fused_phase(patch, products)
            phase = Phase(self.symbol, self.tile_blocks)
            return Source(self.module.text(), (phase,), 0, patch + products + block)
        self._input_phase(self.symbol + "i")
        self._output_phase(patch)
        phases = (
            Phase(self.symbol + "i", self.tiles),
            Phase(self.symbol, self.tile_blocks * len(self.blocks)),
        )
        return Source(self.module.text(), phases, self.tile_blocks * block, patch + products)

    def _begin(self, symbol: str) -> Frame:
        self.frame = Frame(self.module, symbol, self.w)
        self.f = self.frame.f
        self.frame.prepare([*self.grid, self.tiles, self.tile_blocks])
        return self.frame

    # ---- phases ---------------------------------------------------------------------------------

    def _fused_phase(self, patch: int, products: int) -> None:
        frame = self._begin(self.symbol)
        f = self.f
        sums = f.offset(frame.private, patch)
        data = f.offset(frame.private, patch + products)
        with frame.units() as unit:
            first, count = self._tiles_of(unit)
            with f.loop(0, count) as tile:
                place = f.offset(data, f.mul(tile.index, self.row))
                self._transform_input(f.add(first, tile.index), place)
            for start, stop in self._runs():
                with f.loop(start, stop) as block:
                    self._block(start, block.index, first, count, data, sums)

    def _input_phase(self, symbol: str) -> None:
        frame = self._begin(symbol)
        f, count = self.f, self.shape.tiles
        with frame.units() as tile:
            block, place = f.udiv(tile, count), f.urem(tile, count)
            at = f.offset(frame.shared, f.mul(block, self.points * self.plane))
            self._transform_input(tile, f.offset(at, f.mul(place, self.row)))

    def _output_phase(self, patch: int) -> None:
        frame = self._begin(self.symbol)
        f = self.f
        sums = f.offset(frame.private, patch)
        with frame.units() as unit:
            tile_block = f.urem(unit, frame.size(self.tile_blocks))
            block = f.udiv(unit, frame.size(self.tile_blocks))
            first, count = self._tiles_of(tile_block)
            data = f.offset(frame.shared, f.mul(tile_block, self.points * self.plane))
            for start, stop in self._runs():
                with f.when(f.icmp("ult", f.sub(block, start), stop - start)):
                    self._block(start, block, first, count, data, sums)

    def _tiles_of(self, block: Val) -> tuple[Val, Val]:
        """First tile of a block and how many it has."""
        f = self.f
        first = f.mul(block, self.shape.tiles)
        return first, f.min(f.sub(self.frame.size(self.tiles), first), i64(self.shape.tiles))

    # ---- inputs ---------------------------------------------------------------------------------

    def _transform_input(self, tile: Val, place: Val) -> None:
        """All points of one tile, every channel, to `place` in each point's plane of V."""
        f, frame, s = self.f, self.frame, self.s
        size, patch, step = self.size, frame.private, self.numbers.channels
        image, *at = frame.split(tile, (s.batch, *self.grid))
        starts = [f.sub(f.mul(a, self.shape.m), b) for a, b in zip(at, s.before, strict=True)]
        corner = frame.at(frame.inputs[0], self.x, [image, 0, *starts])
        inside = Val("i1", "true")
        for start, extent in zip(starts, s.size, strict=True):
            fits = f.icmp("sle", f.add(start, size), frame.size(extent))
            fits = f.binary("and", fits, f.icmp("sge", start, 0))
            inside = f.binary("and", inside, fits)
        element = self.x.dtype.size
        steps = [f.mul(frame.size(stride), element) for stride in self.x.strides[2:]]
        with f.loop(0, self.channels, step) as c:
            source = f.offset(corner, f.mul(c.index, element))
            direct = inside
            if self.channels % step:
                full = f.icmp("sle", c.index, self.channels - step)
                direct = f.binary("and", inside, full)
            copy, go = f.label("copy"), f.label("transform")
            before = f.block
            f.branch_if(direct, go, copy)
            f.start(copy)
            self._copy_patch(source, starts, c.index)
            after = f.block
            f.branch(go)
            f.start(go)
            start = _phi(f, (source, before), (patch, after))
            line = _phi(f, (steps[0], before), (i64(size * self.loaded), after))
            pixel = _phi(f, (steps[1], before), (i64(self.loaded), after))
            to = f.offset(place, f.mul(f.udiv(c.index, step), self.bytes))
            self._transform_vector(start, line, pixel, to)

    def _copy_patch(self, source: Val, starts: Sequence[Val], channel: Val) -> None:
        """A vector of channels of each input of a tile, zeros where there is none."""
        f, frame, s, size = self.f, self.frame, self.s, self.size
        ty, lanes, mask = self.numbers.loaded, self.numbers.channels, None
        if self.channels % lanes:
            mask = f.first_lanes(lanes, f.sub(self.channels, channel))
        with f.loop(0, size) as i:
            row = f.add(starts[0], i.index)
            exists = f.icmp("ult", row, frame.size(s.size[0]))
            line = frame.move(source, self.x, 2, i.index)
            into = f.offset(frame.private, f.mul(i.index, size * self.loaded))
            with f.loop(0, size) as j:
                column = f.add(starts[1], j.index)
                here = f.icmp("ult", column, frame.size(s.size[1]))
                here = f.binary("and", exists, here)
                at = f.select(here, frame.move(line, self.x, 3, j.index), self.module.zeros())
                value = f.load(ty, at) if mask is None else f.masked_load(ty, at, mask)
                to = f.offset(into, f.mul(j.index, self.loaded))
                f.store(value, to, align=self.loaded)

    def _transform_vector(self, source: Val, line: Val, pixel: Val, place: Val) -> None:
        """Transform one vector of channels of a tile, read at source + i·line + j·pixel."""
        f, size, ty = self.f, self.size, self.numbers.loaded
        block = []
        for i in range(size):
            row = f.offset(source, f.mul(line, i))
            block.append([f.load(ty, f.offset(row, f.mul(pixel, j))) for j in range(size)])
        for i, values in enumerate(self.numbers.data(f, block)):
            for j, value in enumerate(values):
                to = f.offset(place, (i * size + j) * self.plane)
                f.store(value, to, align=self.bytes)

    # ---- products -------------------------------------------------------------------------------

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

    def _block(self, start: int, number: Val, first: Val, count: Val, data: Val, sums: Val) -> None:
        """A block of tiles times channel block `number`, of a run that begins at `start`."""
        f, block = self.f, self.blocks[start]
        width = block.vectors * self.bytes
        before = sum(b.vectors for b in self.blocks[:start]) * self.bytes
        inside = f.sub(number, start)
        steps = self.points * self.words
        moved = f.add(f.mul(inside, steps * width), steps * before)
        weights = f.offset(self.frame.inputs[1], moved)
        rows = tuple(i64(r * self.row) for r in range(self.shape.mr))
        tile = GemmTile(
            rows,
            block.vectors,
            self.lanes,
            self.numbers.total,
            fused=self.t.fma,
            product=self.numbers.product,
        )
        with f.loop(0, self.points) as point:
            u = f.offset(weights, f.mul(point.index, self.words * width))
            v = f.offset(data, f.mul(point.index, self.plane))
            p = f.offset(sums, f.mul(point.index, self.shape.tiles * width))
            with f.loop(0, count, self.shape.mr) as at:
                a = f.offset(v, f.mul(at.index, self.row))
                done = multiply(f, tile, tile.zeros(), (a, 4), (u, width), self.words)
                to = f.offset(p, f.mul(at.index, width))
                for n, value in enumerate(done):
                    f.store(value, f.offset(to, n * self.bytes), align=self.bytes)
        channel = f.add(f.mul(inside, block.used), block.channel)
        with f.loop(0, count) as at:
            place = f.offset(sums, f.mul(at.index, width))
            self._transform_output(block, channel, f.add(first, at.index), place)

    # ---- outputs --------------------------------------------------------------------------------

    def _transform_output(
        self, block: ChannelBlock, channel: Val, tile: Val, products: Val
    ) -> None:
        """A tile's outputs of one block of channels."""
        f, frame, s, m = self.f, self.frame, self.s, self.shape.m
        image, *at = frame.split(tile, (s.batch, *self.grid))
        starts = [f.mul(a, m) for a in at]
        heights = [
            f.min(f.sub(frame.size(extent), start), i64(m))
            if not isinstance(extent, int) or extent % m
            else i64(m)
            for extent, start in zip(s.out, starts, strict=True)
        ]
        whole, rest = divmod(block.used, self.lanes)
        parts: list[tuple[int, int, Val | None]] = [(0, whole, None)] if whole else []
        if rest:
            parts.append((whole, whole + 1, f.first_lanes(self.lanes, rest)))
        plane = self.shape.tiles * block.vectors * self.bytes
        size = range(self.size)
        for begin, end, mask in parts:
            with f.loop(begin, end) as v:
                sums = f.offset(products, f.mul(v.index, self.bytes))
                values = [
                    [
                        f.load(
                            self.ty, f.offset(sums, (i * len(size) + j) * plane), align=self.bytes
                        )
                        for j in size
                    ]
                    for i in size
                ]
                done = self.numbers.output(f, values)
                index = [image, f.add(channel, f.mul(v.index, self.lanes)), *starts]
                self._store(block.output, done, index, heights, mask)

    def _store(
        self,
        output: int,
        done: Sequence[Sequence[Val]],
        index: Sequence[Val],
        extents: Sequence[Val],
        mask: Val | None,
    ) -> None:
        """Finish the pixels of a tile that exist, row by row from the patch."""
        f, frame, m = self.f, self.frame, self.shape.m
        patch = frame.private
        for i, row in enumerate(done):
            for j, value in enumerate(row):
                f.store(value, f.offset(patch, (i * m + j) * self.bytes), align=self.bytes)
        image, channel, first, column = index
        with f.loop(0, extents[0]) as row_loop:
            line = f.offset(patch, f.mul(row_loop.index, m * self.bytes))
            at = [image, channel, f.add(first, row_loop.index)]
            self._store_line(output, line, [*at, column], extents[1], mask)

    def _store_line(
        self, output: int, line: Val, index: Sequence[Val], count: Val, mask: Val | None
    ) -> None:
        """The first `count` pixels of a row of a tile."""
        f, m = self.f, self.shape.m
        if count.literal == m:
            self._store_row(output, line, index, m, mask)
            return
        whole, part, stored = f.label("whole"), f.label("part"), f.label("stored")
        f.branch_if(f.icmp("eq", count, m), whole, part)
        f.start(whole)
        self._store_row(output, line, index, m, mask)
        f.branch(stored)
        f.start(part)
        with f.loop(0, count) as j:
            cell = f.offset(line, f.mul(j.index, self.bytes))
            self._store_row(output, cell, [*index[:3], f.add(index[3], j.index)], 1, mask)
        f.branch(stored)
        f.start(stored)

    def _store_row(
        self, output: int, line: Val, index: Sequence[Val], count: int, mask: Val | None
    ) -> None:
        """`count` neighbouring pixels."""
        f, frame, out = self.f, self.frame, self.w.outputs[output]
        base = frame.at(frame.outputs[output], out, index)
        cells = []
        for j in range(count):
            value = f.load(self.ty, f.offset(line, j * self.bytes), align=self.bytes)
            place = frame.move(base, out, 3, j)
            cells.append((value, place, [*index[:3], f.add(index[3], j)]))
        self.stores[output].run(frame, cells, mask)


def _phi(f: Function, one: tuple[Val, str], other: tuple[Val, str]) -> Val:
    """The value that comes from whichever block was run before this one, which starts here."""
    (a, first), (b, second) = one, other
    return f.emit(a.ty, f"phi {a.ty} [{a.ref}, %{first}], [{b.ref}, %{second}]")
