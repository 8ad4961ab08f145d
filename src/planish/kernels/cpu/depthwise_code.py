"""Writes the code of a depthwise convolution of bytes: units, rows, tiles."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from planish.base.shapes import Dim, ceildiv, is_static, product
from planish.kernels.cpu.conv_depthwise import Columns, cut_row, inner_columns
from planish.kernels.cpu.depthwise_ending import Ending
from planish.kernels.cpu.depthwise_ground import Block, Ground, Place
from planish.kernels.cpu.depthwise_quads import Axis, Depthwise
from planish.kernels.cpu.depthwise_sums import Done, Sums
from planish.kernels.cpu.epilogue import Store, store_for
from planish.kernels.cpu.quads import CHUNKS, natural_order
from planish.targets.ir import Module, Val, i64, zero

_UNIT_CYCLES = 2000  # below this much work a unit's own cost would show


class DepthwiseWriter:
    """Writes the one phase."""

    def __init__(self, module: Module, symbol: str, d: Depthwise) -> None:
        self.ground = Ground(module, symbol, d)
        self.frame, self.f, self.d = self.ground.frame, self.ground.f, d
        self.x, self.y = self.ground.x, self.ground.y

    def write(self) -> Dim:
        """Write the function; gives its number of units."""
        d, f, frame = self.d, self.f, self.frame
        v = d.vertical
        band = self._band()
        extents = (d.s.batch, d.blocks, *(a.out for a in d.outer), ceildiv(v.out, band))
        frame.prepare((*extents, *inner_columns(d.horizontal.line), v.out, v.size))
        with frame.units() as unit:
            image, number, *outer, at = frame.split(unit, extents)
            channel = f.mul(number, d.tile.bytes)
            if d.overlaps:
                channel = f.min(channel, d.s.channels - d.tile.bytes)
            source = frame.at(frame.inputs[0], self.x, [image, channel])
            weights = f.offset(frame.inputs[1], f.mul(number, d.block_bytes))
            begin = f.mul(at, band)
            end = f.min(f.add(begin, band), frame.size(v.out))
            whole = d.blocks - bool(d.tail)
            for count, first, last in ((d.tile.bytes, 0, whole), (d.tail, whole, d.blocks)):
                if first == last or not count:
                    continue
                with ExitStack() as guard:
                    if d.tail and d.blocks > 1:
                        guard.enter_context(
                            f.when(f.icmp("ult", f.sub(number, first), last - first))
                        )
                    block = Block(number, channel, source, weights, count)
                    self._rows(block, image, tuple(outer), begin, end)
        return product(extents)

    def _band(self) -> int:
        """Output rows of a unit: enough work to pay for its start, few enough to share out."""
        d, rows = self.d, self.d.tile.rows
        out, width = d.vertical.out, d.horizontal.out
        if not isinstance(out, int):
            return rows
        tiles = -(-(width if isinstance(width, int) else 64) // d.tile.width)
        cycles = max(1.0, d.tile_cycles() * tiles)
        return rows * min(-(-out // rows), int(_UNIT_CYCLES // cycles) + 1)

    def _rows(self, block: Block, image: Val, outer: tuple[Val, ...], begin: Val, end: Val) -> None:
        """Output rows begin … end: whole tiles, then single rows."""
        f, rows = self.f, self.d.tile.rows
        whole = f.sub(end, f.urem(f.sub(end, begin), rows))
        spans = [(rows, begin, whole)]
        if rows > 1 and 1 in self.d.variants:
            spans.append((1, whole, end))
        for height, first, last in spans:
            with f.loop(first, last, height) as row:
                self._columns(block, image, outer, row.index, height)

    def _columns(
        self, block: Block, image: Val, outer: tuple[Val, ...], row: Val, rows: int
    ) -> None:
        """A row of tiles."""
        f, frame, h, width = self.f, self.frame, self.d.horizontal, self.d.tile.width
        if is_static((h.out, h.size)):
            for run in cut_row(h.line, width):
                with f.loop(0, run.count) as tile:
                    column = f.add(f.mul(tile.index, run.width), run.first)
                    self._tile(block, Place(image, outer, row, column, rows, run))
            return
        first, stop = inner_columns(h.line)
        low, high = frame.size(first), frame.size(stop)
        whole = f.sub(high, f.urem(f.sub(high, low), width))
        inside = Columns(0, 0, width, (0, (width - 1) * h.stride + h.reach + 1))
        single = Columns(0, 0, 1, (0, h.reach + 1), checked=True)
        end = frame.size(h.out)
        for run, start, last in ((single, i64(0), low), (inside, low, whole), (single, whole, end)):
            with f.loop(start, last, run.width) as at:
                self._tile(block, Place(image, outer, row, at.index, rows, run))

    # ---- a tile ----------------------------------------------------------------------------------

    def _tile(self, block: Block, place: Place) -> None:
        """Sum, finish and store the outputs of a tile, group of chunks by group of chunks."""
        f, d = self.f, self.d
        ending = Ending(self.ground, block, place) if d.rounding else None
        kept: dict[tuple[int, int], list[Val]] = {
            (row, i): [] for row in range(place.rows) for i in range(place.run.width)
        }
        for first in range(0, CHUNKS, d.tile.chunks):
            if first:  # rows are read anew for each group of chunks, not held in registers
                f.line('call void asm sideeffect "", "~{memory}"()')
            chunks = tuple(range(first, first + d.tile.chunks))

            def done(i: int, sums: Sequence[Val], chunks: tuple[int, ...] = chunks) -> None:
                """A column of outputs is summed up: [row][chunk]."""
                for row in range(place.rows):
                    found = sums[row * len(chunks) : (row + 1) * len(chunks)]
                    kept[row, i] += found
                    if ending:
                        kept[row, i] = ending.finish((row, i), chunks, kept[row, i])

            start = [
                ending.start(chunk) if ending else zero(self.ground.sum_type) for chunk in chunks
            ]
            self._sums(block, place, chunks, start, done)
        if not ending:
            self._store(block, place, kept)

    def _sums(
        self,
        block: Block,
        place: Place,
        chunks: tuple[int, ...],
        start: Sequence[Val],
        done: Done,
    ) -> None:
        """Sum some chunks of a tile; `done` takes each column of outputs as soon as it is."""
        outer, many = self.d.outer, place.rows * place.run.width

        def over(axis: int, source: Val, weights: Val, sums: Sequence[Val]) -> list[Val]:
            if axis == len(outer):
                return Sums(self.ground, block, place, chunks).run(source, weights, sums)
            a = outer[axis]
            low, high, begin = self._taps_inside(a, place.outer[axis])
            plane = self.d.plane_bytes
            for later in outer[axis + 1 :]:
                plane *= later.kernel
            with self.f.loop(low, high, init=sums) as tap:
                line = self.f.add(begin, self.f.mul(tap.index, a.dilation))
                moved = self.frame.move(source, self.x, a.number + 2, line)
                further = self.f.offset(weights, self.f.mul(tap.index, plane))
                tap.carry(over(axis + 1, moved, further, tap.carried))
            return tap.results

        if not outer:
            one = Sums(self.ground, block, place, chunks, done)
            one.run(block.source, block.weights, list(start) * many)
            return
        sums = over(0, block.source, block.weights, list(start) * many)
        size = place.rows * len(chunks)
        for i in range(place.run.width):
            done(i, sums[i * size : (i + 1) * size])

    def _taps_inside(self, a: Axis, at: Val) -> tuple[Val, Val, Val]:
        """Half-open range of an outer axis's taps inside the input, and the first tap's place."""
        f = self.f
        begin = f.sub(f.mul(at, a.stride), a.before)
        if not a.padded:
            return i64(0), i64(a.kernel), begin
        low = f.udiv(f.add(f.max(f.sub(0, begin), 0), a.dilation - 1), a.dilation)
        room = f.max(f.sub(self.frame.size(a.size), begin), 0)
        high = f.min(f.udiv(f.add(room, a.dilation - 1), a.dilation), a.kernel)
        return low, high, begin

    def _store(self, block: Block, place: Place, kept: dict[tuple[int, int], list[Val]]) -> None:
        """Any epilogue: the chunks become vectors of neighbouring channels."""
        f, frame, lanes = self.f, self.frame, self.d.lanes
        base = frame.at(
            frame.outputs[0], self.y, self.ground.index_of(place, block.channel, (0, 0))
        )
        store: Store = store_for(self.d.w, self.d.t, 0, 1)
        for part in range(CHUNKS):
            valid = min(lanes, block.count - part * lanes)
            if valid <= 0:
                continue
            cells = []
            for pixel, parts in kept.items():
                parts[:] = parts if part else natural_order(f, parts)
                channel = f.add(block.channel, part * lanes)
                at = frame.move(self.ground.address_of(base, pixel), self.y, 1, part * lanes)
                cells.append((parts[part], at, self.ground.index_of(place, channel, pixel)))
            mask = None if valid == lanes else f.first_lanes(lanes, valid)
            store.run(frame, cells, mask)
