"""Writes the code of a depthwise convolution of bytes: units, rows, tiles, quads, the ending."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from planish.base.expr import Expr, Load, Temp, Var, loads_of, transform, walk
from planish.base.shapes import Dim, ceildiv, is_static, product
from planish.kernels.cpu.conv_depthwise import Columns, cut_row, inner_columns
from planish.kernels.cpu.depthwise_quads import Axis, Depthwise, Quads
from planish.kernels.cpu.epilogue import Bias, Store, split_bias, store_for
from planish.kernels.cpu.expression import ExprEmitter, Memory, memory_type
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.quads import (
    CHUNKS,
    interleave,
    load_bytes,
    multiply,
    natural_order,
    prepare,
    store_bytes,
)
from planish.kernels.cpu.requantise import (
    Rounding,
    at_most,
    bytes_of,
    halve,
    round_to_i32,
    take_rounding,
)
from planish.kernels.workload import Operand
from planish.targets.ir import Module, Val, i64, vector, zero

Done = Callable[[int, Sequence[Val]], None]
_UNIT_CYCLES = 2000  # below this much work a unit's own cost would show


@dataclass(frozen=True)
class _Block:
    """Where a unit's channels are.

    Attributes:
        number: Which block.
        channel: Its first channel.
        source: The image's first element of that channel.
        weights: The block's weights.
        count: Channels, of a vector's bytes.
    """

    number: Val
    channel: Val
    source: Val
    weights: Val
    count: int


@dataclass(frozen=True)
class _Place:
    """Where a tile is.

    Attributes:
        image: Index of the image.
        outer: Output index along each outer axis.
        row: First row.
        column: First column.
        rows: Rows.
        run: Columns, and which input columns they have.
    """

    image: Val
    outer: tuple[Val, ...]
    row: Val
    column: Val
    rows: int
    run: Columns


class DepthwiseWriter:
    """Writes the one phase."""

    def __init__(self, module: Module, symbol: str, d: Depthwise) -> None:
        self.frame = Frame(module, symbol, d.w)
        self.f, self.d = self.frame.f, d
        self.x: Operand = d.w.inputs[0]
        self.y: Operand = d.w.outputs[0]
        self.wide = d.t.isa == "avx512"
        self.sum_type = vector("i32", d.lanes)
        self.zeros = self._zeros(module, symbol)

    def _zeros(self, module: Module, symbol: str) -> Val:
        """The address of what tiles read in place of lines outside the input."""
        h, width = self.d.horizontal, self.d.tile.width
        columns = (width - 1) * h.stride + h.reach
        size = columns * self.step(h) + self.d.tile.bytes
        name = f"@{symbol}_zeros"
        module.constants.append(f"{name} = hidden global [{size} x i8] zeroinitializer, align 64")
        return Val("ptr", name)

    def step(self, axis: Axis) -> int:
        """Bytes from column to column of the input; 0 along no axis."""
        stride = 0 if axis.number < 0 else self.x.strides[axis.number + 2]
        return stride if isinstance(stride, int) else 0

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
                    block = _Block(number, channel, source, weights, count)
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

    def _rows(
        self, block: _Block, image: Val, outer: tuple[Val, ...], begin: Val, end: Val
    ) -> None:
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
        self, block: _Block, image: Val, outer: tuple[Val, ...], row: Val, rows: int
    ) -> None:
        """A row of tiles."""
        f, frame, h, width = self.f, self.frame, self.d.horizontal, self.d.tile.width
        if is_static((h.out, h.size)):
            for run in cut_row(h.line, width):
                with f.loop(0, run.count) as tile:
                    column = f.add(f.mul(tile.index, run.width), run.first)
                    self._tile(block, _Place(image, outer, row, column, rows, run))
            return
        first, stop = inner_columns(h.line)
        low, high = frame.size(first), frame.size(stop)
        whole = f.sub(high, f.urem(f.sub(high, low), width))
        inside = Columns(0, 0, width, (0, (width - 1) * h.stride + h.reach + 1))
        single = Columns(0, 0, 1, (0, h.reach + 1), checked=True)
        end = frame.size(h.out)
        for run, start, last in ((single, i64(0), low), (inside, low, whole), (single, whole, end)):
            with f.loop(start, last, run.width) as at:
                self._tile(block, _Place(image, outer, row, at.index, rows, run))

    # ---- a tile ----------------------------------------------------------------------------------

    def _tile(self, block: _Block, place: _Place) -> None:
        """Sum, finish and store the outputs of a tile, group of chunks by group of chunks."""
        f, d = self.f, self.d
        ending = _Ending(self, block, place) if d.rounding else None
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

            start = [ending.start(chunk) if ending else zero(self.sum_type) for chunk in chunks]
            self._sums(block, place, chunks, start, done)
        if not ending:
            self._store(block, place, kept)

    def _sums(
        self,
        block: _Block,
        place: _Place,
        chunks: tuple[int, ...],
        start: Sequence[Val],
        done: Done,
    ) -> None:
        """Sum some chunks of a tile; `done` takes each column of outputs as soon as it is."""
        outer, many = self.d.outer, place.rows * place.run.width

        def over(axis: int, source: Val, weights: Val, sums: Sequence[Val]) -> list[Val]:
            if axis == len(outer):
                return _Sums(self, block, place, chunks).run(source, weights, sums)
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
            one = _Sums(self, block, place, chunks, done)
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

    def index_of(self, place: _Place, channel: Val, pixel: tuple[int, int]) -> list[Val]:
        """The output index of a pixel of a tile."""
        f, d = self.f, self.d
        at = [i64(0)] * d.s.rank
        for axis, position in zip(d.outer, place.outer, strict=True):
            at[axis.number] = position
        at[d.vertical.number] = f.add(place.row, pixel[0])
        if d.horizontal.number >= 0:
            at[d.horizontal.number] = f.add(place.column, pixel[1])
        return [place.image, channel, *at]

    def address_of(self, base: Val, pixel: tuple[int, int]) -> Val:
        """The address of a pixel's output, given that of the tile's first."""
        d, place = self.d, self.frame.move(base, self.y, self.d.vertical.number + 2, pixel[0])
        if d.horizontal.number < 0:
            return place
        return self.frame.move(place, self.y, d.horizontal.number + 2, pixel[1])

    def _store(self, block: _Block, place: _Place, kept: dict[tuple[int, int], list[Val]]) -> None:
        """Any epilogue: the chunks become vectors of neighbouring channels."""
        f, frame, lanes = self.f, self.frame, self.d.lanes
        base = frame.at(frame.outputs[0], self.y, self.index_of(place, block.channel, (0, 0)))
        store: Store = store_for(self.d.w, self.d.t, 0, 1)
        for part in range(CHUNKS):
            valid = min(lanes, block.count - part * lanes)
            if valid <= 0:
                continue
            cells = []
            for pixel, parts in kept.items():
                parts[:] = parts if part else natural_order(f, parts)
                channel = f.add(block.channel, part * lanes)
                at = frame.move(self.address_of(base, pixel), self.y, 1, part * lanes)
                cells.append((parts[part], at, self.index_of(place, channel, pixel)))
            mask = None if valid == lanes else f.first_lanes(lanes, valid)
            store.run(frame, cells, mask)


class _Sums:
    """The products of one tile, one group of chunks and one tap of the outer axes.

    Sums lie as [column][row][chunk].
    """

    def __init__(
        self,
        writer: DepthwiseWriter,
        block: _Block,
        place: _Place,
        chunks: tuple[int, ...],
        done: Done | None = None,
    ) -> None:
        self.writer, self.block, self.place, self.chunks = writer, block, place, chunks
        self.f, self.frame, self.d, self.done = writer.f, writer.frame, writer.d, done
        self.quads: Quads = self.d.variants[place.rows]
        self.size = place.rows * len(chunks)  # sums of a column
        self.weights: dict[tuple[int, int, int], list[Val]] = {}

    def run(self, source: Val, weights: Val, start: Sequence[Val]) -> list[Val]:
        """The sums after this tap. Columns of the input from first to last, each read once."""
        sums, at_lines = list(start), self._lines(source)
        left = list(range(self.place.run.width))
        for column in range(*self.place.run.valid):
            users = self._users(column)
            if users:
                self._column(sums, at_lines, column, users, weights)
            while left and self._last(left[0]) <= column:
                self._finish(sums, left.pop(0))
        for i in left:
            self._finish(sums, i)
        return sums

    def _users(self, column: int) -> list[tuple[int, int]]:
        """(output column, tap) of the outputs that read an input column of the tile."""
        h = self.d.horizontal
        reads = [(i, column - i * h.stride) for i in range(self.place.run.width)]
        return [
            (i, away // h.dilation)
            for i, away in reads
            if 0 <= away <= h.reach and away % h.dilation == 0
        ]

    def _last(self, i: int) -> int:
        """The last input column that an output column reads."""
        return i * self.d.horizontal.stride + self.d.horizontal.reach

    def _finish(self, sums: Sequence[Val], i: int) -> None:
        if self.done is not None:
            self.done(i, sums[i * self.size : (i + 1) * self.size])

    def _column(
        self,
        sums: list[Val],
        at_lines: dict[int, Val],
        column: int,
        users: list[tuple[int, int]],
        weights: Val,
    ) -> None:
        """All products of an input column."""
        f, d = self.f, self.d
        inside = self._column_inside(column)
        for number, quad in enumerate(self.quads.lines):
            rows = [self._load(at_lines[line], column, inside) for line in quad]
            x = self.writer.x.dtype
            data = [prepare(f, d.dot, v, x) for v in interleave(f, rows, self.chunks)]
            for i, tap in users:
                for row, places in enumerate(self.quads.places):
                    pattern = places[number]
                    if pattern is None:
                        continue
                    which = d.patterns.index(pattern)
                    for n, chunk in enumerate(self.chunks):
                        cell = i * self.size + row * len(self.chunks) + n
                        filters = self._filters(weights, tap, which, chunk)
                        sums[cell] = multiply(f, d.dot, sums[cell], data[n], filters)

    def _lines(self, source: Val) -> dict[int, Val]:
        """The address of the tile's first column on each line; of zeros for lines outside."""
        f, frame, d, place = self.f, self.frame, self.d, self.place
        v, h = d.vertical, d.horizontal
        if h.number >= 0:
            column = f.sub(f.mul(place.column, h.stride), h.before)
            source = frame.move(source, self.writer.x, h.number + 2, column)
        start = f.sub(f.mul(place.row, v.stride), v.before)
        found = {}
        for line in (line for quad in self.quads.lines for line in quad):
            row = f.add(start, line)
            at = frame.move(source, self.writer.x, v.number + 2, row)
            if v.padded:
                at = f.select(f.icmp("ult", row, frame.size(v.size)), at, self.writer.zeros)
            found[line] = at
        return found

    def _column_inside(self, column: int) -> Val | None:
        if not self.place.run.checked:
            return None
        f, h = self.f, self.d.horizontal
        at = f.add(f.sub(f.mul(self.place.column, h.stride), h.before), column)
        return f.icmp("ult", at, self.frame.size(h.size))

    def _load(self, line: Val, column: int, inside: Val | None) -> Val:
        f, d = self.f, self.d
        at = f.offset(line, column * self.writer.step(d.horizontal))
        if inside is not None:
            at = f.select(inside, at, self.writer.zeros)
        return load_bytes(f, at, d.tile.bytes, self.block.count, masked=self.writer.wide)

    def _filters(self, weights: Val, tap: int, pattern: int, chunk: int) -> list[Val]:
        """The weights of a tap of the horizontal axis, once a tile."""
        f, d = self.f, self.d
        if (tap, pattern, chunk) not in self.weights:
            first = (tap * len(d.patterns) + pattern) * d.pattern_bytes
            self.weights[tap, pattern, chunk] = [
                f.load(
                    self.writer.sum_type,
                    f.offset(weights, first + (part * CHUNKS + chunk) * d.tile.bytes),
                    align=d.tile.bytes,
                )
                for part in range(d.dot.parts)
            ]
        return self.weights[tap, pattern, chunk]


class _Ending:
    """The epilogue of a tile in the order of the chunks, ended by packs."""

    def __init__(self, writer: DepthwiseWriter, block: _Block, place: _Place) -> None:
        self.writer, self.block, self.place = writer, block, place
        self.f, self.frame, self.d = writer.f, writer.frame, writer.d
        assert self.d.rounding is not None
        self.rounding: Rounding = self.d.rounding
        self.bias: Bias = split_bias(self.d.w, self.d.t, 0, lane_axis=1)
        assert self.bias.store.expr is not None
        self.loads: list[Load] = [
            load
            for load in dict.fromkeys(loads_of(self.bias.store.expr))
            if load.tensor in self.d.ordered
        ]
        self.value = transform(self._rounded(), self._numbered)
        self.operands = [
            Memory(pointer, operand.strides, operand.dtype)
            for pointer, operand in zip(self.frame.inputs, self.d.w.inputs, strict=True)
        ]
        self.read: dict[tuple[int, int], Val] = {}
        self.base: Val | None = None

    def _rounded(self) -> Expr:
        """What is rounded, without the operand that the sums start from."""
        expr = self.bias.store.expr
        made = take_rounding(expr) if expr is not None else None
        assert made is not None
        return made.value

    def _numbered(self, expr: Expr) -> Expr:
        """Loads by channel become temporaries 1, 2, …."""
        if isinstance(expr, Load) and expr in self.loads:
            return Temp(1 + self.loads.index(expr), (), expr.dtype)
        return expr

    def start(self, chunk: int) -> Val:
        """What a chunk's sums start from."""
        if self.bias.load is None:
            return zero(self.writer.sum_type)
        if self.bias.load.tensor in self.d.ordered:
            return self._constant(self.bias.load, chunk)
        return self.bias.start(self.frame, zero(self.writer.sum_type), self.block.channel)

    def _constant(self, load: Load, chunk: int) -> Val:
        """A chunk of a constant, as it lies in memory."""
        f, d, key = self.f, self.d, (load.tensor, chunk)
        if key not in self.read:
            size = load.dtype.size
            first = f.mul(self.block.number, d.tile.bytes * size)
            at = f.offset(self.frame.inputs[load.tensor], first)
            ty = vector(memory_type(load.dtype), d.lanes)
            self.read[key] = f.load(ty, f.offset(at, chunk * d.lanes * size))
        return self.read[key]

    def finish(
        self, pixel: tuple[int, int], chunks: tuple[int, ...], parts: Sequence[Val]
    ) -> list[Val]:
        """Go on with a pixel whose last parts are the sums of some chunks; at the end, store it.

        Returns:
            What of the pixel there is: i16 vectors of two chunks each, then rounded i32 vectors.
        """
        count = len(parts) - len(chunks)
        made = list(parts[:count])
        made += [self._round(pixel, *both) for both in zip(chunks, parts[count:], strict=True)]
        narrow = [part for part in made if part.element == "i16"]
        wide = made[len(narrow) :]
        while len(wide) > 1:
            narrow.append(halve(self.f, self.rounding, *wide[:2]))
            wide = wide[2:]
        if len(narrow) == CHUNKS // 2:
            self._store(pixel, bytes_of(self.f, self.rounding, narrow))
        return narrow + wide

    def _round(self, pixel: tuple[int, int], chunk: int, value: Val) -> Val:
        """A vector of sums as rounded i32, not yet narrowed."""
        emitter = ExprEmitter(
            self.f,
            self.d.t,
            self.frame.size,
            lanes=self.d.lanes,
            lane_var="o1",
            vars=self._variables(pixel),
            operands=self.operands,
            temps={0: value},
        )
        for number, load in enumerate(self.loads):
            raw = self._constant(load, chunk)
            emitter.temps[1 + number] = emitter.arithmetic.from_memory(raw, load.dtype)
        held = at_most(self.f, emitter.emit(self.value, exact=True), self.rounding.most)
        return round_to_i32(self.f, held)

    def _variables(self, pixel: tuple[int, int]) -> dict[str, Val]:
        """The output's index at a pixel, where anything reads it."""
        if not any(isinstance(part, Var) for part in walk(self.value)):
            return {}
        index = self.writer.index_of(self.place, self.block.channel, pixel)
        return {f"o{axis}": at for axis, at in enumerate(index)}

    def _store(self, pixel: tuple[int, int], value: Val) -> None:
        if self.base is None:
            first = self.writer.index_of(self.place, self.block.channel, (0, 0))
            self.base = self.frame.at(self.frame.outputs[0], self.writer.y, first)
        at = self.writer.address_of(self.base, pixel)
        store_bytes(self.f, value, at, self.block.count, masked=self.writer.wide)
