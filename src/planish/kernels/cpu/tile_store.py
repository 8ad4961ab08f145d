"""Both ends of a register tile: what its accumulators start from, and the epilogue and the stores.

An operand of the epilogue that lies densely along the channels is read with vector loads; one that
does not depend on the pixel is read once for all pixels of the tile.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from planish.base.dtypes import DType
from planish.base.expr import Load
from planish.base.shapes import Dim
from planish.kernels.cpu.contraction import Access, Contraction
from planish.kernels.cpu.expression import ExprEmitter, Memory
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.narrow import NARROW
from planish.kernels.cpu.pack import Columns
from planish.kernels.cpu.requantize import Rounding
from planish.kernels.cpu.tile import LINE, Touch
from planish.kernels.cpu.tile_bytes import byte_groups, byte_rounding, rounded, store_group
from planish.kernels.cpu.tile_epilogue import Epilogue
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Val, i64, vector, zero

_INLINE = 240  # instructions of epilogues up to which each cell has its own


@dataclass(frozen=True)
class Patch:
    """The pixels of a tile.

    Attributes:
        origin: Index of the first pixel along each pixel axis.
        lengths: Pixels along each axis; the last one varies fastest.
    """

    origin: tuple[Val, ...]
    lengths: tuple[int, ...]

    @property
    def pixels(self) -> list[tuple[int, ...]]:
        """Distance of each pixel from the first, along each axis."""
        return list(itertools.product(*map(range, self.lengths)))


@dataclass
class TileStore:
    """Starts and finishes one tile of one output.

    Attributes:
        frame: The phase being written.
        target: What for.
        problem: The layer.
        output: Which output.
        columns: Vectors of a row.
        patch: Pixels.
        channel: First channel, within the output.
        epilogue: What happens to the accumulators.
    """

    frame: Frame
    target: CpuTarget
    problem: Contraction
    output: int
    columns: Columns
    patch: Patch
    channel: Val
    epilogue: Epilogue
    _bases: dict[Load, Val] = field(default_factory=dict)
    _loaded: dict[tuple[Load, int, int], Val] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pixels = self.patch.pixels

    def start(self, pointer: Val | None = None) -> list[Val]:
        """The accumulators at the start, pixel by pixel.

        Args:
            pointer: Where the bias lies, if not where the operand that names it says.
        """
        vectors = range(len(self.columns.lanes))
        if self.epilogue.start is None:
            row = [zero(vector(self.problem.product.total, n)) for n in self.columns.lanes]
        else:
            load, access = self.epilogue.start
            if pointer is not None:
                self._bases[load] = self._address(pointer, access, load.dtype.size)
            row = [self._load(load, access, 0, v) for v in vectors]
        return row * len(self.pixels)

    def touched(self) -> tuple[Touch, ...]:
        """The cache lines that the end of the tile will read and write."""
        size = self.problem.workload.outputs[self.output].dtype.size
        places = [(self.frame.outputs[self.output], self.problem.outputs[self.output], size, True)]
        for load, access in self.epilogue.fetched:
            if any(step != 0 for step in access.steps):
                places.append((self.frame.inputs[load.tensor], access, load.dtype.size, False))
        found = []
        for pointer, access, size, write in places:
            if access.channel == 1:
                base = self._address(pointer, access, size)
                pixel = self.frame.f.mul(self.frame.size(access.steps[-1]), size)
                lines = -(-self.columns.width * size // LINE)
                found.append(Touch(base, pixel, lines, write))
        return tuple(found)

    def finish(self, sums: Sequence[Val]) -> None:
        """Store every accumulator, passed through the epilogue."""
        if len(self.pixels) > 1 and self.epilogue.weight * len(sums) > _INLINE:
            self._finish_in_loop(sums)
            return
        vectors = range(len(self.columns.lanes))
        operand = self.problem.workload.outputs[self.output]
        access = self.problem.outputs[self.output]
        base: Val | None = None
        cells = [(pixel, v) for pixel in range(len(self.pixels)) for v in vectors]
        totals = dict(zip(cells, sums, strict=True))
        rounding = byte_rounding(self.epilogue.value, access.channel, self.target)
        if rounding is not None and byte_groups(self.columns):
            base = self._address(self.frame.outputs[self.output], access, operand.dtype.size)
            self._finish_bytes(totals, base, access, rounding)
        values = {cell: self._value(total, *cell) for cell, total in totals.items()}
        if base is None:
            base = self._address(self.frame.outputs[self.output], access, operand.dtype.size)
        for (pixel, v), value in values.items():
            self._store(value, base, access, pixel, v, operand.dtype.size)

    def _finish_bytes(
        self, totals: dict[tuple[int, int], Val], base: Val, access: Access, rounding: Rounding
    ) -> None:
        """Store the cells that packs can join, and take them out of `totals`."""
        f, columns = self.frame.f, self.columns
        for pixel in range(len(self.pixels)):
            for group in byte_groups(columns):
                cells = [totals.pop((pixel, v)) for v in group]
                parts = [
                    rounded(f, self._emitter(total, pixel, v), rounding)
                    for total, v in zip(cells, group, strict=True)
                ]
                count = sum(map(self._valid, group))
                at = self._moved(base, access, pixel, columns.first(group[0]), 1)
                store_group(f, self.target, rounding, parts, at, count)

    def _finish_in_loop(self, sums: Sequence[Val]) -> None:
        """Long epilogues: the accumulators go to the stack, and one pixel's code does them all."""
        f, columns = self.frame.f, self.columns
        row = 4 * columns.width
        total = self.problem.product.total
        kept = f.variable(total, columns.width * len(self.pixels))
        vectors = len(columns.lanes)
        for number, value in enumerate(sums):
            pixel, v = divmod(number, vectors)
            f.store(value, f.offset(kept, pixel * row + 4 * columns.first(v)))
        with f.loop(0, len(self.pixels)) as loop:
            places = self.frame.split(loop.index, self.patch.lengths)
            origin = tuple(f.add(o, p) for o, p in zip(self.patch.origin, places, strict=True))
            patch = Patch(origin, (1,) * len(origin))
            one = replace(self, patch=patch, _bases={}, _loaded={})
            at = f.offset(kept, f.mul(loop.index, row))
            one.finish(
                [
                    f.load(vector(total, n), f.offset(at, 4 * columns.first(v)))
                    for v, n in enumerate(columns.lanes)
                ]
            )

    # ---- addresses ------------------------------------------------------------------------------

    def _address(self, pointer: Val, access: Access, size: int) -> Val:
        """Address of the tile's first element."""
        f = self.frame.f
        total = f.mul(self.frame.size(access.base), size)
        for index, step in zip(self.patch.origin, access.steps, strict=True):
            total = f.add(total, f.mul(index, f.mul(self.frame.size(step), size)))
        total = f.add(total, f.mul(self.channel, f.mul(self.frame.size(access.channel), size)))
        return f.offset(pointer, total)

    def _moved(self, base: Val, access: Access, pixel: int, column: int, size: int) -> Val:
        """Address of the element of a pixel and a column of the tile."""
        f = self.frame.f
        distance: Dim = column * access.channel
        for delta, step in zip(self.pixels[pixel], access.steps, strict=True):
            distance = distance + delta * step
        return f.offset(base, f.mul(self.frame.size(distance), size))

    # ---- cells ----------------------------------------------------------------------------------

    def _value(self, total: Val, pixel: int, v: int) -> Val:
        """The stored form of an accumulator."""
        emitter = self._emitter(total, pixel, v)
        value = emitter.emit(self.epilogue.value)
        dtype = self.problem.workload.outputs[self.output].dtype
        return emitter.arithmetic.to_memory(value, dtype)

    def _emitter(self, total: Val, pixel: int, v: int) -> ExprEmitter:
        """Emits the epilogue of a cell."""
        mask = None
        if self.columns.masked(v):
            mask = self.frame.f.first_lanes(self.columns.lanes[v], self.columns.valid)
        names = self._indices(pixel)
        names[self.problem.channel_name] = self.frame.f.add(self.channel, self.columns.first(v))
        temps = {0: total}
        emitter = ExprEmitter(
            self.frame.f,
            self.target,
            self.frame.size,
            lanes=self.columns.lanes[v],
            lane_var=self.problem.channel_name,
            vars=names,
            operands=[
                Memory(pointer, operand.strides, operand.dtype)
                for pointer, operand in zip(
                    self.frame.inputs, self.problem.workload.inputs, strict=True
                )
            ],
            temps=temps,
            mask=mask,
        )
        for number, (load, access) in enumerate(self.epilogue.fetched):
            raw = self._load(load, access, pixel, v)
            emitter.temps[1 + number] = emitter.arithmetic.from_memory(raw, load.dtype)
        return emitter

    def _indices(self, pixel: int) -> dict[str, Val]:
        """The output's index at a pixel, by variable; axes that were merged differ."""
        f, names = self.frame.f, {}
        for axis in range(len(self.problem.workload.outputs[self.output].shape)):
            names[f"o{axis}"] = i64(0)
        places = zip(self.problem.windows, self.patch.origin, self.pixels[pixel], strict=True)
        for window, index, delta in places:
            step = f.mul(f.add(index, delta), self.frame.size(window.multiple))
            names[f"o{window.axis}"] = f.add(names[f"o{window.axis}"], step)
        return names

    def _store(self, value: Val, base: Val, access: Access, pixel: int, v: int, size: int) -> None:
        f, column = self.frame.f, self.columns.first(v)
        if access.channel != 1:
            for lane in range(self._valid(v)):
                at = self._moved(base, access, pixel, column + lane, size)
                f.store(f.extract(value, lane) if value.lanes > 1 else value, at)
            return
        at = self._moved(base, access, pixel, column, size)
        if self.columns.masked(v):
            f.masked_store(value, at, f.first_lanes(value.lanes, self.columns.valid))
        else:
            f.store(value, at)

    def _valid(self, v: int) -> int:
        return self.columns.valid if self.columns.masked(v) else self.columns.lanes[v]

    def _load(self, load: Load, access: Access, pixel: int, v: int) -> Val:
        """An operand's elements for a cell, as they lie in memory."""
        moves = any(step != 0 for step in access.steps)
        key = (load, pixel if moves else 0, v if access.channel != 0 else 0)
        if key not in self._loaded:
            self._loaded[key] = self._read(load, access, key[1], v)
        value = self._loaded[key]
        lanes = self.columns.lanes[v]
        return value if value.lanes == lanes else self.frame.f.splat(value, lanes)

    def _read(self, load: Load, access: Access, pixel: int, v: int) -> Val:
        f, lanes, column = self.frame.f, self.columns.lanes[v], self.columns.first(v)
        size, element = load.dtype.size, _memory_type(load.dtype)
        if load not in self._bases:
            self._bases[load] = self._address(self.frame.inputs[load.tensor], access, size)
        base = self._bases[load]
        if access.channel == 0:
            return f.load(element, self._moved(base, access, pixel, 0, size))
        if access.channel != 1:
            total = zero(vector(element, lanes))
            for lane in range(self._valid(v)):
                at = self._moved(base, access, pixel, column + lane, size)
                total = f.insert(total, f.load(element, at), lane)
            return total
        at = self._moved(base, access, pixel, column, size)
        if self.columns.masked(v):
            mask = f.first_lanes(lanes, self.columns.valid)
            return f.masked_load(vector(element, lanes), at, mask)
        return f.load(vector(element, lanes), at)


def _memory_type(dtype: DType) -> str:
    """The LLVM type of an element as kernels load it."""
    return "i16" if dtype in NARROW else dtype.llvm
