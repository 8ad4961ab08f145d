"""The function around the register tiles: units of work, which tile where, reductions, stores.

A unit is a strip of neighbouring tiles times a block of output channels. Units are numbered so that
those which share weights or inputs in the cache follow each other:

    for each chunk of strips:  for each block of channels:  for each strip of the chunk
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from planish.base.shapes import Dim, ceildiv, dim_max, is_static, product
from planish.kernels.cpu.contraction import Contraction, Window
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.pack import Block, Columns, channel_blocks
from planish.kernels.cpu.reduction import Reduction
from planish.kernels.cpu.tile import LINE, Cursor, Tile, Touch
from planish.kernels.cpu.tile_epilogue import epilogue_of
from planish.kernels.cpu.tile_store import Patch, TileStore
from planish.kernels.cpu.tiling import Kind, Segment, Tiling, segments, tile_axis
from planish.kernels.kernel import Phase, Source
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Int, Module, Val, i64


@dataclass(frozen=True)
class Shape:
    """What a config says about the code.

    Attributes:
        mr: Pixels of a tile along the last axis, at most.
        rows: Pixels of a tile along the axis before it, at most.
        nr: Vectors of output channels of a tile, at most.
        strip: Tiles of a unit.
        chunk: Strips that share a pass over the weights; 0 for all.
        unroll: Reduction steps in the body of a loop.
        fetch: What to fetch into the cache: the sum of 1 for the next tile's inputs, 2 for this
            tile's outputs, 4 for the next block's weights.
    """

    mr: int
    rows: int
    nr: int
    strip: int
    chunk: int
    unroll: int
    fetch: int = 0


def emit_contraction(problem: Contraction, shape: Shape, target: CpuTarget, symbol: str) -> Source:
    """The source of a layer."""
    return _Writer(problem, shape, target, symbol).source()


def tile_pixels(problem: Contraction, shape: Shape) -> tuple[Tiling, ...]:
    """How the last axes are cut into tiles; () where the last one is a run-time size."""
    windows = problem.windows[-2:] if shape.rows > 1 else problem.windows[-1:]
    if not is_static(d for w in windows for d in (w.extent, w.size)):
        windows = problem.windows[-1:]
    if not is_static((windows[-1].extent, windows[-1].size)):
        return ()
    lengths = (shape.rows, shape.mr)[-len(windows) :]
    return tuple(map(tile_axis, windows, lengths))


def _border(window: Window) -> int:
    """Pixels before the first one all of whose taps may lie inside the input."""
    return -(-window.before // window.stride)


class _Writer:
    """Writes one phase."""

    def __init__(self, problem: Contraction, shape: Shape, target: CpuTarget, symbol: str) -> None:
        self.problem, self.shape, self.target, self.symbol = problem, shape, target, symbol
        self.size = problem.product.x.size
        self.module = Module()
        self.frame = Frame(self.module, symbol, problem.workload)
        self.f = self.frame.f
        self.blocks = channel_blocks(problem, target.lanes(), shape.nr)
        self.tilings = tile_pixels(problem, shape)
        self.static = bool(self.tilings)
        last = problem.windows[-1]
        self.tiles: Dim = dim_max(ceildiv(last.extent - _border(last), shape.mr), 1)
        outer: list[Dim] = [w.extent for w in problem.windows[:-1]]
        if self.static:
            self.tiles = self.tilings[-1].count
            if len(self.tilings) > 1:
                outer[-1] = self.tilings[0].count
        self.strips: tuple[Dim, ...] = (*outer, ceildiv(self.tiles, shape.strip))

    def source(self) -> Source:
        """The whole module."""
        strips = product(self.strips)
        units = strips * len(self.blocks)
        self.frame.prepare([*self.problem.dims(), *self.strips, strips, units, self.tiles])
        self.weights = self.frame.inputs[1]
        with self.frame.units() as unit:
            block, strip = self._place(unit, strips)
            self._unit(block, strip)
        return Source(self.module.text(), (Phase(self.symbol, units),))

    # ---- units ----------------------------------------------------------------------------------

    def _place(self, unit: Val, strips: Dim) -> tuple[Val, Val]:
        """The block of channels and the strip of a unit."""
        f, count = self.f, len(self.blocks)
        chunk = self.shape.chunk
        total = self.frame.size(strips)
        if chunk == 0 or (isinstance(strips, int) and chunk >= strips):
            return f.udiv(unit, total), f.urem(unit, total)
        if chunk == 1:
            return f.urem(unit, count), f.udiv(unit, count)
        number, rest = f.udiv(unit, chunk * count), f.urem(unit, chunk * count)
        length = f.min(i64(chunk), f.sub(total, f.mul(number, chunk)))
        return f.udiv(rest, length), f.add(f.mul(number, chunk), f.urem(rest, length))

    def _unit(self, block: Val, strip: Val) -> None:
        """One strip times one block of channels."""
        f, frame = self.f, self.frame
        group, weights, channel, output, form = self._block_facts(block)
        channels = self.size * self.problem.channels
        x = f.offset(
            frame.inputs[0],
            f.mul(group, f.mul(frame.size(self.problem.x_channel), channels)),
        )
        at = frame.split(strip, self.strips)
        first = f.mul(at[-1], self.shape.strip)
        last = f.min(f.add(first, self.shape.strip), frame.size(self.tiles))
        place = f.offset(frame.inputs[1], f.mul(weights, 4))
        for number, columns in enumerate(self._forms()):
            following = self._following(columns, place, strip)
            part = _Part(columns, x, place, following, output, channel)
            with f.when(f.icmp("eq", form, number)), f.loop(first, last) as loop:
                self._tile(part, [*at[:-1], loop.index])

    def _share(self, columns: Columns) -> int:
        """Bytes of the next block's weights that a step fetches, if all strips fetch all of it."""
        if not self.shape.fetch & 4:
            return 0
        strips, row = product(self.strips), columns.width * self.problem.product.column
        lines = 1
        if isinstance(strips, int):
            chunk = min(strips, self.shape.chunk or strips) * self.shape.strip
            lines = min(4, -(-row * self.shape.unroll // (chunk * LINE)))
        return -(-lines * LINE // self.shape.unroll)

    def _following(self, columns: Columns, weights: Val, strip: Val) -> Val:
        """The part of the next block's weights that a strip fetches.

        The strips of a chunk fetch one part after the other; when all is fetched, the last again.
        """
        f, share = self.f, self._share(columns)
        if share == 0:
            return weights
        steps, row = self.problem.steps, columns.width * self.problem.product.column
        number = f.urem(strip, self.shape.chunk) if self.shape.chunk else strip
        part = f.min(f.mul(number, self.shape.strip), i64(row // share))
        return f.offset(weights, f.add(f.mul(part, steps * share), steps * row))

    def _forms(self) -> list[Columns]:
        """The different ways in which blocks lie in vectors."""
        return list(dict.fromkeys(block.columns for block in self.blocks))

    def _block_facts(self, number: Val) -> list[Val]:
        """Group, offset of weights, first channel, output and form of a block."""
        forms = self._forms()

        def facts(block: Block) -> tuple[int, ...]:
            form = forms.index(block.columns)
            return block.group, block.weights, block.channel, block.output, form

        rows = list(map(facts, self.blocks))
        if len(rows) == 1:
            return [i64(fact) for fact in rows[0]]
        table = self.module.constant("i64", [str(fact) for row in rows for fact in row])
        row = self.f.offset(table, self.f.mul(number, 8 * len(rows[0])))
        found = []
        for column, values in enumerate(zip(*rows, strict=True)):
            same = len(set(values)) == 1
            at = self.f.offset(row, 8 * column)
            found.append(i64(values[0]) if same else self.f.load("i64", at))
        return found

    # ---- tiles ----------------------------------------------------------------------------------

    def _tile(self, part: _Part, at: Sequence[Val]) -> None:
        """The tile at a position: tile numbers along the tiled axes, indices along the others."""
        if not self.static:
            self._symbolic_tile(part, at)
            return
        f = self.f
        outer = list(at[: len(at) - len(self.tilings)])
        tiles = at[len(outer) :]
        starts = [
            f.add(f.mul(tile, tiling.short), f.min(tile, tiling.longer))
            for tile, tiling in zip(tiles, self.tilings, strict=True)
        ]
        for kinds in itertools.product(*(tiling.kinds for tiling in self.tilings)):
            condition = self._is_kind(kinds, tiles)
            if condition is None:
                self._static_tile(part, [*outer, *starts], kinds)
                continue
            with f.when(condition):
                self._static_tile(part, [*outer, *starts], kinds)

    def _is_kind(self, kinds: Sequence[Kind], tiles: Sequence[Val]) -> Val | None:
        """Whether the tile is of these kinds; None when every tile is."""
        f = self.f
        condition: Val | None = None
        for kind, tile, tiling in zip(kinds, tiles, self.tilings, strict=True):
            if len(tiling.kinds) == 1:
                continue
            either: Val | None = None
            for begin, end in kind.ranges:
                test = f.icmp("ult", f.sub(tile, begin), end - begin)
                either = test if either is None else f.binary("or", either, test)
            if either is not None:
                condition = either if condition is None else f.binary("and", condition, either)
        return condition

    def _static_tile(self, part: _Part, origin: Sequence[Val], kinds: Sequence[Kind]) -> None:
        outer = len(self.problem.windows) - len(kinds)
        lengths = (1,) * outer + tuple(kind.length for kind in kinds)
        runs = segments(tuple(kinds), self.problem)
        self._compute(part, Patch(tuple(origin), lengths), outer, runs)

    def _symbolic_tile(self, part: _Part, at: Sequence[Val]) -> None:
        """A tile of an axis whose extent is a run-time size.

            pixels   0 | 1 2 3 4 5 6 | 7 8 9 … 12 | 13 14 15 | 16      1 before, 6 a tile
            code   one |    whole    |   whole    |   half   | one

        The first tile also has the pixels before the first one whose taps all lie inside.
        """
        f, window, mr = self.f, self.problem.windows[-1], self.shape.mr
        border = _border(window)
        extent = self.frame.size(window.extent)
        begin = f.add(f.mul(at[-1], mr), border)
        stop = f.min(f.add(begin, mr), extent)
        here = f.min(begin, stop)
        inner = f.min(stop, self._inside_end(window)) if window.padded else stop
        with f.when(f.icmp("eq", f.sub(inner, here), mr)):
            self._row(part, at, here, mr)
        whole = f.icmp("eq", f.sub(inner, here), mr)
        rest = f.select(whole, f.add(here, mr), here)
        half = mr // 2
        if half > 1:
            with f.loop(rest, f.sub(inner, half - 1), half) as loop:
                self._row(part, at, loop.index, half)
            count = f.max(f.sub(inner, rest), i64(0))
            rest = f.add(rest, f.mul(f.udiv(count, half), half))
        before: Int = 0
        if border:
            first = f.icmp("eq", at[-1], 0)
            before = f.select(first, f.min(i64(border), stop), i64(0))
        with f.loop(0, f.add(f.sub(stop, rest), before)) as loop:
            index = f.add(f.sub(rest, before), loop.index)
            if border:
                early = f.icmp("slt", loop.index, before)
                index = f.select(early, loop.index, index)
            self._single(part, at, index)

    def _inside_end(self, window: Window) -> Val:
        """One past the last pixel whose taps all lie inside the input."""
        f = self.f
        reach = (window.taps - 1) * window.dilation + 1 - window.before
        last = f.max(f.sub(f.add(self.frame.size(window.size), window.stride), reach), i64(0))
        return f.udiv(last, window.stride)

    def _row(self, part: _Part, at: Sequence[Val], start: Val, length: int) -> None:
        """Neighbouring pixels of the last axis, all of whose taps along it lie inside the input."""
        window, outer = self.problem.windows[-1], len(self.problem.windows) - 1
        kind = Kind(length, (tuple(range(length)),) * window.taps, ())
        runs = segments((kind,), self.problem)
        patch = Patch((*at[:-1], start), (1,) * outer + (length,))
        self._compute(part, patch, outer, runs)

    def _single(self, part: _Part, at: Sequence[Val], index: Val) -> None:
        """One pixel, wherever it is."""
        if self.problem.joined:
            self._row(part, at, index, 1)
            return
        runs = segments((), self.problem)
        patch = Patch((*at[:-1], index), (1,) * len(at))
        self._compute(part, patch, len(at), runs)

    # ---- one tile -------------------------------------------------------------------------------

    def _compute(self, part: _Part, patch: Patch, looped: int, runs: Sequence[Segment]) -> None:
        """Reduce and store a tile.

        Args:
            part: The block of channels.
            patch: The pixels.
            looped: Number of leading axes whose taps are loops with run-time bounds.
            runs: The reduction over the other axes and the channels.
        """
        f, frame, windows = self.f, self.frame, self.problem.windows
        x = part.x
        for window, index in zip(windows, patch.origin, strict=True):
            first = f.sub(f.mul(index, window.stride), window.before)
            x = f.offset(x, f.mul(first, f.mul(frame.size(window.x), self.size)))
        loops = [
            (window, index)
            for window, index in zip(windows[:looped], patch.origin, strict=False)
            if window.taps > 1 or window.padded
        ]
        stores, sums = self._stores(part, patch)
        touched = stores[0].touched() if self.shape.fetch & 2 and len(stores) == 1 else ()
        tile = self._register_tile(part, patch, touched)
        start = Cursor(x, part.weights, part.following)
        sums = Reduction(frame, self.problem, tile, runs).reduce(sums, start, loops)
        if len(stores) == 1:
            stores[0].finish(sums)
            return
        for store in stores:
            with f.when(f.icmp("eq", part.output, store.output)):
                store.finish(sums)

    def _register_tile(self, part: _Part, patch: Patch, touched: tuple[Touch, ...]) -> Tile:
        """The register tile of some pixels, with what it fetches meanwhile."""
        if self.problem.taps > 1 or max(patch.lengths[:-1], default=1) > 1:
            self._touch_at_once(patch, touched)
            touched = ()
        pixels = tuple(map(self._input_offset, patch.pixels))
        ahead: Int = 0
        if self.shape.fetch & 1 and len(pixels) > 1:
            ahead = self.f.mul(pixels[1], len(pixels))
        share = self._share(part.columns)
        product, unroll = self.problem.product, self.shape.unroll
        return Tile(part.columns, pixels, product, unroll, ahead, share, touched)

    def _touch_at_once(self, patch: Patch, touched: tuple[Touch, ...]) -> None:
        """Fetch all lines that the end of the last row of a tile needs; the reduction is long."""
        for touch in touched:
            for pixel in range(patch.lengths[-1]):
                for line in range(touch.lines):
                    place = self.f.add(self.f.mul(touch.pixel, pixel), line * LINE)
                    self.f.prefetch(self.f.offset(touch.base, place), write=touch.write)

    def _stores(self, part: _Part, patch: Patch) -> tuple[list[TileStore], list[Val]]:
        """The ends of a tile for each output that the block may belong to, and its first sums."""
        f = self.f
        outputs = list(dict.fromkeys(b.output for b in self.blocks if b.columns == part.columns))
        epilogues = [epilogue_of(self.problem, output) for output in outputs]
        starts = {e.start[1] if e.start else None for e in epilogues}
        if len(starts) > 1:
            epilogues = [epilogue_of(self.problem, o, bias_first=False) for o in outputs]
        stores = [
            TileStore(
                self.frame,
                self.target,
                self.problem,
                output,
                part.columns,
                patch,
                part.channel,
                epilogue,
            )
            for output, epilogue in zip(outputs, epilogues, strict=True)
        ]
        pointer: Val | None = None
        for output, epilogue in zip(outputs, epilogues, strict=True):
            if epilogue.start is not None:
                other = self.frame.inputs[epilogue.start[0].tensor]
                this = f.icmp("eq", part.output, output)
                pointer = other if pointer is None else f.select(this, other, pointer)
        return stores, stores[0].start(pointer)

    def _input_offset(self, delta: tuple[int, ...]) -> Int:
        """Bytes from the input of a tile's first pixel to that of the pixel at a distance."""
        f = self.f
        total = i64(0)
        for distance, window in zip(delta, self.problem.windows, strict=True):
            step = f.mul(self.frame.size(window.x * window.stride), self.size)
            total = f.add(total, f.mul(step, distance))
        return total


@dataclass(frozen=True)
class _Part:
    """The block of channels that a tile computes, at run time."""

    columns: Columns
    x: Val  # input of its group
    weights: Val  # its packed weights
    following: Val  # what to fetch of the next block's weights
    output: Val
    channel: Val  # first channel within the output
