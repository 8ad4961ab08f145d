"""Turns bounds checks inside a reduction into loop bounds.

    sum r0<3: select(and(ge(o0 + r0 - 1, 0), lt(o0 + r0 - 1, 8)), x[o0 + r0 - 1], 0)
    →  sum max(0, 1 - o0) <= r0 < min(3, 9 - o0): x[o0 + r0 - 1]

Only checks that compare sums in which one reduction variable occurs, against the identity of the
combiner on the other side, are turned; the others stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr, Var, call, const, index
from planish.kernels.loops.linear import Linear, linear, mentions
from planish.kernels.loops.normal import Step, as_expr

_Wrap = Callable[[Expr, Expr], Expr]  # condition, value -> the step's expression


@dataclass(frozen=True)
class Bounds:
    """What limits a reduction loop, besides 0 and its extent."""

    at_least: tuple[Expr, ...] = ()
    below: tuple[Expr, ...] = ()


def identity(combiner: str, dtype: DType) -> int | float | bool:
    """The value that changes nothing."""
    if combiner == "sum":
        return 0
    if combiner == "prod":
        return 1
    if combiner == "or" or dtype is DType.BOOL:
        return combiner == "min"
    largest = "min" in combiner
    if dtype.is_float:
        return math.inf if largest else -math.inf
    limits = np.iinfo(dtype.numpy)
    return int(limits.max if largest else limits.min)


def clamp_reduction(step: Step, lane_vars: set[str]) -> tuple[Step, dict[str, Bounds]]:
    """Move checks of a reduction step into the bounds of its loops.

    Args:
        step: A step with a reduction.
        lane_vars: Variables that differ from lane to lane: bounds may not depend on them.

    Returns:
        The step with the checks gone, and the bounds by loop variable.
    """
    split = _guarded(step)
    if split is None:
        return step, {}
    condition, inner, rewrap = split
    found: dict[str, Bounds] = {loop.var: Bounds() for loop in step.reduces}
    kept: list[Expr] = []
    for check in _conjuncts(condition):
        if not _absorb(check, found, lane_vars):
            kept.append(check)
    if len(kept) == len(_conjuncts(condition)):
        return step, {}
    left = kept[0] if kept else None
    for check in kept[1:]:
        left = call("and", left or check, check)
    expr = inner if left is None else rewrap(left, inner)
    return replace(step, expr=expr), found


def _guarded(step: Step) -> tuple[Expr, Expr, _Wrap] | None:
    """(condition, value, how to wrap them again) of a step with a check that may become a bound.

    That is `select(condition, value, identity)`, also under functions that keep the identity.
    """
    neutral = const(identity(step.combiner, step.expr.dtype), step.expr.dtype)
    match step.expr:
        case Call(fn="select", args=(condition, value, other)) if _neutral(other, step, neutral):
            return condition, value, lambda c, v: call("select", c, v, other)
        case Call(fn="cast", args=(Call(fn="select", args=(condition, value, other)),)):
            if not isinstance(other, Const):
                return None
            cast = call("cast", other, dtype=step.expr.dtype)
            low = identity(step.combiner, other.dtype)
            if cast == other or other == const(low, other.dtype):
                outer = step.expr.dtype

                def wrap(c: Expr, v: Expr) -> Expr:
                    inner = v.args[0] if isinstance(v, Call) and v.fn == "cast" else v
                    return call("cast", call("select", c, inner, other), dtype=outer)

                return condition, call("cast", value, dtype=outer), wrap
        case Call(fn=fn, args=(Call(fn="select", args=(condition, value, other)), *rest)):
            same = all(a == step.expr.args[0] for a in rest)
            zero = isinstance(other, Const) and other.value == 0 and step.combiner == "sum"
            if zero and ((fn == "abs" and not rest) or (fn == "mul" and rest and same)):

                def rebuild(c: Expr, v: Expr) -> Expr:
                    return call("select", c, v, const(0, v.dtype))

                args = (value,) * len(step.expr.args)
                return condition, call(fn, *args), rebuild
    return None


def _neutral(other: Expr, step: Step, neutral: Const) -> bool:
    """Whether a value changes nothing. argmax skips what is not better than the lowest value."""
    if other == neutral:
        return True
    zero = isinstance(other, Const) and other.value == 0
    return zero and step.combiner == "sum"


def _conjuncts(condition: Expr) -> list[Expr]:
    match condition:
        case Call(fn="and", args=(a, b)):
            return _conjuncts(a) + _conjuncts(b)
    return [condition]


def _absorb(check: Expr, found: dict[str, Bounds], lane_vars: set[str]) -> bool:
    """Turn `sum >= 0` into a bound of the one reduction variable in the sum."""
    total = _not_negative(check)
    if total is None:
        return False
    inside = [v for v in found if any(mentions(atom, v) for atom, _ in total.terms)]
    if len(inside) != 1:
        return False
    (var,) = inside
    slope = total.factor(var)
    if not isinstance(slope, int) or slope == 0:
        return False
    rest = total.plus(Linear(0, ((Var(var), slope),)), -1)
    if any(mentions(atom, lane) for atom, _ in rest.terms for lane in lane_vars):
        return False
    old, value = found[var], as_expr(rest)
    if slope > 0:
        low = call("add", call("sub", index(0), value), index(slope - 1))
        low = call("floordiv", low, index(slope))
        found[var] = Bounds((*old.at_least, low), old.below)
    else:
        high = call("add", call("floordiv", value, index(-slope)), index(1))
        found[var] = Bounds(old.at_least, (*old.below, high))
    return True


def _not_negative(check: Expr) -> Linear | None:
    """A check as a sum that must be at least 0."""
    if not isinstance(check, Call) or check.fn not in ("lt", "le", "gt", "ge"):
        return None
    a, b = check.args
    if a.dtype is not DType.I64:
        return None
    low, high = (a, b) if check.fn in ("lt", "le") else (b, a)
    strict = check.fn in ("lt", "gt")
    return linear(high).plus(linear(low), -1).plus(Linear(-1 if strict else 0, ()))
