"""What is known of the values that an expression takes: bounds, and whether NaN is among them.

Bounds are exact, not estimates: float arithmetic rounds monotonically, so the results at the ends
of the arguments' ranges, rounded as the code rounds them, bound all others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr

_STEPS: dict[str, Callable[[float], int]] = {
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
}


@dataclass(frozen=True)
class Range:
    """Values from `low` to `high`, both included; NaN too where `nan`."""

    low: float
    high: float
    nan: bool

    def joined(self, other: Range) -> Range:
        """The values of either."""
        return Range(min(self.low, other.low), max(self.high, other.high), self.nan or other.nan)

    def within(self, other: Range) -> bool:
        """Whether the numbers among these values are values of the other range."""
        return other.low <= self.low and self.high <= other.high


def whole_range(dtype: DType) -> Range:
    """Every value of a dtype."""
    if dtype.is_float:
        return Range(-math.inf, math.inf, nan=True)
    if dtype is DType.BOOL:
        return Range(0, 1, nan=False)
    limits = np.iinfo(dtype.numpy)
    return Range(int(limits.min), int(limits.max), nan=False)


def range_of(expr: Expr) -> Range:
    """The values of an expression."""
    if isinstance(expr, Const):
        broken = expr.value != expr.value
        return whole_range(expr.dtype) if broken else Range(expr.value, expr.value, nan=False)
    everything = whole_range(expr.dtype)
    if not isinstance(expr, Call) or expr.dtype in (DType.F16, DType.BF16):
        return everything
    if expr.fn == "select":
        return range_of(expr.args[1]).joined(range_of(expr.args[2]))
    args = [range_of(arg) for arg in expr.args]
    if expr.fn == "cast":
        return _converted(args[0], expr.args[0].dtype, expr.dtype)
    if expr.fn in _CORNERS:
        return _corners(expr, args) or everything
    if expr.fn in ("min", "max"):
        pick: Callable[[float, float], float] = min if expr.fn == "min" else max
        a, b = args
        return Range(pick(a.low, b.low), pick(a.high, b.high), a.nan or b.nan)
    if expr.fn in _STEPS and expr.dtype.is_float:
        step, (x,) = _STEPS[expr.fn], args
        return Range(_stepped(step, x.low), _stepped(step, x.high), x.nan)
    if expr.fn == "neg" and expr.dtype.is_float:
        return Range(-args[0].high, -args[0].low, args[0].nan)
    return everything


_CORNERS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


def apply_rounded(fn: str, a: float, b: float, dtype: DType) -> float:
    """Add, subtract, multiply or divide two numbers in a float dtype."""
    with np.errstate(all="ignore"):
        return float(_CORNERS[fn](dtype.numpy.type(a), dtype.numpy.type(b)))


def _corners(expr: Call, args: list[Range]) -> Range | None:
    """The range of arithmetic that is monotone in each argument; None where nothing is known."""
    a, b = args
    if expr.fn == "div" and (not expr.dtype.is_float or b.low <= 0 <= b.high):
        return None
    ends = list(itertools.product((a.low, a.high), (b.low, b.high)))
    if expr.dtype.is_float:
        found = [apply_rounded(expr.fn, x, y, expr.dtype) for x, y in ends]
        if any(value != value for value in found):
            return None
        return Range(min(found), max(found), a.nan or b.nan)
    exact = [{"add": x + y, "sub": x - y, "mul": x * y}[expr.fn] for x, y in ends]
    made = Range(min(exact), max(exact), nan=False)
    return made if made.within(whole_range(expr.dtype)) else None


def _stepped(step: Callable[[float], int], value: float) -> float:
    return float(step(value)) if math.isfinite(value) else value


def _converted(x: Range, source: DType, to: DType) -> Range:
    """The range after a cast. Floats saturate and NaN becomes 0; integers wrap."""
    if to.is_float:
        if to in (DType.F16, DType.BF16):
            return whole_range(to)
        with np.errstate(all="ignore"):
            low, high = float(to.numpy.type(x.low)), float(to.numpy.type(x.high))
        return Range(low, high, x.nan)
    limits = whole_range(to)
    if to is DType.BOOL:
        return limits
    if not source.is_float:
        return x if x.within(limits) else limits
    low, high = (
        min(max(_stepped(math.trunc, v), limits.low), limits.high) for v in (x.low, x.high)
    )
    return Range(min(low, 0), max(high, 0), nan=False) if x.nan else Range(low, high, nan=False)
