"""Normalisations: Layer, RMS, Instance, Group, MeanVariance, Lp, and local response.

The variance is the mean of the squared distances from the mean, in a second pass: the one-pass form
loses all digits where the mean is large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, Temp, Var, call, const, index
from planish.base.nest import Nest, Stage, Store
from planish.base.shapes import Shape, floordiv, product
from planish.ops.checks import (
    FLOATS,
    axes_of,
    axis_of,
    broadcast,
    dtype_attr,
    equal,
    expect_dtype,
    expect_rank,
    float_attr,
    given,
    int_attr,
    ints_attr,
    require,
    shape_of,
    text,
)
from planish.ops.op import Args, Attrs, Fact, Op, Reduction, Result
from planish.ops.pointwise import fetch
from planish.ops.scalar import (
    Index,
    accumulator,
    add,
    both,
    cast,
    div,
    eq,
    ge,
    like,
    load,
    loops,
    lt,
    mul,
    select,
    size,
    sub,
    where,
)


@dataclass(frozen=True)
class _Group:
    """The set of elements that share their statistics.

    Attributes:
        outer: Extents of the loops over the sets.
        inner: Extents of a set.
        at: (outer variables, inner variables) -> index into the data.
    """

    outer: Shape
    inner: Shape
    at: Callable[[Index, Index], Index]

    def x(self, args: Args, prefix: str) -> Expr:
        """The data with loop variables of one kind inside a set, in the accumulator's dtype."""
        dtype = require(args, 0).dtype
        place = self.place(prefix)
        return cast(load(0, place, dtype), accumulator(dtype))

    def place(self, prefix: str) -> Index:
        """The index into the data."""
        return self.at(loops("o", len(self.outer)), loops(prefix, len(self.inner)))


def _statistics(args: Args, group: _Group, work: DType) -> tuple[list[Stage], Expr, Expr]:
    """Stages for mean and variance of each set, and both as expressions."""
    count = cast(size(product(group.inner)), work)
    mean: Expr = Temp(1, (), work)
    distance = sub(group.x(args, "r"), mean)
    stages = [
        Stage((), group.inner, "sum", group.x(args, "r"), work),
        Stage((), (), "", div(Temp(0, (), work), count), work),
        Stage((), group.inner, "sum", mul(distance, distance), work),
    ]
    return stages, mean, div(Temp(2, (), work), count)


def _normalized(
    args: Args, group: _Group, epsilon: float, affine: Callable[[Expr, Index], Expr]
) -> Nest:
    """(x - mean) / sqrt(variance + epsilon), then `affine` with the index into the data."""
    dtype = require(args, 0).dtype
    work = accumulator(dtype)
    stages, mean, variance = _statistics(args, group, work)
    inverse = div(const(1, work), call("sqrt", add(variance, const(epsilon, work))))
    place = group.place("m")
    y = mul(sub(group.x(args, "m"), mean), Temp(3, (), work))
    stages += [
        Stage((), (), "", inverse, work),
        Stage(group.inner, (), "", cast(affine(y, place), dtype), dtype, Store(0, place)),
    ]
    return Nest(group.outer, tuple(stages))


# ---- LayerNormalization, RMSNormalization -------------------------------------------------------


def _infer_layer_norm(args: Args, attrs: Attrs) -> list[Result]:
    y, axis = _infer_trailing(args, attrs)
    statistics = dtype_attr(attrs, "stash_type", DType.F32)
    shape = None if y.shape is None else (*y.shape[:axis], *(1 for _ in y.shape[axis:]))
    return [y, Result(statistics, shape), Result(statistics, shape)]


def _infer_trailing(args: Args, attrs: Attrs) -> tuple[Result, int]:
    x = require(args, 0)
    expect_dtype(args, 0, FLOATS)
    if x.shape is None:
        return Result(x.dtype, None), 0
    axis = axis_of(int_attr(attrs, "axis", -1), len(x.shape))
    facts: list[Fact] = []
    for number in (1, 2):
        arg = given(args, number)
        if arg is None or arg.shape is None:
            continue
        shape, more = broadcast((x.shape, arg.shape))
        if shape != x.shape and not more:
            raise ModelError(
                f"input {number} {text(arg.shape)} does not broadcast to {text(x.shape)}"
            )
        facts += more
    return Result(x.dtype, x.shape, facts=tuple(facts)), axis


def _trailing(args: Args, attrs: Attrs) -> _Group:
    shape = shape_of(args, 0)
    axis = axis_of(int_attr(attrs, "axis", -1), len(shape))
    return _Group(shape[:axis], shape[axis:], lambda outer, inner: (*outer, *inner))


def _layer_norm(args: Args, attrs: Attrs) -> Nest:
    group = _trailing(args, attrs)
    shape, work = shape_of(args, 0), accumulator(require(args, 0).dtype)

    def affine(y: Expr, place: Index) -> Expr:
        y = mul(y, cast(fetch(args, 1, place, shape), work))
        return y if given(args, 2) is None else add(y, cast(fetch(args, 2, place, shape), work))

    nest = _normalized(args, group, float_attr(attrs, "epsilon", 1e-5), affine)
    kept = dtype_attr(attrs, "stash_type", DType.F32)
    at = (*loops("o", len(group.outer)), *(index(0) for _ in group.inner))
    statistics = (
        Stage((), (), "", cast(Temp(1, (), work), kept), kept, Store(1, at)),
        Stage((), (), "", cast(Temp(3, (), work), kept), kept, Store(2, at)),
    )
    return Nest(nest.outer, (*nest.stages, *statistics))


def _infer_rms_norm(args: Args, attrs: Attrs) -> list[Result]:
    return [_infer_trailing(args, attrs)[0]]


def _rms_norm(args: Args, attrs: Attrs) -> Nest:
    group = _trailing(args, attrs)
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    work = accumulator(dtype)
    x = group.x(args, "r")
    mean = div(Temp(0, (), work), cast(size(product(group.inner)), work))
    root = call("sqrt", add(mean, const(float_attr(attrs, "epsilon", 1e-5), work)))
    place = group.place("m")
    y = mul(group.x(args, "m"), Temp(1, (), work))
    y = mul(y, cast(fetch(args, 1, place, shape), work))
    return Nest(
        group.outer,
        (
            Stage((), group.inner, "sum", mul(x, x), work),
            Stage((), (), "", div(const(1, work), root), work),
            Stage(group.inner, (), "", cast(y, dtype), dtype, Store(0, place)),
        ),
    )


# ---- InstanceNormalization, GroupNormalization --------------------------------------------------


def _infer_per_channel(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    expect_dtype(args, 0, FLOATS)
    expect_rank(x.shape, 3, 0)
    facts: list[Fact] = []
    for number in (1, 2):
        shape = require(args, number).shape
        expect_rank(shape, 1, number, 1)
        if shape is not None and x.shape is not None:
            facts += equal(shape[0], x.shape[1], f"input {number} against {text(x.shape)}")
    return [Result(x.dtype, x.shape, facts=tuple(facts))]


def _per_channel(args: Args) -> Callable[[Expr, Index], Expr]:
    work = accumulator(require(args, 0).dtype)

    def affine(y: Expr, place: Index) -> Expr:
        scale, bias = (load(n, (place[1],), require(args, n).dtype) for n in (1, 2))
        return add(mul(y, cast(scale, work)), cast(bias, work))

    return affine


def _instance_norm(args: Args, attrs: Attrs) -> Nest:
    shape = shape_of(args, 0)
    group = _Group(shape[:2], shape[2:], lambda outer, inner: (*outer, *inner))
    return _normalized(args, group, float_attr(attrs, "epsilon", 1e-5), _per_channel(args))


def _infer_group_norm(args: Args, attrs: Attrs) -> list[Result]:
    results = _infer_per_channel(args, attrs)
    shape, groups = results[0].shape, int_attr(attrs, "num_groups")
    if groups < 1 or (shape is not None and isinstance(shape[1], int) and shape[1] % groups):
        raise ModelError(f"num_groups is {groups}, no divisor of the channels of {text(shape)}")
    return results


def _group_norm(args: Args, attrs: Attrs) -> Nest:
    shape, groups = shape_of(args, 0), int_attr(attrs, "num_groups")
    width = floordiv(shape[1], groups)

    def at(outer: Index, inner: Index) -> Index:
        return (outer[0], add(mul(outer[1], size(width)), inner[0]), *inner[1:])

    group = _Group((shape[0], groups), (width, *shape[2:]), at)
    return _normalized(args, group, float_attr(attrs, "epsilon", 1e-5), _per_channel(args))


# ---- MeanVarianceNormalization, LpNormalization -------------------------------------------------


def _infer_same(args: Args, attrs: Attrs) -> list[Result]:
    return [Result(expect_dtype(args, 0, FLOATS), require(args, 0).shape)]


def _along(shape: Shape, axes: tuple[int, ...]) -> _Group:
    """Sets that span some axes."""

    def at(outer: Index, inner: Index) -> Index:
        around, inside = iter(outer), iter(inner)
        return tuple(next(inside) if n in axes else next(around) for n in range(len(shape)))

    outer = tuple(dim for n, dim in enumerate(shape) if n not in axes)
    return _Group(outer, tuple(shape[axis] for axis in axes), at)


def _mean_variance_norm(args: Args, attrs: Attrs) -> Nest:
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    work = accumulator(dtype)
    group = _along(shape, axes_of(ints_attr(attrs, "axes") or (0, 2, 3), len(shape)))
    stages, mean, variance = _statistics(args, group, work)
    deviation = add(call("sqrt", variance), const(1e-9, work))
    y = div(sub(group.x(args, "m"), mean), Temp(3, (), work))
    stages += [
        Stage((), (), "", deviation, work),
        Stage(group.inner, (), "", cast(y, dtype), dtype, Store(0, group.place("m"))),
    ]
    return Nest(group.outer, tuple(stages))


def _lp_norm(args: Args, attrs: Attrs) -> Nest:
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    work, p = accumulator(dtype), int_attr(attrs, "p", 2)
    if p not in (1, 2):
        raise ModelError(f"attribute 'p' is {p}, expected 1 or 2")
    group = _along(shape, (axis_of(int_attr(attrs, "axis", -1), len(shape)),))
    x = group.x(args, "r")
    total: Expr = Temp(0, (), work)
    norm: Expr = Temp(1, (), work)
    y = select(eq(norm, like(0, norm)), like(0, norm), div(group.x(args, "m"), norm))
    return Nest(
        group.outer,
        (
            Stage((), group.inner, "sum", call("abs", x) if p == 1 else mul(x, x), work),
            Stage((), (), "", total if p == 1 else call("sqrt", total), work),
            Stage(group.inner, (), "", cast(y, dtype), dtype, Store(0, group.place("m"))),
        ),
    )


# ---- LRN ----------------------------------------------------------------------------------------


def _infer_lrn(args: Args, attrs: Attrs) -> list[Result]:
    if int_attr(attrs, "size") < 1:
        raise ModelError("attribute 'size': expected 1 or more")
    expect_rank(require(args, 0).shape, 2, 0)
    return _infer_same(args, attrs)


def _lrn(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    dtype, channels = require(args, 0).dtype, shape_of(args, 0)[1]
    work, window = accumulator(dtype), int_attr(attrs, "size")
    channel = sub(add(at[1], Var("r0")), index((window - 1) // 2))
    inside = both((ge(channel, index(0)), lt(channel, size(channels))))
    x = cast(load(0, (at[0], channel, *at[2:]), dtype), work)
    body = where(inside, mul(x, x), like(0, x))
    alpha = const(float_attr(attrs, "alpha", 1e-4) / window, work)
    base = add(const(float_attr(attrs, "bias", 1.0), work), mul(alpha, Temp(0, (), work)))
    beta = float_attr(attrs, "beta", 0.75)
    y = div(cast(load(0, at, dtype), work), _power(base, beta))
    return Reduction((window,), "sum", body, cast(y, dtype), work)


def _power(base: Expr, beta: float) -> Expr:
    """Base ** beta for a positive base; 0.75, the usual one, by square roots."""
    root = call("sqrt", base)
    if beta == 0.75:
        return mul(root, call("sqrt", root))
    if beta == 0.5:
        return root
    return base if beta == 1.0 else call("pow", base, like(beta, base))


NORMALIZATION: tuple[Op, ...] = (
    Op("LayerNormalization", _infer_layer_norm, nest=_layer_norm),
    Op("RMSNormalization", _infer_rms_norm, nest=_rms_norm),
    Op("InstanceNormalization", _infer_per_channel, nest=_instance_norm),
    Op("GroupNormalization", _infer_group_norm, nest=_group_norm),
    Op("MeanVarianceNormalization", _infer_same, nest=_mean_variance_norm),
    Op("LpNormalization", _infer_same, nest=_lp_norm),
    Op("LRN", _infer_lrn, reduce=_lrn),
)
