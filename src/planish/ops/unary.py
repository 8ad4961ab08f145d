"""Functions of one element: arithmetic, rounding, exponentials, trigonometry, tests, logic."""

from __future__ import annotations

from collections.abc import Callable

from planish.base.dtypes import DType
from planish.base.expr import Const, Expr, call, const
from planish.base.shapes import Dim
from planish.ops.checks import BOOL, FLOATS, INTEGERS, NUMBERS, flag_attr
from planish.ops.op import Attrs, Op
from planish.ops.pointwise import pointwise
from planish.ops.scalar import eq, like, lt, select
from planish.ops.sizes import Combine, at_least

_SIGNED = frozenset(d for d in NUMBERS if d.is_float or d.is_signed)


def _plain(fn: str) -> Callable[[Attrs, Expr], Expr]:
    return lambda attrs, x: call(fn, x)


def _sign(attrs: Attrs, x: Expr) -> Expr:
    if x.dtype.is_float or x.dtype.is_signed:
        return call("sign", x)
    return select(eq(x, like(0, x)), like(0, x), like(1, x))


def _abs(attrs: Attrs, x: Expr) -> Expr:
    return call("abs", x) if x.dtype.is_float or x.dtype.is_signed else x


def _reciprocal(attrs: Attrs, x: Expr) -> Expr:
    return call("div", like(1, x), x)


def _is_inf(attrs: Attrs, x: Expr) -> Expr:
    positive = flag_attr(attrs, "detect_positive", 1)
    negative = flag_attr(attrs, "detect_negative", 1)
    infinite = call("isinf", x)
    if positive and negative:
        return infinite
    if not positive and not negative:
        return Const(False, DType.BOOL)
    zero = like(0, x)
    return call("and", infinite, lt(zero, x) if positive else lt(x, zero))


def _same_size(a: Dim) -> Dim:
    return a


def _negative_size(a: Dim) -> Dim:
    return a * -1


def _absolute_size(a: Dim) -> Dim | None:
    return a if at_least(a, 0) else abs(a) if isinstance(a, int) else None


def _bitwise_not(attrs: Attrs, x: Expr) -> Expr:
    ones = const(-1, x.dtype) if x.dtype.is_signed else const(2**x.dtype.bits - 1, x.dtype)
    return call("xor", x, ones)


_FUNCTIONS: tuple[tuple[str, str], ...] = (
    ("Sqrt", "sqrt"),
    ("Exp", "exp"),
    ("Log", "log"),
    ("Erf", "erf"),
    ("Sin", "sin"),
    ("Cos", "cos"),
    ("Tan", "tan"),
    ("Asin", "asin"),
    ("Acos", "acos"),
    ("Atan", "atan"),
    ("Sinh", "sinh"),
    ("Cosh", "cosh"),
    ("Tanh", "tanh"),
    ("Asinh", "asinh"),
    ("Acosh", "acosh"),
    ("Atanh", "atanh"),
    ("Sigmoid", "sigmoid"),
    ("Softplus", "softplus"),
)
_ROUNDINGS: tuple[tuple[str, str], ...] = (
    ("Floor", "floor"),
    ("Ceil", "ceil"),
    ("Round", "round"),
)


def _function(name: str, fn: str, sizes: Combine | None = None) -> Op:
    return pointwise(name, _plain(fn), inputs=1, accepts=FLOATS, sizes=sizes)


UNARY: tuple[Op, ...] = (
    *(_function(name, fn) for name, fn in _FUNCTIONS),
    *(_function(name, fn, _same_size) for name, fn in _ROUNDINGS),
    pointwise("Abs", _abs, inputs=1, accepts=NUMBERS, sizes=_absolute_size),
    pointwise("Neg", _plain("neg"), inputs=1, accepts=_SIGNED, sizes=_negative_size),
    pointwise("Sign", _sign, inputs=1, accepts=NUMBERS),
    pointwise("Reciprocal", _reciprocal, inputs=1, accepts=FLOATS),
    pointwise("IsNaN", _plain("isnan"), inputs=1, accepts=FLOATS, result=DType.BOOL),
    pointwise("IsInf", _is_inf, inputs=1, accepts=FLOATS, result=DType.BOOL),
    pointwise("Not", _plain("not"), inputs=1, accepts=BOOL),
    pointwise("BitwiseNot", _bitwise_not, inputs=1, accepts=INTEGERS),
)
