"""Index expressions as sums: a constant, and atoms multiplied by sizes.

An atom is a loop variable, or an expression that is no sum. The sum tells vector loads, repeated
scalars and gathers apart, and keeps addresses cheap.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from planish.base.dtypes import DType
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
        case Var() | Size():
            return True
        case Call(fn="add" | "mul" | "floordiv" | "div" | "min", args=(a, b)):
            return never_negative(a) and never_negative(b)
        case Call(fn="max", args=(a, b)):
            return never_negative(a) or never_negative(b)
        case Call(fn="mod", args=(_, b)):
            return isinstance(b, Const) and int(b.value) > 0
    return False


def bounds(expr: Expr, extents: Mapping[str, int]) -> tuple[int, int] | None:
    """The smallest interval (ends included) that interval arithmetic finds for an i64 expression.

    Args:
        expr: The expression.
        extents: Extents of the loop variables, none of them 0.
    """
    match expr:
        case Const(value=value, dtype=DType.I64):
            return int(value), int(value)
        case Var(name=name) if name in extents:
            return 0, extents[name] - 1
        case Call(fn=fn, args=(a, b)) if fn in ("add", "sub", "mul", "min", "max"):
            x, y = bounds(a, extents), bounds(b, extents)
            if x is None or y is None:
                return None
            if fn == "add":
                return x[0] + y[0], x[1] + y[1]
            if fn == "sub":
                return x[0] - y[1], x[1] - y[0]
            if fn == "mul":
                corners = [p * q for p in x for q in y]
                return min(corners), max(corners)
            pick = min if fn == "min" else max
            return pick(x[0], y[0]), pick(x[1], y[1])
        case Call(fn="floordiv", args=(a, Const(value=value))) if int(value) > 0:
            x = bounds(a, extents)
            return None if x is None else (x[0] // int(value), x[1] // int(value))
        case Call(fn="mod", args=(_, Const(value=value))) if int(value) > 0:
            return 0, int(value) - 1
    return None
