"""How a register tile multiplies: what one step of a reduction takes, and the code that adds it.

A step takes some neighbouring channels of a pixel (`depth`), the same in all lanes, and the weights
of these channels for each column:

    f32            1 channel     sum += x · w                               weights f32, f16, s8
    bytes          4 channels    sum += x0·w0 + x1·w1 + x2·w2 + x3·w3       vpdpbusd
    pairs          4 channels    sum += (x0·w0 + x2·w2) + (x1·w1 + x3·w3)   pmaddwd
    plain          1 channel     sum += x · w, on i32

Integer sums are exact modulo 2³²: products are never rounded, saturated or cut to 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.kernels.cpu.dots import add_quads, sum_pairs
from planish.kernels.cpu.math_blocks import MathBlocks
from planish.kernels.cpu.narrow import widen
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Val, integer, vector


@dataclass(frozen=True)
class Product:
    """The arithmetic of a tile.

    Attributes:
        name: "f32", "bytes", "pairs" or "plain".
        x: Element type of the inputs.
        weights: Element type of the packed weights.
        depth: Channels of a step.
        parts: Runs of weights of a step that follow each other; each has all columns.
        total: LLVM type of an accumulator.
        cycles: Time of a step of one vector, in FMAs.
        target: What the code is for.
    """

    name: str
    x: DType
    weights: DType
    depth: int
    parts: int
    total: str
    cycles: float
    target: CpuTarget

    @property
    def column(self) -> int:
        """Bytes of the weights of a step and column."""
        return self.depth * self.weights.size

    @property
    def word(self) -> int:
        """Bytes of the weights of a part of a step and column."""
        return self.column // self.parts

    @property
    def step(self) -> int:
        """Bytes of the inputs of a step, where channels are neighbours."""
        return self.depth * self.x.size

    def pack(self, rows: np.ndarray) -> np.ndarray:
        """The weights [steps, columns, depth] in the order of the steps' code, flat."""
        steps, columns, depth = rows.shape
        apart = rows.reshape(steps, columns, depth // self.parts, self.parts)
        return apart.transpose(0, 3, 1, 2).astype(self.weights.numpy).reshape(-1)

    # ---- code -----------------------------------------------------------------------------------

    def input(self, f: Function, at: Val, gap: Val, inside: tuple[int, int] | None) -> Val:
        """The channels of a pixel's step, as a scalar.

        Args:
            f: Function being written.
            at: Address of the first channel.
            gap: Bytes between channels.
            inside: Half-open range of the channels to read; the others are 0. None for all.
        """
        if self.name == "f32":
            return f.load("float", at)
        if self.depth == 1:
            return f.cast("sext" if self.x.is_signed else "zext", f.load("i8", at), "i32")
        close = gap.literal == 1
        if inside is None and close:
            return f.load("i32", at, align=1)
        first, stop = inside or (0, self.depth)
        total: Val | None = None
        while first < stop:
            size = 2 if close and stop - first >= 2 else 1
            raw = f.load(f"i{8 * size}", f.offset(at, f.mul(gap, first)), align=1)
            wide = f.cast("zext", raw, "i32")
            if first:
                wide = f.binary("shl", wide, Val("i32", str(8 * first)))
            total = wide if total is None else f.binary("or", total, wide)
            first += size
        assert total is not None
        return total

    def load(self, f: Function, at: Val, lanes: int) -> Val:
        """A vector of weights of one part of a step."""
        if self.weights is DType.F16:
            return widen(MathBlocks(f, self.target), f.load(vector("i16", lanes), at), DType.F16)
        if self.name == "f32" and self.weights is DType.I8:
            wide = f.cast("sext", f.load(vector("i8", lanes), at), vector("i32", lanes))
            return f.cast("sitofp", wide, vector(self.total, lanes))
        if self.name == "plain":
            return f.load(vector(self.weights.llvm, lanes), at)
        return f.load(vector(self.total, lanes), at)

    def add(self, f: Function, x: Val, parts: Sequence[Val], total: Val) -> Val:
        """The accumulators with a step's products added; the weights come part by part."""
        n, weights = total.lanes, parts[0]
        if self.name == "f32":
            return f.fma(f.splat(x, n), weights, total, fused=self.target.fma)
        if self.name == "bytes":
            return add_quads(f, total, f.splat(x, n), weights)
        if self.name == "pairs":
            even, odd = (
                sum_pairs(f, self._wide(f, x, n, number), part) for number, part in enumerate(parts)
            )
            return f.binary("add", total, f.binary("add", even, odd))
        wide = f.cast("sext", weights, total.ty)
        return f.binary("add", total, f.binary("mul", f.splat(x, n), wide))

    def _wide(self, f: Function, x: Val, lanes: int, part: int) -> Val:
        """Two of a step's four bytes, the even or the odd ones, as i16 in each lane."""
        twos = f.cast("bitcast", f.splat(x, lanes), vector("i16", 2 * lanes))
        eight = integer(8, twos.ty)
        if not self.x.is_signed and part == 0:
            return f.binary("and", twos, integer(255, twos.ty))
        if part == 0:
            twos = f.binary("shl", twos, eight)
        return f.binary("ashr" if self.x.is_signed else "lshr", twos, eight)


def float_product(weights: DType, target: CpuTarget) -> Product:
    """f32 multiply-adds; weights that are stored as f16 or s8 are widened as they are loaded."""
    return Product("f32", DType.F32, weights, 1, 1, "float", 1.0, target)


def integer_product(x: DType, target: CpuTarget) -> Product:
    """Sums of u8·s8 or s8·s8 in i32, with the best instruction of the target."""
    if target.dot == "bytes" and x is DType.U8:
        return Product("bytes", x, DType.I8, 4, 1, "i32", 1.0, target)
    if target.dot:
        return Product("pairs", x, DType.I16, 4, 2, "i32", 3.0, target)
    return Product("plain", x, DType.I16, 1, 1, "i32", 2.0, target)
