"""The transforms of Winograd's convolution F(m, 3), exact, and their straight-line code.

Outputs y of a 3-tap filter g over d[0..m+2) are y = Aᵀ ((G g) ⊙ (Bᵀ d)); in two dimensions each
matrix is applied along rows and columns. The matrices follow from the points at which polynomials
are evaluated (Toom and Cook; Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural
Networks"). Points come in pairs ±a, whose rows share all but the last addition.

The code takes vectors of floats, or of integers, whose arithmetic wraps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planish.targets.ir import Function, Val, integer, real

_HALF = Fraction(1, 2)
_POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: tuple(map(Fraction, (0, 1, -1, 2, -2))),
    6: (*map(Fraction, (0, 1, -1, 2, -2)), _HALF, -_HALF),
}
Rows = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Transforms:
    """The matrices of F(m, 3).

    Attributes:
        m: Outputs of a tile along an axis.
        size: Inputs of a tile along an axis, and points: m + 2.
        data: Bᵀ, size × size.
        filter: G, size × 3.
        output: Aᵀ, m × size.
    """

    m: int
    size: int
    data: Rows
    filter: Rows
    output: Rows


@functools.cache
def transforms(m: int) -> Transforms:
    """The matrices for a tile of m outputs; m is 2, 4 or 6."""
    points = _POINTS[m]
    data, taps = [], []
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1 :]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        data.append((*_from_roots(others), Fraction(0)))
        taps.append(tuple(point**k / scale for k in range(3)))
    data.append(_from_roots(points))
    taps.append((Fraction(0), Fraction(0), Fraction(1)))
    output = [(*(point**k for point in points), Fraction(int(k == m - 1))) for k in range(m)]
    return Transforms(m, m + 2, tuple(data), tuple(taps), tuple(output))


def _from_roots(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x - root), lowest power first."""
    poly = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *poly]
        poly = [a - root * b for a, b in zip(shifted, [*poly, Fraction(0)], strict=True)]
    return tuple(poly)


def transform_filter(t: Transforms, weights: np.ndarray) -> np.ndarray:
    """G w Gᵀ of weights [O, C, 3, 3], as f32 [size, size, C, O]."""
    g = np.array([[float(v) for v in row] for row in t.filter])
    points = np.einsum("ia,jb,ocab->ijco", g, g, weights.astype(np.float64), optimize=True)
    return np.ascontiguousarray(points, dtype=np.float32)


def apply_rows(f: Function, rows: Rows, values: Sequence[Val], fused: bool) -> list[Val]:
    """A matrix times a vector of register values, rows of ± pairs sharing their halves."""
    done: list[Val] = []
    while len(done) < len(rows):
        row = rows[len(done)]
        following = rows[len(done) + 1] if len(done) + 1 < len(rows) else None
        if following is None or not _is_pair(row, following):
            done.append(_weighted_sum(f, row, values, fused))
            continue
        even = tuple((p + q) / 2 for p, q in zip(row, following, strict=True))
        odd = tuple((p - q) / 2 for p, q in zip(row, following, strict=True))
        scale = _common_factor(odd)
        same = _weighted_sum(f, even, values, fused)
        unlike = _weighted_sum(f, tuple(v / scale for v in odd), values, fused)
        done += [_plus_scaled(f, same, unlike, factor, fused) for factor in (scale, -scale)]
    return done


def _is_pair(row: Sequence[Fraction], other: Sequence[Fraction]) -> bool:
    """True when the rows differ in some signs only, and both halves have terms."""
    if any(abs(p) != abs(q) for p, q in zip(row, other, strict=True)):
        return False
    return row != other and any(p == q != 0 for p, q in zip(row, other, strict=True))


def _common_factor(row: Sequence[Fraction]) -> Fraction:
    """The first entry's size where all have that size, else 1."""
    sizes = {abs(v) for v in row if v}
    return sizes.pop() if len(sizes) == 1 else Fraction(1)


def _weighted_sum(f: Function, row: Sequence[Fraction], values: Sequence[Val], fused: bool) -> Val:
    """The sum of entry × value, entries 0 and ±1 free of multiplications."""
    terms = [(v, x) for v, x in zip(row, values, strict=True) if v]
    terms.sort(key=lambda term: (term[0] != 1, abs(term[0]) != 1))
    first, total = terms[0]
    if first != 1:
        total = _scaled(f, total, first)
    for factor, value in terms[1:]:
        total = _plus_scaled(f, total, value, factor, fused)
    return total


def _scaled(f: Function, value: Val, factor: Fraction) -> Val:
    """Value × factor."""
    if value.element == "float":
        return f.binary("fmul", value, real(float(factor), value.ty))
    whole = _whole(factor)
    if whole > 0 and whole & (whole - 1) == 0:
        return f.binary("shl", value, integer(whole.bit_length() - 1, value.ty))
    return f.binary("mul", value, integer(whole, value.ty))


def _plus_scaled(f: Function, total: Val, value: Val, factor: Fraction, fused: bool) -> Val:
    """Total + value × factor."""
    kind = "f" if value.element == "float" else ""
    if abs(factor) == 1:
        return f.binary(kind + ("add" if factor > 0 else "sub"), total, value)
    if kind:
        return f.fma(value, real(float(factor), total.ty), total, fused=fused)
    return f.binary("add" if factor > 0 else "sub", total, _scaled(f, value, abs(factor)))


def _whole(factor: Fraction) -> int:
    """A factor that integers can be multiplied with.

    Raises:
        ValueError: It has a denominator.
    """
    if factor.denominator != 1:
        raise ValueError(f"integers cannot be multiplied with {factor}")
    return factor.numerator


def apply_columns(f: Function, rows: Rows, values: Sequence[Val], fused: bool) -> list[Val]:
    """A matrix whose columns come in ± pairs, times a vector: sums and differences come first."""
    basis: list[Val] = []
    mixed: list[list[Fraction]] = [[] for _ in rows]
    column = 0
    while column < len(values):
        left = [row[column] for row in rows]
        right = [row[column + 1] for row in rows] if column + 1 < len(values) else []
        if not right or any(abs(p) != abs(q) for p, q in zip(left, right, strict=True)):
            basis.append(values[column])
            for entries, p in zip(mixed, left, strict=True):
                entries.append(p)
            column += 1
            continue
        for sign in (Fraction(1), Fraction(-1)):
            basis.append(_plus_scaled(f, values[column], values[column + 1], sign, fused))
        for entries, p, q in zip(mixed, left, right, strict=True):
            entries += [p, Fraction(0)] if p == q else [Fraction(0), p]
        column += 2
    return [_weighted_sum(f, entries, basis, fused) for entries in mixed]


def data_transform(
    f: Function, t: Transforms, block: Sequence[Sequence[Val]], fused: bool
) -> list[list[Val]]:
    """Bᵀ · block · B for a tile's inputs, rows of registers."""
    size = range(t.size)
    columns = [apply_rows(f, t.data, [block[i][j] for i in size], fused) for j in size]
    return [apply_rows(f, t.data, [column[i] for column in columns], fused) for i in size]


def output_transform(
    f: Function, rows: Rows, block: Sequence[Sequence[Val]], fused: bool
) -> list[list[Val]]:
    """Rows · block · rowsᵀ for the products at a tile's points; the rows are Aᵀ."""
    size = range(len(block))
    columns = [apply_columns(f, rows, [block[i][j] for i in size], fused) for j in size]
    return [
        apply_columns(f, rows, [column[i] for column in columns], fused) for i in range(len(rows))
    ]
