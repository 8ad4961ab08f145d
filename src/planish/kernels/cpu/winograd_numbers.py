"""What Winograd's convolution computes with: f32, or integers that are exact.

Integers are u8 or s8 inputs times s8 weights. A transformed input of F(4×4, 3×3) is a sum of at
most 100 of them, weights are transformed by matrices of whole numbers, and both fit 16 bits:

    f32    V, U f32    a word of V is one channel      P += V·U            y = Aᵀ P A
    i32    V, U s16    a word of V is two channels     P += V₀·U₀ + V₁·U₁  y = Aᵀ P A / d, rows
                                                                           of A whole numbers

Rows of G are multiplied by what makes them whole, and columns of Aᵀ divided by it; rows of Aᵀ are
multiplied by what makes those whole. What is left to divide an output by, d, is 9 · 2ᵏ, k ≤ 6.
Sums wrap modulo 2³²: 9 has an inverse there, and y·2ᵏ is right if it fits. So y must lie within
±2²⁵ (`NARROW_SUMS`), which lowering proves from the weights (`Workload.sum_bits`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planish.base.dtypes import DType
from planish.kernels.cpu.dots import sum_pairs
from planish.kernels.cpu.winograd_math import (
    Rows,
    Transforms,
    data_transform,
    output_transform,
    transform_filter,
    transforms,
)
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Val, integer, vector

_SCALES = (24, 6, 6, 24, 24, 6)  # of the rows of F(4, 3)'s G; they keep every U within 49·128
_WORD = 4  # bytes

Block = Sequence[Sequence[Val]]


@dataclass(frozen=True)
class Numbers:
    """The arithmetic of one tactic.

    Attributes:
        math: The transforms.
        x: Element type of the inputs.
        depth: Channels of a word of V.
        total: LLVM type of an accumulator.
        weights: NumPy type of U.
        target: What the code is for.
        product: What a word of V and one of U add to an accumulator; None for a multiply-add.
    """

    math: Transforms
    x: DType
    depth: int
    total: str
    weights: type
    target: CpuTarget
    product: Callable[[Function, Val, Val], Val] | None = None

    @property
    def channels(self) -> int:
        """Channels of a vector of V."""
        return self.target.lanes() * self.depth

    def words(self, channels: int) -> int:
        """Words of V of so many channels."""
        return -(-channels // self.depth)

    @property
    def loaded(self) -> str:
        """A vector of inputs as it lies in memory."""
        return vector(self.x.llvm, self.channels)

    def data(self, f: Function, block: Block) -> list[list[Val]]:
        """The points of a tile of `loaded` inputs."""
        if self.depth > 1:
            wide = vector("i16", self.channels)
            extend = "sext" if self.x.is_signed else "zext"
            block = [[f.cast(extend, value, wide) for value in row] for row in block]
        return data_transform(f, self.math, block, self.target.fma)

    def output(self, f: Function, block: Block) -> list[list[Val]]:
        """The outputs of a tile from the products at its points."""
        if self.depth == 1:
            return output_transform(f, self.math.output, block, self.target.fma)
        rows, factors = whole_output()
        done = output_transform(f, rows, block, fused=False)
        return [
            [_divided(f, value, factors[i] * factors[j]) for j, value in enumerate(line)]
            for i, line in enumerate(done)
        ]

    def filter(self, weights: np.ndarray) -> np.ndarray:
        """Weights [O, C, 3, 3] as U [points, words, O, depth]."""
        if self.depth == 1:
            points = transform_filter(self.math, weights)
            return points.reshape(-1, *points.shape[2:], 1)
        g = np.array(whole_filter(), np.int32)
        points = np.einsum("ia,jb,ocab->ijco", g, g, weights.astype(np.int32), optimize=True)
        points = points.reshape(-1, *points.shape[2:])
        points = np.pad(points, [(0, 0), (0, points.shape[1] % self.depth), (0, 0)])
        paired = points.reshape(len(points), -1, self.depth, points.shape[2])
        return np.ascontiguousarray(paired.transpose(0, 1, 3, 2), self.weights)


def float_numbers(m: int, target: CpuTarget) -> Numbers:
    """F(m×m, 3×3) in f32."""
    return Numbers(transforms(m), DType.F32, 1, "float", np.float32, target)


def integer_numbers(m: int, x: DType, target: CpuTarget) -> Numbers:
    """F(4×4, 3×3) of bytes.

    Raises:
        ValueError: m is not 4.
    """
    if m != 4:
        raise ValueError(f"F({m}) has no transforms of whole numbers here, F(4) has")
    return Numbers(transforms(m), x, 2, "i32", np.int16, target, sum_pairs)


@functools.cache
def whole_filter() -> tuple[tuple[int, ...], ...]:
    """G of F(4, 3) in whole numbers, row i multiplied by `_SCALES[i]`, whose sign is free."""
    rows = transforms(4).filter
    return tuple(
        tuple(int(v * scale) for v in row) for row, scale in zip(rows, _SCALES, strict=True)
    )


@functools.cache
def whole_output() -> tuple[Rows, tuple[int, ...]]:
    """Aᵀ of F(4, 3) for products of `whole_filter`, and what each row is multiplied by."""
    rows, factors = [], []
    for row in transforms(4).output:
        parts = [Fraction(v) / scale for v, scale in zip(row, _SCALES, strict=True)]
        factor = math.lcm(*(part.denominator for part in parts))
        rows.append(tuple(part * factor for part in parts))
        factors.append(factor)
    return tuple(rows), tuple(factors)


def _divided(f: Function, value: Val, divisor: int) -> Val:
    """An exact quotient modulo 2³²; the powers of two are shifted out, sign kept."""
    shift = (divisor & -divisor).bit_length() - 1
    inverse = pow(divisor >> shift, -1, 1 << 32)
    product = f.binary("mul", value, integer(inverse, value.ty))
    return f.binary("ashr", product, integer(shift, value.ty))
