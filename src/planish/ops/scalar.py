"""Short names for building scalar expressions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Const, Expr, Load, Var, call, const, index
from planish.base.shapes import Dim, Shape

Index = tuple[Expr, ...]


def add(a: Expr, b: Expr) -> Expr:
    """A + b."""
    return call("add", a, b)


def sub(a: Expr, b: Expr) -> Expr:
    """A - b."""
    return call("sub", a, b)


def mul(a: Expr, b: Expr) -> Expr:
    """A * b."""
    return call("mul", a, b)


def div(a: Expr, b: Expr) -> Expr:
    """A / b; integers truncate."""
    return call("div", a, b)


def floordiv(a: Expr, b: Expr) -> Expr:
    """A / b rounded down."""
    return call("floordiv", a, b)


def mod(a: Expr, b: Expr) -> Expr:
    """A % b with the sign of b."""
    return call("mod", a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller, NaN if either is."""
    return call("min", a, b)


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger, NaN if either is."""
    return call("max", a, b)


def clamp(x: Expr, low: Expr, high: Expr) -> Expr:
    """X held within [low, high]."""
    return minimum(maximum(x, low), high)


def lt(a: Expr, b: Expr) -> Expr:
    """A < b."""
    return call("lt", a, b)


def le(a: Expr, b: Expr) -> Expr:
    """A <= b."""
    return call("le", a, b)


def ge(a: Expr, b: Expr) -> Expr:
    """A >= b."""
    return call("ge", a, b)


def eq(a: Expr, b: Expr) -> Expr:
    """A == b."""
    return call("eq", a, b)


def ne(a: Expr, b: Expr) -> Expr:
    """A != b."""
    return call("ne", a, b)


def both(conditions: Iterable[Expr]) -> Expr | None:
    """All of some conditions; None for none."""
    found = list(conditions)
    return reduce(lambda a, b: call("and", a, b), found) if found else None


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    """`yes` where the condition holds, else `no`; both are evaluated."""
    if isinstance(condition, Const):
        return yes if condition.value else no
    return call("select", condition, yes, no)


def where(condition: Expr | None, yes: Expr, no: Expr) -> Expr:
    """`select`, or just `yes` where there is no condition."""
    return yes if condition is None else select(condition, yes, no)


def cast(x: Expr, dtype: DType) -> Expr:
    """X converted; to bool as `x != 0`, literals at once."""
    if x.dtype is dtype:
        return x
    if isinstance(x, Const) and (dtype.is_float or not x.dtype.is_float):
        value = np.array(x.value, dtype=x.dtype.numpy).astype(dtype.numpy)
        return const(value.item() if dtype.numpy.kind in "biuf" else float(value), dtype)
    if dtype is DType.BOOL:
        return ne(x, const(0, x.dtype))
    return call("cast", x, dtype=dtype)


def like(value: float, x: Expr) -> Expr:
    """A literal of the dtype of `x`."""
    return const(value, x.dtype)


def load(tensor: int, at: Sequence[Expr], dtype: DType) -> Expr:
    """An element of an operand."""
    return Load(tensor, tuple(at), dtype)


def lowest(dtype: DType) -> Const:
    """The identity of max."""
    if dtype is DType.BOOL:
        return Const(False, dtype)
    return const(-np.inf if dtype.is_float else np.iinfo(dtype.numpy).min, dtype)


def highest(dtype: DType) -> Const:
    """The identity of min."""
    if dtype is DType.BOOL:
        return Const(True, dtype)
    return const(np.inf if dtype.is_float else np.iinfo(dtype.numpy).max, dtype)


def loops(prefix: str, count: int) -> Index:
    """The variables prefix0, prefix1, …."""
    return tuple(Var(f"{prefix}{n}") for n in range(count))


def linear(at: Sequence[Expr], shape: Shape) -> Expr:
    """The row-major position of an index."""
    position = index(0)
    for i, extent in zip(at, shape, strict=True):
        position = add(mul(position, index(extent)), i)
    return position


def unravel(position: Expr, shape: Shape) -> Index:
    """The index at a row-major position; the inverse of `linear`."""
    at: list[Expr] = []
    for axis in reversed(range(len(shape))):
        if axis == 0:
            at.append(position if shape[0] != 1 else index(0))
        else:
            at.append(mod(position, index(shape[axis])))
            position = floordiv(position, index(shape[axis]))
    return tuple(reversed(at))


def size(dim: Dim) -> Expr:
    """A size as an i64 expression."""
    return index(dim)


def accumulator(dtype: DType) -> DType:
    """The dtype in which sums and functions of a dtype are computed: f32 for the half types."""
    return DType.F32 if dtype in (DType.F16, DType.BF16) else dtype
