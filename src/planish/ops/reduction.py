"""Reductions over axes: Reduce*, ArgMax, ArgMin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.expr import Expr, Temp, call, index
from planish.base.nest import Nest, Stage, Store
from planish.base.shapes import Dim, Shape, product
from planish.ops.checks import (
    BOOL,
    NUMBERS,
    axes_of,
    axis_of,
    expect_dtype,
    expect_rank,
    flag_attr,
    given,
    int_attr,
    ints_attr,
    require,
    shape_of,
)
from planish.ops.op import Args, Attrs, Op, Reduction, Result
from planish.ops.scalar import (
    Index,
    accumulator,
    add,
    cast,
    div,
    like,
    load,
    loops,
    mul,
    select,
    size,
    sub,
)
from planish.ops.sizes import (
    Combine,
    combine,
    known_ints,
    known_sizes,
    size_add,
    size_max,
    size_min,
    size_mul,
)

Function = Callable[[Expr], Expr]
_SIZES: Mapping[str, Combine] = {
    "ReduceSum": size_add,
    "ReduceProd": size_mul,
    "ReduceMax": size_max,
    "ReduceMin": size_min,
}


def reduced_axes(args: Args, attrs: Attrs, rank: int) -> tuple[int, ...] | None:
    """The axes that go, from input 1 or the attribute; None where they are not known."""
    arg = given(args, 1)
    axes = known_ints(arg) if arg is not None else ints_attr(attrs, "axes") or ()
    if axes is None:
        return None
    if not axes and not int_attr(attrs, "noop_with_empty_axes", 0):
        return tuple(range(rank))
    return axes_of(axes, rank)


def reduced_shape(shape: Shape, axes: tuple[int, ...], keep: bool) -> Shape:
    """A shape with axes reduced to 1, or dropped."""
    kept: list[Dim] = [1 if n in axes else dim for n, dim in enumerate(shape)]
    return tuple(dim for n, dim in enumerate(kept) if keep or n not in axes)


def source_index(at: Index, axes: tuple[int, ...], rank: int, keep: bool) -> Index:
    """The input's index for an output index, with variables r0, r1, … along the reduced axes."""
    kept = iter(at if not keep else [i for n, i in enumerate(at) if n not in axes])
    inside = iter(loops("r", len(axes)))
    return tuple(next(inside) if n in axes else next(kept) for n in range(rank))


def _infer(name: str, accepts: frozenset[DType]) -> Callable[[Args, Attrs], list[Result]]:
    def infer(args: Args, attrs: Attrs) -> list[Result]:
        dtype = expect_dtype(args, 0, accepts)
        shape = require(args, 0).shape
        if shape is None:
            return [Result(dtype, None)]
        keep = flag_attr(attrs, "keepdims", 1)
        axes = reduced_axes(args, attrs, len(shape))
        if axes is None:
            return [Result(dtype, None)]
        result = reduced_shape(shape, axes, keep)
        return [Result(dtype, result, _reduced_sizes(name, args, axes, result))]

    return infer


def _reduced_sizes(
    name: str, args: Args, axes: tuple[int, ...], result: Shape
) -> tuple[Dim, ...] | None:
    sizes = known_sizes(require(args, 0))
    if sizes is None or name not in _SIZES or not sizes:
        return None
    if not axes:
        return sizes
    total: tuple[Dim, ...] | None = sizes[:1]
    for dim in sizes[1:]:
        total = combine(_SIZES[name], [total, (dim,)], ())
    return total if len(result) <= 1 else None


def refuse_unknown_axes(args: Args, attrs: Attrs) -> str | None:
    """Axes that are computed at run time decide the loops."""
    if reduced_axes(args, attrs, len(shape_of(args, 0))) is None:
        return "axes (input 1) are no constant"
    return None


@dataclass(frozen=True)
class _Row:
    """A reduction: what is combined, how, and what is done to the result (value, count)."""

    name: str
    combiner: str
    body: Function
    finish: Callable[[Expr, Expr], Expr] | None = None
    real: bool = False  # integers are computed in f64, as NumPy does


def _same(x: Expr) -> Expr:
    return x


def _square(x: Expr) -> Expr:
    return mul(x, x)


def _abs(x: Expr) -> Expr:
    return call("abs", x)


def _mean(total: Expr, count: Expr) -> Expr:
    return div(total, cast(count, total.dtype))


_ROWS: tuple[_Row, ...] = (
    _Row("ReduceSum", "sum", _same),
    _Row("ReduceMean", "sum", _same, _mean),
    _Row("ReduceProd", "prod", _same),
    _Row("ReduceMax", "max", _same),
    _Row("ReduceMin", "min", _same),
    _Row("ReduceL1", "sum", _abs),
    _Row("ReduceSumSquare", "sum", _square),
    _Row("ReduceL2", "sum", _square, lambda total, count: call("sqrt", total), real=True),
    _Row("ReduceLogSum", "sum", _same, lambda total, count: call("log", total), real=True),
)


def _reduce(row: _Row) -> Callable[[Args, Attrs, int, Index], Reduction]:
    def reduce(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
        dtype, shape = require(args, 0).dtype, shape_of(args, 0)
        axes = reduced_axes(args, attrs, len(shape)) or ()
        keep = flag_attr(attrs, "keepdims", 1)
        x = load(0, source_index(at, axes, len(shape), keep), dtype)
        extents = tuple(shape[axis] for axis in axes)
        if dtype is DType.BOOL:
            return _of_bools(x, extents, row.combiner == "min")
        wide = _work_dtype(dtype, row)
        finish: Expr = Temp(0, (), wide)
        if row.finish is not None and axes:
            finish = row.finish(finish, size(product(extents)))
        plain = wide is dtype and row.finish is None
        body = row.body(cast(x, wide)) if axes else cast(x, wide)
        return Reduction(extents, row.combiner, body, None if plain else cast(finish, dtype), wide)

    return reduce


def _work_dtype(dtype: DType, row: _Row) -> DType:
    if dtype.is_float:
        return accumulator(dtype)
    if row.real:
        return DType.F64
    return DType.I64 if row.finish is not None else dtype


def _of_bools(x: Expr, extents: Shape, every: bool) -> Reduction:
    """Any, or all as the negation of any negation."""
    found: Expr = Temp(0, (), DType.BOOL)
    body = call("not", x) if every else x
    return Reduction(extents, "or", body, call("not", found) if every else None, DType.BOOL)


def _log_sum_exp(args: Args, attrs: Attrs) -> Nest:
    """Max + log(sum(exp(x - max))), which cannot overflow."""
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    axes = reduced_axes(args, attrs, len(shape)) or ()
    keep = flag_attr(attrs, "keepdims", 1)
    wide = accumulator(dtype) if dtype.is_float else DType.F64
    outer = tuple(dim for n, dim in enumerate(shape) if n not in axes)
    extents = tuple(shape[axis] for axis in axes)
    around = loops("o", len(outer))
    x = cast(load(0, source_index(around, axes, len(shape), False), dtype), wide)
    top: Expr = Temp(0, (), wide)
    base: Expr = Temp(1, (), wide)
    finite = select(call("isinf", top), like(0, top), top)
    names = iter(around)
    at = [
        index(0) if n in axes else next(names) for n in range(len(shape)) if keep or n not in axes
    ]
    result = cast(add(base, call("log", Temp(2, (), wide))), dtype)
    return Nest(
        outer,
        (
            Stage((), extents, "max", x, wide),
            Stage((), (), "", finite, wide),
            Stage((), extents, "sum", call("exp", sub(x, base)), wide),
            Stage((), (), "", result, dtype, Store(0, tuple(at))),
        ),
    )


# ---- ArgMax, ArgMin -----------------------------------------------------------------------------


def _infer_arg(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, NUMBERS)
    shape = require(args, 0).shape
    expect_rank(shape, 1, 0)
    if shape is None:
        return [Result(DType.I64, None)]
    axis = axis_of(int_attr(attrs, "axis", 0), len(shape))
    return [Result(DType.I64, reduced_shape(shape, (axis,), flag_attr(attrs, "keepdims", 1)))]


def _arg(combiner: str) -> Callable[[Args, Attrs, int, Index], Reduction]:
    def reduce(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
        dtype, shape = require(args, 0).dtype, shape_of(args, 0)
        axis = axis_of(int_attr(attrs, "axis", 0), len(shape))
        keep = flag_attr(attrs, "keepdims", 1)
        x = cast(load(0, source_index(at, (axis,), len(shape), keep), dtype), accumulator(dtype))
        last = "_last" if int_attr(attrs, "select_last_index", 0) else ""
        return Reduction((shape[axis],), combiner + last, x, None, DType.I64)

    return reduce


def _accepts(name: str) -> frozenset[DType]:
    return NUMBERS | BOOL if name in ("ReduceMax", "ReduceMin") else NUMBERS


REDUCTION: tuple[Op, ...] = (
    *(
        Op(
            row.name,
            _infer(row.name, _accepts(row.name)),
            reduce=_reduce(row),
            refuse=refuse_unknown_axes,
        )
        for row in _ROWS
    ),
    Op(
        "ReduceLogSumExp",
        _infer("ReduceLogSumExp", NUMBERS),
        nest=_log_sum_exp,
        refuse=refuse_unknown_axes,
    ),
    Op("ArgMax", _infer_arg, reduce=_arg("argmax")),
    Op("ArgMin", _infer_arg, reduce=_arg("argmin")),
)
