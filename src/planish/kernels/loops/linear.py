"""Index expressions as sums: a constant, and atoms multiplied by sizes.

An atom is a loop variable, or an expression that is no sum. The sum tells vector loads, repeated
scalars and gathers apart, and keeps addresses cheap.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from planish.base.expr import Call, Const, Expr, Size, Var, walk
from planish.base.shapes import Dim


@dataclass(frozen=True)
class Linear:
    """constant + sum of factor * atom. No factor is the integer 0."""

    constant: Dim
    terms: tuple[tuple[Expr, Dim], ...]

    def factor(self, var: str) -> Dim | None:
        """The factor of a loop variable; None where an opaque atom depends on it too."""
        slope: Dim = 0
        for atom, factor in self.terms:
            if isinstance(atom, Var):
                slope = factor if atom.name == var else slope
            elif mentions(atom, var):
                return None
        return slope

    def plus(self, other: Linear, scale: Dim = 1) -> Linear:
        """This plus `scale` times another."""
        total: dict[Expr, Dim] = dict(self.terms)
        for atom, factor in other.terms:
            total[atom] = total.get(atom, 0) + factor * scale
        kept = tuple((atom, factor) for atom, factor in total.items() if factor != 0)
        return Linear(self.constant + other.constant * scale, kept)


def mentions(expr: Expr, var: str) -> bool:
    """Whether an expression depends on a loop variable."""
    return any(isinstance(e, Var) and e.name == var for e in walk(expr))


@functools.lru_cache(maxsize=8192)
def linear(expr: Expr) -> Linear:
    """An i64 expression as a sum."""
    match expr:
        case Const(value=value):
            return Linear(int(value), ())
        case Size(dim=dim):
            return Linear(dim, ())
        case Call(fn="add", args=(a, b)):
            return linear(a).plus(linear(b))
        case Call(fn="sub", args=(a, b)):
            return linear(a).plus(linear(b), -1)
        case Call(fn="neg", args=(a,)):
            return Linear(0, ()).plus(linear(a), -1)
        case Call(fn="mul", args=(a, b)):
            left, right = linear(a), linear(b)
            if not left.terms:
                return Linear(0, ()).plus(right, left.constant)
            if not right.terms:
                return Linear(0, ()).plus(left, right.constant)
    return Linear(0, ((expr, 1),))


@functools.lru_cache(maxsize=8192)
def address(index: tuple[Expr, ...], strides: tuple[Dim, ...]) -> Linear:
    """The offset, in elements, of an index into a strided operand."""
    total = Linear(0, ())
    for position, stride in zip(index, strides, strict=True):
        if stride != 0:
            total = total.plus(linear(position), stride)
    return total


def never_negative(expr: Expr) -> bool:
    """Whether an i64 expression is known to be at least 0, given that loop variables are."""
    match expr:
        case Const(value=value):
            return int(value) >= 0
        case Var():
            return True
        case Size(dim=dim):
            return _size_never_negative(dim)
        case Call(fn="add" | "mul" | "floordiv" | "div" | "min", args=(a, b)):
            return never_negative(a) and never_negative(b)
        case Call(fn="max", args=(a, b)):
            return never_negative(a) or never_negative(b)
        case Call(fn="mod", args=(_, b)):
            return isinstance(b, Const) and int(b.value) > 0
    return False


def _size_never_negative(dim: Dim) -> bool:
    """Whether no term of a size subtracts; named sizes are at least 0."""
    if isinstance(dim, int):
        return dim >= 0
    named = all(isinstance(atom, str) for monomial, _ in dim.terms for atom in monomial)
    return named and all(factor >= 0 for _, factor in dim.terms)
