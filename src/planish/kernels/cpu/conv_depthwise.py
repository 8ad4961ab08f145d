"""Depthwise f32 convolution over channels-last activations.

The lanes of a vector are channels. A tile of `rows` × `width` output pixels of one channel vector
stays in registers while the taps run over it; each input vector is loaded once for all the outputs
of the tile that need it. Padding costs no copy: which columns of a tile lie outside is known when
the code is made (each pattern has its own code), and the window's rows are clamped at run time.
Weights are packed as [channel vector][tap][lane].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, ceildiv, dim_max, dim_min, floordiv, is_static, product
from planish.kernels.conv_shape import ConvShape, conv_shape, refuse_depthwise
from planish.kernels.cpu.epilogue import accumulator_dtype, split_bias
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.template import template_kernel
from planish.kernels.kernel import Config, Phase, Source
from planish.kernels.workload import Workload, typical
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Module, Val, i64, vector, zero

_MAX_UNROLLED = 160  # multiply-adds in the straight-line code of one tile
_MAX_TAPS = 31  # along a row: each is written out
_UNIT_CYCLES = 2000  # below this much work a unit's own cost would show


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    del t
    if any(o.dtype is not DType.F32 for o in w.inputs[:2]):
        return "not f32 data and weights"
    if reason := refuse_depthwise(w):
        return reason
    if accumulator_dtype(w, 0) is not DType.F32:
        return "the sums are not f32"
    s = conv_shape(w)
    if s.kernel[-1] > _MAX_TAPS:
        return f"more than {_MAX_TAPS} taps along a row"
    if s.channels == 1:
        return "one channel has no lanes to fill"
    return None


def configs(w: Workload, t: CpuTarget) -> Iterable[Config]:
    """The points worth timing, likeliest first."""
    s = conv_shape(w)
    vectors = -(-s.channels // t.lanes())
    points: list[Config] = []
    for rows, width in _tiles(s, t):
        for block in dict.fromkeys(min(b, vectors) for b in (1, 4, vectors)):
            points.append((("rows", rows), ("width", width), ("block", block)))
    return sorted(points, key=lambda point: cost(w, point, t))


def _tiles(s: ConvShape, t: CpuTarget) -> list[tuple[int, int]]:
    """(rows, width) of tiles whose accumulators and one row of weights fit the registers."""
    room = t.registers - 2
    out = s.out[-1]
    tiles: list[tuple[int, int]] = []
    for rows, target in ((2, 8), (1, 8), (1, 12), (2, 4)):
        width = target if not isinstance(out, int) else _even_width(out, target)
        weights = s.kernel[-1] if rows == 1 else min(s.taps, 12)
        if t.registers < 32:
            weights = 2
        if rows * width + weights > room or (rows > 1 and not _may_block_rows(s, rows, width)):
            continue
        tiles.append((rows, width))
    return list(dict.fromkeys(tiles)) or [(1, 1)]


def _even_width(out: int, target: int) -> int:
    """The width near `target` that cuts a row into equal tiles as nearly as can be."""
    return -(-out // -(-out // target))


def _may_block_rows(s: ConvShape, rows: int, width: int) -> bool:
    if s.rank < 2 or s.taps * rows * width > _MAX_UNROLLED:
        return False
    return isinstance(s.out[-2], int) and s.out[-2] >= rows


def pack(w: Workload, c: Config, t: CpuTarget, array: np.ndarray) -> np.ndarray:
    """Weights [C, 1, *kernel] as [channel vector][tap][lane], the last vector filled with zeros."""
    del c
    s, lanes = conv_shape(w), t.lanes()
    flat = array.reshape(s.channels, s.taps)
    flat = np.pad(flat, [(0, -s.channels % lanes), (0, 0)])
    return np.ascontiguousarray(flat.reshape(-1, lanes, s.taps).transpose(0, 2, 1))


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds: multiply-adds or loads, whichever takes longer, at 3 GHz."""
    s, values = conv_shape(w), dict(c)
    rows, width = int(values["rows"]), int(values["width"])
    vectors = -(-s.channels // t.lanes())
    tiles = typical(s.batch) * typical(product(s.out)) / (rows * width)
    columns = (width - 1) * s.stride[-1] + (s.kernel[-1] - 1) * s.dilation[-1] + 1
    lines = s.taps // s.kernel[-1]
    if rows > 1:
        lines = (rows - 1) * s.stride[-2] + s.kernel[-2]
    loads = lines * (columns + s.kernel[-1]) + rows * width
    cycles = max(s.taps * rows * width, loads) + 12
    return tiles * vectors * cycles / 3e9 / min(t.threads, 64)


def write(w: Workload, c: Config, t: CpuTarget, symbol: str) -> Source:
    """Pure: the same arguments give the same text."""
    module = Module()
    writer = _Writer(Frame(module, symbol, w), w, c, t)
    units = writer.write()
    return Source(module.text(), (Phase(symbol, units),))


@dataclass(frozen=True)
class Columns:
    """Equal neighbouring tiles of an output row.

    Attributes:
        first: Column of the first tile.
        count: How many tiles.
        width: Output columns of each.
        valid: Half-open range of the window's input columns that lie inside the input.
        checked: Whether a column lies inside is found out at run time (tiles of one column).
    """

    first: int
    count: int
    width: int
    valid: tuple[int, int]
    checked: bool = False


def cut_row(s: ConvShape, width: int) -> list[Columns]:
    """An output row of known extent as tiles, neighbours of one pattern together."""
    out, size = s.out[-1], s.size[-1]
    assert isinstance(out, int) and isinstance(size, int)
    stride, reach = s.stride[-1], (s.kernel[-1] - 1) * s.dilation[-1]
    runs: list[Columns] = []
    for first in range(0, out, width):
        wide = min(width, out - first)
        start = first * stride - s.before[-1]
        span = (wide - 1) * stride + reach + 1
        valid = (max(0, min(span, -start)), max(0, min(span, size - start)))
        last = runs[-1] if runs else None
        if last and (last.width, last.valid) == (wide, valid):
            runs[-1] = Columns(last.first, last.count + 1, wide, valid)
        else:
            runs.append(Columns(first, 1, wide, valid))
    return runs


def inner_columns(s: ConvShape) -> tuple[Dim, Dim]:
    """Half-open range of the output columns whose taps all lie inside the input."""
    stride, reach = s.stride[-1], (s.kernel[-1] - 1) * s.dilation[-1]
    first = dim_min(-(-s.before[-1] // stride), s.out[-1])
    stop = floordiv(s.size[-1] + s.before[-1] - reach - 1, stride) + 1
    return first, dim_max(dim_min(stop, s.out[-1]), first)


class _Writer:
    """Writes the one phase of a depthwise convolution."""

    def __init__(self, frame: Frame, w: Workload, c: Config, t: CpuTarget) -> None:
        self.frame, self.f, self.w, self.t = frame, frame.f, w, t
        self.s = conv_shape(w)
        values = dict(c)
        self.rows, self.width = int(values["rows"]), int(values["width"])
        self.block = int(values["block"])
        self.lanes = t.lanes()
        self.ty = vector("float", self.lanes)
        self.vectors = -(-self.s.channels // self.lanes)
        self.lead = self.s.out[:-1]  # the output axes before the row's own
        self.bias = split_bias(w, t, 0, lane_axis=1)
        self.first = i64(0)  # input column of the tile's first tap

    def write(self) -> Dim:
        """Write the function; gives its number of units."""
        s, f, frame = self.s, self.f, self.frame
        row_blocks: list[Dim] = list(self.lead)
        band = 1
        if self.lead:
            band = self._band()
            row_blocks[-1] = ceildiv(self.lead[-1], band)
        blocks = -(-self.vectors // self.block)
        extents = (s.batch, blocks, *row_blocks)
        frame.prepare((*extents, *inner_columns(s)))
        with frame.units() as unit:
            image, channel_block, *at = frame.split(unit, extents)
            first = f.mul(channel_block, self.block)
            stop = f.min(f.add(first, self.block), self.vectors)
            vectors = (first, stop)
            if not self.lead:
                self._row(image, [], vectors, 1)
            else:
                begin = f.mul(at[-1], band)
                end = f.min(f.add(begin, band), frame.size(self.lead[-1]))
                whole = f.sub(end, f.urem(f.sub(end, begin), self.rows))
                with f.loop(begin, whole, self.rows) as h:
                    self._row(image, [*at[:-1], h.index], vectors, self.rows)
                if self.rows > 1:
                    with f.loop(whole, end) as h:
                        self._row(image, [*at[:-1], h.index], vectors, 1)
        return product(extents)

    def _band(self) -> int:
        """Output rows of a unit: enough work to pay for its start, few enough to share out."""
        s = self.s
        out = self.lead[-1]
        if not isinstance(out, int):
            return self.rows
        width = s.out[-1] if isinstance(s.out[-1], int) else 64
        row_cycles = max(1, width * s.taps * self.block)
        band = self.rows * -(-_UNIT_CYCLES // (row_cycles * self.rows))
        return max(self.rows, min(band, out))

    def _row(self, image: Val, at: list[Val], vectors: tuple[Val, Val], rows: int) -> None:
        """`rows` output rows from row index `at` on, for a range of channel vectors."""
        s, f = self.s, self.f
        if not is_static((s.out[-1], s.size[-1])):
            self._symbolic_row(image, at, vectors, rows)
            return
        for run in cut_row(s, self.width):
            with f.loop(0, run.count) as tile:
                column = f.add(f.mul(tile.index, run.width), run.first)
                for v, mask in self._vectors(vectors):
                    self._tile(image, [*at, column], v, mask, rows, run)

    def _symbolic_row(self, image: Val, at: list[Val], vectors: tuple[Val, Val], rows: int) -> None:
        """The same for rows of run-time extent: tiles inside, checked columns at both ends."""
        s, f, frame = self.s, self.f, self.frame
        stride, reach = s.stride[-1], (s.kernel[-1] - 1) * s.dilation[-1]
        first, stop = inner_columns(s)
        low, high = frame.size(first), frame.size(stop)
        whole = f.sub(high, f.urem(f.sub(high, low), self.width))
        inside = Columns(0, 0, self.width, (0, (self.width - 1) * stride + reach + 1))
        single = Columns(0, 0, 1, (0, reach + 1), checked=True)
        end = frame.size(s.out[-1])
        for run, start, last in ((single, i64(0), low), (inside, low, whole), (single, whole, end)):
            with f.loop(start, last, run.width) as column:
                for v, mask in self._vectors(vectors):
                    self._tile(image, [*at, column.index], v, mask, rows, run)

    def _vectors(self, vectors: tuple[Val, Val]) -> Iterator[tuple[Val, Val | None]]:
        """Loops over channel vectors with the mask of each: all lanes, or those that exist."""
        f, first, stop = self.f, *vectors
        rest = self.s.channels % self.lanes
        if rest and self.t.vector_bytes == 64:
            with f.loop(first, stop) as v:
                left = f.sub(self.s.channels, f.mul(v.index, self.lanes))
                yield v.index, f.first_lanes(self.lanes, left)
            return
        whole = self.s.channels // self.lanes
        with f.loop(first, f.min(stop, whole)) as v:
            yield v.index, None
        if rest:
            with f.when(f.icmp("sgt", stop, whole)):
                yield Val("i64", str(whole), whole), f.first_lanes(self.lanes, rest)

    def _tile(
        self, image: Val, at: list[Val], v: Val, mask: Val | None, rows: int, run: Columns
    ) -> None:
        """One tile: zero the accumulators, run over the taps, store."""
        s, f, frame = self.s, self.f, self.frame
        x, y, weights = self.w.inputs[0], self.w.outputs[0], frame.inputs[1]
        sums = [[f.variable(self.ty) for _ in range(run.width)] for _ in range(rows)]
        channel = f.mul(v, self.lanes)
        start = self.bias.start(frame, zero(self.ty), channel, mask)
        for row in sums:
            for one in row:
                f.store(start, one, align=64)
        taps = f.offset(weights, f.mul(v, s.taps * self.lanes * 4))
        source = frame.at(frame.inputs[0], x, [image, channel])
        self.first = f.sub(f.mul(at[-1], s.stride[-1]), s.before[-1])
        source = frame.move(source, x, s.rank + 1, self.first)
        looped = len(self.lead) - (rows > 1)
        with ExitStack() as loops:
            for axis in range(looped):
                source, taps = self._enter_axis(loops, axis, at[axis], source, taps)
            if rows == 1:
                self._taps_of_line(source, taps, [(sums[0], 0)], mask, run)
            else:
                self._unroll_lines(source, taps, at[-2], sums, mask, run)
        target = frame.at(frame.outputs[0], y, [image, channel, *at])
        cells = []
        for o, row in enumerate(sums):
            for i, one in enumerate(row):
                place = frame.move(target, y, s.rank + 1, i)
                index = [image, channel, *at[:-1], f.add(at[-1], i)]
                if o:
                    place = frame.move(place, y, s.rank, o)
                    index[-2] = f.add(at[-2], o)
                cells.append((f.load(self.ty, one, align=64), place, index))
        self.bias.store.run(frame, cells, mask)

    def _enter_axis(
        self, loops: ExitStack, axis: int, at: Val, source: Val, taps: Val
    ) -> tuple[Val, Val]:
        """Open a loop over the taps of an axis that lie inside the input; move both pointers."""
        s, f, frame = self.s, self.f, self.frame
        kernel, dilation, before = s.kernel[axis], s.dilation[axis], s.before[axis]
        start = f.sub(f.mul(at, s.stride[axis]), before)
        low, high = Val("i64", "0", 0), Val("i64", str(kernel), kernel)
        if s.padded(axis):
            low = f.udiv(f.add(f.max(f.sub(0, start), 0), dilation - 1), dilation)
            room = f.max(f.sub(frame.size(s.size[axis]), start), 0)
            high = f.min(f.udiv(f.add(room, dilation - 1), dilation), kernel)
        tap = loops.enter_context(f.loop(low, high)).index
        line = f.add(start, f.mul(tap, dilation))
        below = s.taps
        for extent in s.kernel[: axis + 1]:
            below //= extent
        taps = f.offset(taps, f.mul(tap, below * self.lanes * 4))
        return frame.move(source, self.w.inputs[0], axis + 2, line), taps

    def _unroll_lines(
        self,
        source: Val,
        taps: Val,
        at: Val,
        sums: list[list[Val]],
        mask: Val | None,
        run: Columns,
    ) -> None:
        """The input lines under several output rows, one after the other, each loaded once."""
        s, f, frame = self.s, self.f, self.frame
        axis = s.rank - 2
        stride, dilation, kernel = s.stride[axis], s.dilation[axis], s.kernel[axis]
        start = f.sub(f.mul(at, stride), s.before[axis])
        for line in range((len(sums) - 1) * stride + (kernel - 1) * dilation + 1):
            users = [
                (row, (line - o * stride) // dilation)
                for o, row in enumerate(sums)
                if (line - o * stride) % dilation == 0
                and 0 <= (line - o * stride) // dilation < kernel
            ]
            if not users:
                continue
            position = f.add(start, line)
            place = frame.move(source, self.w.inputs[0], axis + 2, position)
            with ExitStack() as guard:
                if s.padded(axis):
                    size = frame.size(s.size[axis])
                    guard.enter_context(f.when(f.icmp("ult", position, size)))
                self._taps_of_line(place, taps, users, mask, run)

    def _taps_of_line(
        self,
        source: Val,
        taps: Val,
        users: list[tuple[list[Val], int]],
        mask: Val | None,
        run: Columns,
    ) -> None:
        """Multiply-adds of one input line: for each of `users` (output row, kernel row)."""
        s, f, x = self.s, self.f, self.w.inputs[0]
        stride, dilation, kernel = s.stride[-1], s.dilation[-1], s.kernel[-1]
        filters = {
            (line, k): f.load(
                self.ty, f.offset(taps, (line * kernel + k) * self.lanes * 4), align=4 * self.lanes
            )
            for _, line in users
            for k in range(kernel)
        }
        for column in range(*run.valid):
            pairs = [
                (i, (column - i * stride) // dilation)
                for i in range(run.width)
                if (column - i * stride) % dilation == 0
                and 0 <= (column - i * stride) // dilation < kernel
            ]
            if not pairs:
                continue
            place = self.frame.move(source, x, s.rank + 1, column)
            with ExitStack() as guard:
                if run.checked:
                    inside = f.icmp("ult", f.add(self.first, column), self.frame.size(s.size[-1]))
                    guard.enter_context(f.when(inside))
                value = self._load(place, mask)
                for row, line in users:
                    for i, k in pairs:
                        old = f.load(self.ty, row[i], align=64)
                        new = f.fma(value, filters[line, k], old, fused=self.t.fma)
                        f.store(new, row[i], align=64)

    def _load(self, place: Val, mask: Val | None) -> Val:
        if mask is None:
            return self.f.load(self.ty, place)
        return self.f.masked_load(self.ty, place, mask)


KERNEL = template_kernel(
    "cpu.conv_f32.depthwise",
    "conv",
    refuse=refuse,
    configs=configs,
    write=write,
    pack=pack,
    cost=cost,
)
