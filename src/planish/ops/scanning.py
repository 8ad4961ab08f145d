"""CumSum, CumProd and TopK: each element follows from the one before it in the output."""

from __future__ import annotations

from collections.abc import Callable

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, Load, Temp, Var, call, const, index
from planish.base.nest import Nest, Stage, Store
from planish.base.shapes import Dim
from planish.ops.checks import (
    NUMBERS,
    axis_of,
    expect_dtype,
    expect_rank,
    flag_attr,
    int_attr,
    require,
    shape_of,
)
from planish.ops.op import Args, Attrs, Op, Result, unknown
from planish.ops.scalar import (
    Index,
    accumulator,
    cast,
    eq,
    load,
    loops,
    lt,
    select,
    size,
    sub,
)
from planish.ops.sizes import known_int, known_size


def _infer_scan(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    expect_dtype(args, 0, NUMBERS)
    expect_rank(x.shape, 1, 0)
    axis = known_int(require(args, 1))
    if x.shape is not None and axis is not None:
        axis_of(axis, len(x.shape))
    return [Result(x.dtype, x.shape)]


def _refuse_scan(args: Args, attrs: Attrs) -> str | None:
    if known_int(require(args, 1)) is None:
        return "the axis (input 1) is no constant"
    if require(args, 0).dtype in (DType.F16, DType.BF16):
        return "sums of half-width floats would be rounded at each step"
    return None


def _scan(fn: str, start: int) -> Callable[[Args, Attrs], Nest]:
    """y[i] = y[i - 1] fn x[i], in order along the axis, parallel over the others."""

    def nest(args: Args, attrs: Attrs) -> Nest:
        dtype, shape = require(args, 0).dtype, shape_of(args, 0)
        axis = axis_of(known_int(require(args, 1)) or 0, len(shape))
        extent, m = shape[axis], Var("m0")
        around = loops("o", len(shape) - 1)

        def place(step: Expr) -> Index:
            if flag_attr(attrs, "reverse", 0):
                step = sub(size(extent - 1), step)
            return (*around[:axis], step, *around[axis:])

        first = eq(m, index(0))
        before = sub(m, index(1))
        past = select(first, const(start, dtype), Load(len(args), place(before), dtype))
        taken: Expr = load(0, place(m), dtype)
        if flag_attr(attrs, "exclusive", 0):
            taken = select(first, const(start, dtype), load(0, place(before), dtype))
        stage = Stage((extent,), (), "", call(fn, past, taken), dtype, Store(0, place(m)))
        return Nest((*shape[:axis], *shape[axis + 1 :]), (stage,))

    return nest


# ---- TopK ---------------------------------------------------------------------------------------

_TOP_LIMIT = 8192  # elements of a row; beyond, sorting on the host beats n² comparisons


def _infer_top(args: Args, attrs: Attrs) -> list[Result]:
    x, k = require(args, 0), known_size(require(args, 1))
    expect_dtype(args, 0, NUMBERS)
    expect_rank(x.shape, 1, 0)
    if x.shape is None:
        return [Result(x.dtype, None), Result(DType.I64, None)]
    axis = axis_of(int_attr(attrs, "axis", -1), len(x.shape))
    count: Dim = unknown(0) if k is None else k
    extent = x.shape[axis]
    if isinstance(count, int) and isinstance(extent, int) and not 0 <= count <= extent:
        raise ModelError(f"TopK: k is {count}, the axis has {extent} elements")
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return [Result(x.dtype, shape), Result(DType.I64, shape)]


def _top(args: Args, attrs: Attrs) -> Nest:
    """Elements are ranked by counting those that come before them, then put at their rank.

    Equal elements rank by position. n² comparisons a row, but all of them independent.
    """
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    axis = axis_of(int_attr(attrs, "axis", -1), len(shape))
    largest = flag_attr(attrs, "largest", 1)
    extent, count = shape[axis], known_size(require(args, 1)) or 0
    around = loops("o", len(shape) - 1)
    work = accumulator(dtype)

    def place(step: Expr) -> Index:
        return (*around[:axis], step, *around[axis:])

    def x(step: Expr) -> Expr:
        return cast(load(0, place(step), dtype), work)

    m, r = Var("m0"), Var("r0")
    mine, other = x(m), x(r)
    ahead = lt(mine, other) if largest else lt(other, mine)
    tied = call("and", eq(mine, other), lt(r, m))
    one, none = const(1, DType.I64), const(0, DType.I64)
    rank = Stage((extent,), (extent,), "sum", select(call("or", ahead, tied), one, none), DType.I64)
    # The element of rank m is found by looking for the rank.
    found = Stage((count,), (extent,), "argmax", _is_rank(r, m), DType.I64)
    position = Temp(1, (m,), DType.I64)
    return Nest(
        (*shape[:axis], *shape[axis + 1 :]),
        (
            rank,
            found,
            Stage((count,), (), "", load(0, place(position), dtype), dtype, Store(0, place(m))),
            Stage((count,), (), "", position, DType.I64, Store(1, place(m))),
        ),
    )


def _is_rank(r: Expr, m: Expr) -> Expr:
    hit = eq(Temp(0, (r,), DType.I64), m)
    return select(hit, const(1, DType.I32), const(0, DType.I32))


def _refuse_top(args: Args, attrs: Attrs) -> str | None:
    if known_size(require(args, 1)) is None:
        return "k (input 1) is computed at run time"
    extent = shape_of(args, 0)[axis_of(int_attr(attrs, "axis", -1), len(shape_of(args, 0)))]
    if not isinstance(extent, int) or extent > _TOP_LIMIT:
        return f"TopK over {extent} elements is faster by sorting than by counting"
    return None


SCANNING: tuple[Op, ...] = (
    Op("CumSum", _infer_scan, nest=_scan("add", 0), reads_back=True, refuse=_refuse_scan),
    Op("CumProd", _infer_scan, nest=_scan("mul", 1), reads_back=True, refuse=_refuse_scan),
    Op("TopK", _infer_top, nest=_top, refuse=_refuse_top),
)
