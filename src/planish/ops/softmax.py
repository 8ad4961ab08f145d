"""Softmax, LogSoftmax, Hardmax: along one axis, which may stand anywhere."""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.expr import Expr, Temp, Var, call
from planish.base.nest import Nest, Stage, Store
from planish.base.shapes import Shape
from planish.ops.checks import FLOATS, axis_of, expect_dtype, int_attr, require, shape_of
from planish.ops.op import Args, Attrs, Op, Result
from planish.ops.scalar import (
    Index,
    accumulator,
    cast,
    eq,
    like,
    load,
    loops,
    mul,
    select,
    sub,
)


def _infer(args: Args, attrs: Attrs) -> list[Result]:
    dtype = expect_dtype(args, 0, FLOATS)
    shape = require(args, 0).shape
    if shape is not None:
        axis_of(int_attr(attrs, "axis", -1), len(shape))
    return [Result(dtype, shape)]


def _axis(args: Args, attrs: Attrs) -> tuple[Shape, int, Index]:
    """The outer extents, the axis, and the outer variables."""
    shape = shape_of(args, 0)
    axis = axis_of(int_attr(attrs, "axis", -1), len(shape))
    outer = (*shape[:axis], *shape[axis + 1 :])
    return outer, axis, loops("o", len(outer))


def _at(around: Index, axis: int, inner: Expr) -> Index:
    return (*around[:axis], inner, *around[axis:])


def _softmax(args: Args, attrs: Attrs) -> Nest:
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    outer, axis, around = _axis(args, attrs)
    extent, wide = shape[axis], accumulator(dtype)
    r, m = Var("r0"), Var("m0")
    top = Temp(0, (), wide)

    def x(inner: Expr) -> Expr:
        return cast(load(0, _at(around, axis, inner), dtype), wide)

    share = cast(mul(Temp(1, (m,), wide), Temp(3, (), wide)), dtype)
    return Nest(
        outer,
        (
            Stage((), (extent,), "max", x(r), wide),
            Stage((extent,), (), "", call("exp", sub(x(m), top)), wide),
            Stage((), (extent,), "sum", Temp(1, (r,), wide), wide),
            Stage((), (), "", call("recip", Temp(2, (), wide)), wide),
            Stage((extent,), (), "", share, dtype, Store(0, _at(around, axis, m))),
        ),
    )


def _log_softmax(args: Args, attrs: Attrs) -> Nest:
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    outer, axis, around = _axis(args, attrs)
    extent, wide = shape[axis], accumulator(dtype)
    r, m = Var("r0"), Var("m0")
    top = Temp(0, (), wide)

    def x(inner: Expr) -> Expr:
        return sub(cast(load(0, _at(around, axis, inner), dtype), wide), top)

    result = cast(sub(x(m), Temp(2, (), wide)), dtype)
    plain = cast(load(0, _at(around, axis, r), dtype), wide)
    return Nest(
        outer,
        (
            Stage((), (extent,), "max", plain, wide),
            Stage((), (extent,), "sum", call("exp", x(r)), wide),
            Stage((), (), "", call("log", Temp(1, (), wide)), wide),
            Stage((extent,), (), "", result, dtype, Store(0, _at(around, axis, m))),
        ),
    )


def _hardmax(args: Args, attrs: Attrs) -> Nest:
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    outer, axis, around = _axis(args, attrs)
    r, m = Var("r0"), Var("m0")
    x = cast(load(0, _at(around, axis, r), dtype), accumulator(dtype))
    zero = cast(like(0, x), dtype)
    hot = select(eq(m, Temp(0, (), DType.I64)), cast(like(1, x), dtype), zero)
    return Nest(
        outer,
        (
            Stage((), (shape[axis],), "argmax", x, DType.I64),
            Stage((shape[axis],), (), "", hot, dtype, Store(0, _at(around, axis, m))),
        ),
    )


SOFTMAX: tuple[Op, ...] = (
    Op("Softmax", _infer, nest=_softmax),
    Op("LogSoftmax", _infer, nest=_log_softmax),
    Op("Hardmax", _infer, nest=_hardmax),
)
