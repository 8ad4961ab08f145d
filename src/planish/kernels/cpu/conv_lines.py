"""Convolution and transposed convolution of any type, rank, stride and layout, line by line.

A unit is one line of the output (all of its last axis) times a block of output channels. Along the
line, outputs fall into phases whose taps read a sliding window of inputs:

    convolution            output u           reads input  stride·u + k·dilation - pad
    transposed, phase r    output s·u + r - p reads input  u + (r - k·d) / s  if whole

Inside the line, a register tile of pixels × channels runs over the taps; at its ends, where some
taps have no input, pixels are taken one by one with every tap checked. The other axes check each
tap once a line. Weights are packed as [output][group][block][tap][c][o] in the accumulator's type:
when the plan is built if they are constant, else by a phase of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, ceildiv, dim_max, dim_min, product
from planish.kernels.cpu.arithmetic import Arithmetic, register_type
from planish.kernels.cpu.epilogue import Bias, Cell, accumulator_dtype, split_bias
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.gemm_tile import GemmTile, multiply
from planish.kernels.cpu.narrow import NARROW
from planish.kernels.cpu.vector_math import VectorMath
from planish.kernels.kernel import Phase, Source
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Module, Val, element_bytes, i64, vector, zero

_UNROLLED_TAPS = 7  # of the last axis; more of them are a loop


@dataclass(frozen=True)
class _PhaseOfLine:
    """Outputs of a line that share their taps: output step·u + first reads step_in·u + offset.

    Attributes:
        first: Output of u = 0.
        step: Outputs from u to u + 1.
        step_in: Inputs from u to u + 1.
        taps: (kernel index, input of u = 0) of each tap.
    """

    first: int
    step: int
    step_in: int
    taps: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LineShape:
    """The tile of a line.

    Attributes:
        mr: Pixels.
        nv: Vectors of output channels.
    """

    mr: int
    nv: int


@dataclass(frozen=True)
class _Share:
    """Output channels of one output: whole groups of it, or a part of the only group.

    Attributes:
        output: Which output.
        feature: Its first channel among all outputs' channels.
        groups: Groups.
        width: Channels of each group.
        blocks: Blocks of a group.
        unit: Number of its first block among all blocks.
    """

    output: int
    feature: int
    groups: int
    width: int
    blocks: int
    unit: int


class LineWriter:
    """Writes the phases of a `conv` or `conv_transpose` workload."""

    def __init__(self, w: Workload, shape: LineShape, t: CpuTarget, symbol: str) -> None:
        self.w, self.t, self.shape, self.symbol = w, t, shape, symbol
        self.x, self.weights = w.inputs[0], w.inputs[1]
        self.transposed = w.op == "conv_transpose"
        self.group = int(str(w.attr("group")))
        self.channels = int(str(self.x.shape[1])) // self.group
        self.kernel = tuple(int(str(k)) for k in self.weights.shape[2:])
        self.rank = len(self.kernel)
        self.strides, self.dilations = w.ints("strides"), w.ints("dilations")
        self.before = w.ints("pads")[: self.rank]
        self.taps = int(np.prod(self.kernel))
        self.out = w.outputs[0].shape[2:]
        self.sum = accumulator_dtype(w, 0)
        self.element = register_type(self.sum)
        self.size = element_bytes(self.element)
        counts = [int(str(o.shape[1])) for o in w.outputs]
        self.per_group = sum(counts) // self.group
        self.lanes = lanes_for(w, t)
        self.row = shape.nv * self.lanes
        self.shares = self._shares(counts)
        self.block_size = self.taps * self.channels * self.row  # elements of a packed block
        self.module = Module()

    def _shares(self, counts: Sequence[int]) -> list[_Share]:
        shares: list[_Share] = []
        feature = unit = 0
        for output, count in enumerate(counts):
            groups = max(1, count // self.per_group) if self.group > 1 else 1
            width = count // groups
            blocks = -(-width // self.row)
            shares.append(_Share(output, feature, groups, width, blocks, unit))
            feature, unit = feature + count, unit + groups * blocks
        return shares

    @property
    def blocks(self) -> int:
        """Blocks of output channels, all outputs together."""
        last = self.shares[-1]
        return last.unit + last.groups * last.blocks

    # ---- weights --------------------------------------------------------------------------------

    def pack(self, array: np.ndarray) -> np.ndarray:
        """Constant weights as the tile reads them."""
        kind = np.dtype({"float": "f4", "double": "f8"}.get(self.element, self.sum.numpy))
        if self.transposed:
            array = array.reshape(self.group, self.channels, self.per_group, -1)
            flat = array.transpose(0, 2, 3, 1).reshape(-1, self.taps, self.channels)
        else:
            flat = array.reshape(array.shape[0], self.channels, -1).transpose(0, 2, 1)
        packed = np.zeros((self.blocks, self.taps, self.channels, self.row), kind)
        for share in self.shares:
            for number in range(share.groups * share.blocks):
                group, block = divmod(number, share.blocks)
                start = block * self.row
                used = min(self.row, share.width - start)
                first = share.feature + group * share.width + start
                part = flat[first : first + used].transpose(1, 2, 0)
                packed[share.unit + number, :, :, :used] = part
        return packed

    def _pack_phase(self, symbol: str) -> Dim:
        """Write the phase that packs run-time weights to the shared scratch."""
        frame = self._begin(symbol)
        f, weights = frame.f, self.weights
        with frame.units() as block:
            into = f.offset(frame.shared, f.mul(block, self.block_size * self.size))
            for share in self.shares:
                count = share.groups * share.blocks
                number = f.sub(block, share.unit)
                with f.when(f.icmp("ult", number, count)):
                    group, part = f.udiv(number, share.blocks), f.urem(number, share.blocks)
                    start = f.mul(part, self.row)
                    used = f.min(f.sub(share.width, start), i64(self.row))
                    first = f.add(f.add(f.mul(group, share.width), start), share.feature)
                    with f.loop(0, self.taps) as tap, f.loop(0, self.channels) as c:
                        at = frame.split(tap.index, self.kernel)
                        row = f.add(f.mul(tap.index, self.channels), c.index)
                        row_at = f.offset(into, f.mul(row, self.row * self.size))
                        with f.loop(0, used) as o:
                            feature = f.add(first, o.index)
                            index = self._weight_index(feature, c.index)
                            source = frame.at(frame.inputs[1], weights, [*index, *at])
                            value = self._read(weights.dtype, source)
                            f.store(value, f.offset(row_at, f.mul(o.index, self.size)))
        return self.blocks

    def _weight_index(self, feature: Val, channel: Val) -> list[Val]:
        """The first two indices of a weight."""
        f = self.f
        if not self.transposed:
            return [feature, channel]
        group = f.udiv(feature, self.per_group)
        row = f.add(f.mul(group, self.channels), channel)
        return [row, f.urem(feature, self.per_group)]

    def _read(self, dtype: DType, pointer: Val) -> Val:
        """An element in the accumulator's type."""
        raw = self.f.load("i16" if dtype in NARROW else dtype.llvm, pointer)
        return self.arithmetic.cast(self.arithmetic.from_memory(raw, dtype), dtype, self.sum)

    # ---- phases ---------------------------------------------------------------------------------

    def source(self) -> Source:
        """The whole module."""
        phases, scratch = [], 0
        if not self.weights.const:
            phases.append(Phase(self.symbol + "w", self._pack_phase(self.symbol + "w")))
            scratch = self.blocks * self.block_size * self.size
        phases.append(Phase(self.symbol, self._main_phase()))
        return Source(self.module.text(), tuple(phases), scratch)

    def _begin(self, symbol: str) -> Frame:
        self.frame = Frame(self.module, symbol, self.w)
        self.f = self.frame.f
        self.arithmetic = Arithmetic(VectorMath(self.f, self.t))
        return self.frame

    def _main_phase(self) -> Dim:
        """Write the phase that multiplies; gives its units."""
        frame = self._begin(self.symbol)
        lines = self.out[:-1]
        extents = (self.blocks, self.x.shape[0], *lines)
        self.phases = self._phases_of_line()
        frame.prepare([*extents, *(d for p in self.phases for d in self._bounds(p))])
        packed = frame.inputs[1] if self.weights.const else frame.shared
        with frame.units() as unit:
            block, image, *at = frame.split(unit, extents)
            weights = frame.f.offset(packed, frame.f.mul(block, self.block_size * self.size))
            for share in self.shares:
                self._share(share, block, weights, image, at)
        return product(extents)

    def _share(
        self, share: _Share, block: Val, weights: Val, image: Val, at: Sequence[Val]
    ) -> None:
        """The line, where its block belongs to this share."""
        f, frame = self.f, self.frame
        number = f.sub(block, share.unit)
        with ExitStack() as guard:
            if len(self.shares) > 1:
                inside = f.icmp("ult", number, share.groups * share.blocks)
                guard.enter_context(f.when(inside))
            group, part = f.udiv(number, share.blocks), f.urem(number, share.blocks)
            channel = f.add(f.mul(group, share.width), f.mul(part, self.row))
            first = f.mul(group if self.group > 1 else i64(0), self.channels)
            if self.group > 1:
                first = f.add(first, share.feature // self.per_group * self.channels)
            source = frame.at(frame.inputs[0], self.x, [image, first])
            last = share.blocks - 1
            for tail in (False, True):
                start, stop = (last, share.blocks) if tail else (0, last)
                if start == stop:
                    continue
                used = share.width - last * self.row if tail else self.row
                with f.when(f.icmp("ult", f.sub(part, start), stop - start)):
                    _Line(self, share, used, weights, source, channel, image, list(at)).write()

    # ---- where taps are -------------------------------------------------------------------------

    def _phases_of_line(self) -> list[_PhaseOfLine]:
        """The phases of the last axis."""
        stride, dilation, before = self.strides[-1], self.dilations[-1], self.before[-1]
        taps = range(self.kernel[-1])
        if not self.transposed:
            reads = tuple((k, k * dilation - before) for k in taps)
            return [_PhaseOfLine(0, 1, stride, reads)]
        return [
            _PhaseOfLine(
                r - before,
                stride,
                1,
                tuple(
                    (k, (r - k * dilation) // stride)
                    for k in taps
                    if (r - k * dilation) % stride == 0
                ),
            )
            for r in range(stride)
        ]

    def _bounds(self, p: _PhaseOfLine) -> tuple[Dim, Dim, Dim, Dim]:
        """First u, first and last + 1 u whose taps all have inputs, last + 1 u."""
        low = -(p.first // p.step) if p.first < 0 else 0
        high = dim_max(ceildiv(self.out[-1] - p.first, p.step), low)
        if not p.taps:
            return low, low, high, high
        nearest = min(offset for _, offset in p.taps)
        farthest = max(offset for _, offset in p.taps)
        first = max(low, -(nearest // p.step_in))
        last = ceildiv(self.x.shape[-1] - farthest, p.step_in)
        start = dim_min(first, high)
        return low, start, dim_max(dim_min(last, high), start), high

    def tap_of(self, axis: int, at: Val, tap: Val) -> tuple[Val, Val]:
        """(input index, an i1: there is such an input) of a tap of an axis for an output index."""
        f, size = self.f, self.frame.size(self.x.shape[axis + 2])
        stride, dilation, before = self.strides[axis], self.dilations[axis], self.before[axis]
        if not self.transposed:
            place = f.sub(f.add(f.mul(at, stride), f.mul(tap, dilation)), before)
            return place, f.icmp("ult", place, size)
        reach = f.sub(f.add(at, before), f.mul(tap, dilation))
        place = f.udiv(reach, stride)
        exists = f.binary("and", f.icmp("sge", reach, 0), f.icmp("ult", place, size))
        if stride > 1:
            whole = f.icmp("eq", f.urem(reach, stride), 0)
            exists = f.binary("and", exists, whole)
        return place, exists


class _Line:
    """One line of the output times one block of channels."""

    def __init__(
        self,
        writer: LineWriter,
        share: _Share,
        used: int,
        weights: Val,
        source: Val,
        channel: Val,
        image: Val,
        at: list[Val],
    ) -> None:
        self.writer, self.share, self.weights, self.source = writer, share, weights, source
        self.channel, self.image, self.at = channel, image, at
        self.f, self.frame, self.lanes = writer.f, writer.frame, writer.lanes
        self.vectors = -(-used // self.lanes)
        rest = used % self.lanes
        self.mask = self.f.first_lanes(self.lanes, rest) if rest else None
        self.ty = vector(writer.element, self.lanes)
        self.bias: Bias = split_bias(writer.w, writer.t, share.output, lane_axis=1)

    def write(self) -> None:
        """Every phase: the ends pixel by pixel, the inside tile by tile."""
        f, mr = self.f, self.writer.shape.mr
        for phase in self.writer.phases:
            low, start, stop, high = map(self.frame.size, self.writer._bounds(phase))
            whole = f.sub(stop, f.urem(f.sub(stop, start), mr))
            self._pixels(phase, low, start)
            if not (start.literal is not None and start.literal == whole.literal):
                with f.loop(start, whole, mr) as u:
                    self._tile(phase, u.index, mr, checked=False)
            self._pixels(phase, whole, high)

    def _pixels(self, phase: _PhaseOfLine, start: Val, stop: Val) -> None:
        if start.literal is not None and start.literal == stop.literal:
            return
        with self.f.loop(start, stop) as u:
            self._tile(phase, u.index, 1, checked=True)

    def _tile(self, phase: _PhaseOfLine, u: Val, pixels: int, *, checked: bool) -> None:
        """`pixels` outputs of a phase from u on."""
        f, frame, writer = self.f, self.frame, self.writer
        sums = [f.variable(self.ty) for _ in range(pixels * self.vectors)]
        for v in range(self.vectors):
            edge = self.mask if v == self.vectors - 1 else None
            lane = f.add(self.channel, v * self.lanes)
            start = self.bias.start(frame, zero(self.ty), lane, edge)
            for p in range(pixels):
                f.store(start, sums[p * self.vectors + v], align=64)
        with ExitStack() as taps:
            source, first = self.source, i64(0)
            for axis in range(writer.rank - 1):
                tap = taps.enter_context(f.loop(0, writer.kernel[axis])).index
                place, exists = writer.tap_of(axis, self.at[axis], tap)
                taps.enter_context(f.when(exists))
                source = frame.move(source, writer.x, axis + 2, place)
                first = f.add(f.mul(first, writer.kernel[axis]), tap)
            first = f.mul(first, writer.kernel[-1])
            with ExitStack() as line:
                for k, offset in self._line_taps(phase, line):
                    place = f.add(f.mul(u, phase.step_in), offset)
                    with ExitStack() as guard:
                        if checked:
                            inside = f.icmp("ult", place, frame.size(writer.x.shape[-1]))
                            guard.enter_context(f.when(inside))
                        at = frame.move(source, writer.x, writer.rank + 1, place)
                        self._tap(sums, at, f.add(first, k), pixels, phase.step_in)
        self._store(phase, u, sums, pixels)

    def _line_taps(self, phase: _PhaseOfLine, line: ExitStack) -> list[tuple[Val, Val]]:
        """(kernel index, input of u = 0) of the last axis's taps: all, or the one of a loop.

        Both grow evenly from tap to tap.
        """
        taps = phase.taps
        if len(taps) <= _UNROLLED_TAPS:
            return [(i64(k), i64(offset)) for k, offset in taps]
        f = self.f
        (k, offset), (next_k, next_offset) = taps[:2]
        n = line.enter_context(f.loop(0, len(taps))).index
        return [(f.add(f.mul(n, next_k - k), k), f.add(f.mul(n, next_offset - offset), offset))]

    def _tap(self, sums: Sequence[Val], at: Val, number: Val, pixels: int, step: int) -> None:
        """All channels of one tap."""
        f, frame, writer = self.f, self.frame, self.writer
        size = writer.x.dtype.size
        pixel = f.mul(frame.size(writer.x.strides[-1]), size * step)
        same = writer.x.dtype is writer.sum and writer.sum not in NARROW
        tile = GemmTile(
            tuple(f.mul(pixel, p) for p in range(pixels)),
            self.vectors,
            self.lanes,
            writer.element,
            fused=writer.t.fma,
            read=None if same else lambda place: writer._read(writer.x.dtype, place),
        )
        row = writer.row * writer.size
        b = f.offset(self.weights, f.mul(number, writer.channels * row))
        a_step = f.mul(frame.size(writer.x.strides[1]), size)
        old = [f.load(self.ty, one, align=64) for one in sums]
        new = multiply(f, tile, old, (at, a_step), (b, row), writer.channels)
        for value, one in zip(new, sums, strict=True):
            f.store(value, one, align=64)

    def _store(self, phase: _PhaseOfLine, u: Val, sums: Sequence[Val], pixels: int) -> None:
        f, frame = self.f, self.frame
        out = frame.workload.outputs[self.share.output]
        position = f.add(f.mul(u, phase.step), phase.first)
        base = frame.at(
            frame.outputs[self.share.output], out, [self.image, self.channel, *self.at, position]
        )
        cells: list[list[Cell]] = [[], []]
        for p, v in itertools.product(range(pixels), range(self.vectors)):
            place = frame.move(base, out, len(out.shape) - 1, p * phase.step)
            place = frame.move(place, out, 1, v * self.lanes)
            index = [
                self.image,
                f.add(self.channel, v * self.lanes),
                *self.at,
                f.add(position, p * phase.step),
            ]
            edge = self.mask is not None and v == self.vectors - 1
            value = f.load(self.ty, sums[p * self.vectors + v], align=64)
            cells[edge].append((value, place, index))
        for part, lanes in zip(cells, (None, self.mask), strict=True):
            self.bias.store.run(frame, part, lanes)


def lanes_for(w: Workload, t: CpuTarget) -> int:
    """Lanes of a vector of accumulators: no more than a group's channels need."""
    element = register_type(accumulator_dtype(w, 0))
    counts = [int(str(o.shape[1])) for o in w.outputs]
    group = int(str(w.attr("group")))
    widest = max(counts) if group == 1 else sum(counts) // group
    return min(t.lanes(element_bytes(element)), 1 << (widest - 1).bit_length())


def refuse_lines(w: Workload) -> str | None:
    """Why the line kernels cannot run a workload; None when they can."""
    x, weights = w.inputs[:2]
    fixed = (*weights.shape, x.shape[1], *(o.shape[1] for o in w.outputs))
    if not all(isinstance(d, int) for d in fixed):
        return "the channels or the kernel extents are symbolic"
    if any(accumulator_dtype(w, n) is not accumulator_dtype(w, 0) for n in range(len(w.outputs))):
        return "the outputs are summed in different types"
    if any(not o.dtype.llvm for o in (*w.inputs[:2], *w.outputs)):
        return "an operand's type has no native form"
    group = int(str(w.attr("group")))
    counts = [int(str(o.shape[1])) for o in w.outputs]
    if group > 1 and any(count % (sum(counts) // group) for count in counts):
        return "an output holds part of a group"
    return None
