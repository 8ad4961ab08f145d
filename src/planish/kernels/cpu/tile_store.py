"""The end of a register tile: the epilogue on the accumulators, then the stores.

An operand of the epilogue that lies densely along the channels is read with vector loads; one that
does not depend on the pixel is read once for all pixels of the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from planish.base.errors import BuildError
from planish.base.expr import Call, Const, Expr, Load, Temp
from planish.base.shapes import Dim
from planish.kernels.cpu.contraction import Access, Contraction
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.pack import Columns
from planish.targets.ir import Val, element_bytes, real, vector, zero


@dataclass
class TileStore:
    """Finishes one tile of one output.

    Attributes:
        frame: The phase being written.
        problem: The layer.
        output: Which output.
        columns: Vectors of a row.
        origin: Pixel indices of the tile's first pixel.
        pixels: Distance of each pixel from it, along each axis.
        channel: First channel, within the output.
    """

    frame: Frame
    problem: Contraction
    output: int
    columns: Columns
    origin: Sequence[Val]
    pixels: Sequence[tuple[int, ...]]
    channel: Val
    _bases: dict[int, Val] = field(default_factory=dict)
    _loaded: dict[tuple[Load, int, int], Val] = field(default_factory=dict)

    def run(self, sums: Sequence[Val]) -> None:
        """Store every accumulator, passed through the epilogue."""
        expr = self.problem.epilogue[self.output]
        access = self.problem.outputs[self.output]
        operand = self.problem.workload.outputs[self.output]
        base = self._address(self.frame.outputs[self.output], access, operand.dtype.size)
        vectors = len(self.columns.lanes)
        for pixel in range(len(self.pixels)):
            for v in range(vectors):
                value = sums[pixel * vectors + v]
                if expr is not None:
                    value = self._value(expr, value, pixel, v)
                self._store(value, base, access, pixel, v)

    def fetch(self) -> None:
        """Ask for the cache lines that the tile will write."""
        access = self.problem.outputs[self.output]
        base = self._address(self.frame.outputs[self.output], access, 4)
        if access.channel == 1:
            for pixel in range(len(self.pixels)):
                for v in range(len(self.columns.lanes)):
                    at = self._moved(base, access, pixel, self.columns.first(v), 4)
                    self.frame.f.prefetch(at, write=True)

    def _address(self, pointer: Val, access: Access, size: int) -> Val:
        """Address of the tile's first element."""
        f = self.frame.f
        total = f.mul(self.frame.size(access.base), size)
        for index, step in zip(self.origin, access.steps, strict=True):
            total = f.add(total, f.mul(index, f.mul(self.frame.size(step), size)))
        total = f.add(total, f.mul(self.channel, f.mul(self.frame.size(access.channel), size)))
        return f.offset(pointer, total)

    def _moved(self, base: Val, access: Access, pixel: int, column: int, size: int) -> Val:
        """Address of the element of a pixel and a column of the tile."""
        distance: Dim = column * access.channel
        for delta, step in zip(self.pixels[pixel], access.steps, strict=True):
            distance = distance + delta * step
        if isinstance(distance, int):
            return self.frame.f.offset(base, distance * size)
        f = self.frame.f
        total = f.mul(self.frame.size(access.channel), column)
        for delta, step in zip(self.pixels[pixel], access.steps, strict=True):
            total = f.add(total, f.mul(self.frame.size(step), delta))
        return f.offset(base, f.mul(total, size))

    def _store(self, value: Val, base: Val, access: Access, pixel: int, v: int) -> None:
        f, column = self.frame.f, self.columns.first(v)
        size = element_bytes(value.ty)
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

    def _load(self, load: Load, pixel: int, v: int) -> Val:
        access = self.problem.access(load)
        if access is None:
            raise BuildError(f"the epilogue reads {load} at an index that is not affine")
        moves = any(step != 0 for step in access.steps)
        key = (load, pixel if moves else 0, v if access.channel != 0 else 0)
        if key not in self._loaded:
            self._loaded[key] = self._read(load, access, key[1], v)
        return self._loaded[key]

    def _read(self, load: Load, access: Access, pixel: int, v: int) -> Val:
        f, lanes, column = self.frame.f, self.columns.lanes[v], self.columns.first(v)
        size, ty = load.dtype.size, load.dtype.llvm
        pointer = self.frame.inputs[load.tensor]
        key = id(load)
        if key not in self._bases:
            self._bases[key] = self._address(pointer, access, size)
        base = self._bases[key]
        if access.channel == 0:
            return f.splat(f.load(ty, self._moved(base, access, pixel, 0, size)), lanes)
        if access.channel != 1:
            total = zero(vector(ty, lanes))
            for lane in range(self._valid(v)):
                at = self._moved(base, access, pixel, column + lane, size)
                total = f.insert(total, f.load(ty, at), lane)
            return total
        at = self._moved(base, access, pixel, column, size)
        if self.columns.masked(v):
            return f.masked_load(vector(ty, lanes), at, f.first_lanes(lanes, self.columns.valid))
        return f.load(vector(ty, lanes), at)

    def _value(self, expr: Expr, value: Val, pixel: int, v: int) -> Val:
        f = self.frame.f
        match expr:
            case Temp():
                return value
            case Const(value=literal):
                return real(float(literal), value.ty)
            case Load():
                return self._load(expr, pixel, v)
            case Call(fn="add" | "sub" | "mul" | "max" | "min" as fn, args=(a, b)):
                x, y = self._value(a, value, pixel, v), self._value(b, value, pixel, v)
                if fn in ("max", "min"):
                    return f.intrinsic(f"{fn}imum", x.ty, [x, y])
                return f.binary(f"f{fn}", x, y)
        raise BuildError(f"no code for {expr} in an epilogue yet")
