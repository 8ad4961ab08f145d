"""Brings conversions of floats to short integers into the form that takes the least code.

    cast u8 (clamp (add (cast i32 (clamp (round (div (max x 0) s)) -255 255)) z) 0 255)
    →  cast u8 (add (nearest (clamp (div x s) -z 255-z)) z)                          where z > 0
    →  cast u8 (nearest (clamp (div x s) 0 255))                                     where z = 0

and the quotient itself becomes a multiply-add where that gives the same integers (`division`).

Exact: bounds move through functions that are monotone, also as they round, and keep whole numbers
whole; those that the range of a value makes superfluous go. `nearest` stands for one instruction,
so it is no function of the language; only the CPU's expression code sees it.
"""

from __future__ import annotations

import functools
import math

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr, call, const, transform, walk
from planish.kernels.loops.division import reciprocal
from planish.kernels.loops.ranges import apply_rounded, range_of, whole_range

# nearest(x): x to the nearest i32, half to even. x fits; NaN gives a multiple of 2^16.
NEAREST = "nearest"
_EXACT = 1 << 24  # whole numbers up to here are exact in f32
_SHORT = 16  # bits of results whose upper half nobody sees


def quantizes(expr: Expr) -> bool:
    """Whether a float becomes an integer somewhere, so that each rounding step before it counts."""
    return any(map(_drops_fraction, walk(expr)))


def _drops_fraction(e: Expr) -> bool:
    if not isinstance(e, Call) or not e.dtype.is_integer:
        return False
    return e.fn == NEAREST or (e.fn == "cast" and e.args[0].dtype.is_float)


@functools.lru_cache(maxsize=512)
def requantized(expr: Expr, *, fused: bool) -> Expr:
    """The expression with its conversions to short integers in their shortest form.

    Args:
        expr: Any expression.
        fused: A multiply-add rounds once, so that it can stand for a division.
    """
    if not quantizes(expr):
        return expr
    return _convert(transform(expr, _hold), fused)


# ---- bounds -------------------------------------------------------------------------------------


def _hold(expr: Expr) -> Expr:
    """Put one bound where it costs least; other functions stay."""
    if expr.dtype is DType.I64:
        return expr  # an index
    match expr:
        case Call(fn="max" | "min" as fn, args=(x, Const(value=bound))) if bound == bound:
            return _bounded(fn, x, bound)
        case Call(fn="max" | "min" as fn, args=(Const(value=bound), x)) if bound == bound:
            return _bounded(fn, x, bound)
        case Call(fn="neg", args=(Const(value=value),)) if expr.dtype.is_float:
            return const(-value, expr.dtype)
        case Call(fn="div" | "mul", args=(x, Const(value=1.0))) if expr.dtype.is_float:
            return x
        case Call(fn="add" | "sub", args=(x, Const(value=0))) if expr.dtype.is_integer:
            return x
    return expr


def _bounded(fn: str, x: Expr, bound: float) -> Expr:
    """max(x, bound) or min(x, bound)."""
    known, lower = range_of(x), fn == "max"
    if known.low >= bound if lower else known.high <= bound:
        return x
    match x:
        case Call(fn="max" | "min" as inner, args=(y, Const(value=other))) if other == other:
            if inner == fn:
                return _bounded(fn, y, max(bound, other) if lower else min(bound, other))
            if bound <= other if lower else bound >= other:
                return call(inner, _bounded(fn, y, bound), const(other, x.dtype))
        case Call(fn="add", args=(y, Const(value=more))) if x.dtype.is_integer and _fits(x):
            return call("add", _bounded(fn, y, bound - more), const(more, x.dtype))
        case Call(fn="cast", args=(y,)) if x.dtype.is_integer and y.dtype.is_float:
            # NaN gives 0, which such a bound leaves as it is.
            harmless = bound <= 0 if lower else bound >= 0
            if abs(bound) < _EXACT and (harmless or not range_of(y).nan):
                return call("cast", _bounded(fn, y, float(bound)), dtype=x.dtype)
        case Call(fn="round" | "floor" | "ceil" | "trunc" as step, args=(y,)):
            if math.isfinite(bound) and bound == int(bound):
                return call(step, _bounded(fn, y, bound))
        case Call(fn="mul" | "div" | "add" | "sub", args=(y, Const())) if x.dtype is DType.F32:
            moved = _pulled_out(x, y)
            if moved is not None:
                outer, rest, limit = moved
                return _bounded(fn, _bounded(outer, rest, limit), bound)
    return call(fn, x, const(bound, x.dtype))


def _pulled_out(x: Call, y: Expr) -> tuple[str, Expr, float] | None:
    """f(max(t, b)) = max(f(t), f(b)) for a growing f: (max, f(t), f(b)); None where f is not."""
    match y:
        case Call(fn="max" | "min" as fn, args=(t, Const(value=bound))) if bound == bound:
            factor = x.args[1]
            assert isinstance(factor, Const)
            finite = math.isfinite(factor.value)
            if not finite or (x.fn in ("mul", "div") and factor.value <= 0):
                return None
            limit = apply_rounded(x.fn, bound, factor.value, x.dtype)
            return None if limit != limit else (fn, call(x.fn, t, factor), limit)
    return None


def _fits(x: Expr) -> bool:
    """Whether a sum of integers does not wrap, whatever it is bounded by before."""
    assert isinstance(x, Call)
    a, b = (range_of(arg) for arg in x.args)
    limits = whole_range(x.dtype)
    return limits.low <= a.low + b.low and a.high + b.high <= limits.high


# ---- conversions --------------------------------------------------------------------------------


def _convert(expr: Expr, fused: bool) -> Expr:
    """Replace `cast (round x)` where x is known to fit."""

    def visit(e: Expr) -> Expr:
        match e:
            case Call(fn="cast", args=(x,)) if e.dtype.is_integer and e.dtype.bits <= _SHORT:
                found = _low_bits(x, e.dtype)
                return e if found is None else Call("cast", (found,), e.dtype)
            case Call(fn="cast", args=(Call(fn="round", args=(x,)),)) if e.dtype is DType.I32:
                return Call(NEAREST, (x,), DType.I32) if _near(x, nan=False) else e
        return e

    memo: dict[int, Expr] = {}

    def rebuild(e: Expr) -> Expr:
        if id(e) not in memo:
            made = visit(e)
            if isinstance(made, Call):
                if made.fn == NEAREST and fused:
                    made = Call(NEAREST, (_undivided(made.args[0]),), made.dtype)
                made = Call(made.fn, tuple(map(rebuild, made.args)), made.dtype)
            memo[id(e)] = made
        return memo[id(e)]

    return rebuild(expr)


def _low_bits(x: Expr, to: DType) -> Expr | None:
    """An i32 whose low 16 bits are those of `x` converted; None where nothing is gained."""
    match x:
        case Call(fn="round", args=(y,)) if _near(y, nan=True):
            return Call(NEAREST, (y,), DType.I32) if range_of(y).within(whole_range(to)) else None
        case Call(fn="cast", args=(Call(fn="round", args=(y,)),)) if x.dtype is DType.I32:
            return Call(NEAREST, (y,), DType.I32) if _near(y, nan=True) else None
        case Call(fn="add" | "sub" as fn, args=(a, b)) if x.dtype is DType.I32:
            left, right = _low_bits(a, to), _low_bits(b, to)
            if left is None and right is None:
                return None
            return Call(fn, (left or a, right or b), DType.I32)
    return None


def _near(x: Expr, *, nan: bool) -> bool:
    """Whether an f32 rounds to an i32, NaN apart."""
    known = range_of(x)
    return (
        x.dtype is DType.F32
        and abs(known.low) < 2**31
        and abs(known.high) < 2**31
        and (nan or not known.nan)
    )


def _undivided(x: Expr) -> Expr:
    """A bounded quotient by a constant as a multiply-add that rounds to the same integers."""
    bounds: dict[str, float] = {}
    quotient = x
    while isinstance(quotient, Call) and quotient.fn in ("min", "max"):
        inner, bound = quotient.args
        if not isinstance(bound, Const) or quotient.fn in bounds:
            return x
        bounds[quotient.fn], quotient = bound.value, inner
    match quotient:
        case Call(fn="div", args=(y, Const(value=divisor))):
            known = range_of(quotient)
            low = bounds.get("max", known.low - 1)
            high = bounds.get("min", known.high + 1)
            if not (math.isfinite(low) and math.isfinite(high)):
                return x
            how = reciprocal(divisor, math.floor(low), math.ceil(high))
            if how is None or any(bound != int(bound) for bound in bounds.values()):
                return x
            if "min" in bounds:
                y = call("min", y, const(how.high, DType.F32))
            if "max" in bounds:
                y = call("max", y, const(how.low, DType.F32))
            rest = call("mul", y, const(how.rest, DType.F32))
            return call("fma", y, const(how.factor, DType.F32), rest)
    return x
