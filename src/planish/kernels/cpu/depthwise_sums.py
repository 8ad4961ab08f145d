"""The products of a depthwise convolution of bytes: a tile's input columns, each read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planish.kernels.cpu.depthwise_ground import Block, Ground, Place
from planish.kernels.cpu.depthwise_quads import Quads
from planish.kernels.cpu.quads import CHUNKS, interleave, load_bytes, multiply, prepare
from planish.targets.ir import Val

Done = Callable[[int, Sequence[Val]], None]


class Sums:
    """The products of one tile, one group of chunks and one tap of the outer axes.

    Sums lie as [column][row][chunk].
    """

    def __init__(
        self,
        ground: Ground,
        block: Block,
        place: Place,
        chunks: tuple[int, ...],
        done: Done | None = None,
    ) -> None:
        self.ground, self.block, self.place, self.chunks = ground, block, place, chunks
        self.f, self.frame, self.d, self.done = ground.f, ground.frame, ground.d, done
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
            x = self.ground.x.dtype
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
            source = frame.move(source, self.ground.x, h.number + 2, column)
        start = f.sub(f.mul(place.row, v.stride), v.before)
        found = {}
        for line in (line for quad in self.quads.lines for line in quad):
            row = f.add(start, line)
            at = frame.move(source, self.ground.x, v.number + 2, row)
            if v.padded:
                at = f.select(f.icmp("ult", row, frame.size(v.size)), at, self.ground.zeros)
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
        at = f.offset(line, column * self.ground.step(d.horizontal))
        if inside is not None:
            at = f.select(inside, at, self.ground.zeros)
        return load_bytes(f, at, d.tile.bytes, self.block.count, masked=self.ground.wide)

    def _filters(self, weights: Val, tap: int, pattern: int, chunk: int) -> list[Val]:
        """The weights of a tap of the horizontal axis, once a tile."""
        f, d = self.f, self.d
        if (tap, pattern, chunk) not in self.weights:
            first = (tap * len(d.patterns) + pattern) * d.pattern_bytes
            self.weights[tap, pattern, chunk] = [
                f.load(
                    self.ground.sum_type,
                    f.offset(weights, first + (part * CHUNKS + chunk) * d.tile.bytes),
                    align=d.tile.bytes,
                )
                for part in range(d.dot.parts)
            ]
        return self.weights[tap, pattern, chunk]
