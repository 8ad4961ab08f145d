"""Pools: MaxPool, AveragePool, LpPool and their global forms."""

from __future__ import annotations

from collections.abc import Callable

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, Temp, call, const, index
from planish.base.shapes import Dim, Shape, product
from planish.ops.checks import (
    FLOATS,
    expect_dtype,
    expect_rank,
    flag_attr,
    int_attr,
    ints_attr,
    require,
    shape_of,
)
from planish.ops.op import Args, Attrs, Op, Reduction, Result, unknown
from planish.ops.scalar import (
    Index,
    accumulator,
    add,
    both,
    cast,
    div,
    floordiv,
    like,
    linear,
    load,
    loops,
    lowest,
    maximum,
    minimum,
    mul,
    size,
    sub,
    unravel,
    where,
)
from planish.ops.windows import Windows, kernel_of, windows_of

_MAX_POOL = FLOATS | {DType.I8, DType.U8}


def _windows(args: Args, attrs: Attrs) -> Windows:
    spatial = shape_of(args, 0)[2:]
    return windows_of(spatial, kernel_of(attrs, None, "pool"), attrs)


def _infer_pool(accepts: frozenset[DType], outputs: int) -> Callable[[Args, Attrs], list[Result]]:
    def infer(args: Args, attrs: Attrs) -> list[Result]:
        dtype = expect_dtype(args, 0, accepts)
        x = require(args, 0)
        expect_rank(x.shape, 3, 0)
        if min(ints_attr(attrs, "pads") or (0,)) < 0:
            raise ModelError(f"pads are {attrs['pads']}, expected none below 0")
        shape: Shape = tuple(unknown(n) for n in range(len(kernel_of(attrs, None, "pool")) + 2))
        if x.shape is not None:
            shape = (*x.shape[:2], *_windows(args, attrs).out)
        return [Result(dtype, shape), Result(DType.I64, shape)][:outputs]

    return infer


def _window_load(args: Args, windows: Windows, at: Index, identity: Expr) -> Expr:
    """The element of the window, in the accumulator's dtype; `identity` outside the data."""
    dtype = require(args, 0).dtype
    places, conditions = windows.places(at[2:], loops("r", len(windows.kernel)))
    x = load(0, (*at[:2], *places), dtype)
    return cast(where(both(conditions), x, identity), accumulator(dtype))


def _max_pool(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    windows = _windows(args, attrs)
    body = _window_load(args, windows, at, lowest(dtype))
    wide = accumulator(dtype)
    if output == 0:
        finish = None if wide is dtype else cast(Temp(0, (), wide), dtype)
        return Reduction(windows.kernel, "max", body, finish, wide)
    best = unravel(Temp(0, (), DType.I64), windows.kernel)
    places, _ = windows.places(at[2:], best)
    spatial = shape[2:]
    if int_attr(attrs, "storage_order", 0):
        places, spatial = places[::-1], spatial[::-1]
    plane = add(mul(at[0], size(shape[1])), at[1])
    position = add(mul(plane, size(product(spatial))), linear(places, spatial))
    return Reduction(windows.kernel, "argmax", body, position, DType.I64)


def _average_pool(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    dtype = require(args, 0).dtype
    wide = accumulator(dtype)
    windows = _windows(args, attrs)
    body = _window_load(args, windows, at, const(0, dtype))
    padded = flag_attr(attrs, "count_include_pad", 0)
    counts = [_covered(windows, n, at[n + 2], padded) for n in range(len(windows.kernel))]
    count: Expr = index(1)
    for part in counts:
        count = mul(count, part)
    total: Expr = Temp(0, (), wide)
    return Reduction(windows.kernel, "sum", body, cast(div(total, cast(count, wide)), dtype), wide)


def _covered(windows: Windows, n: int, i: Expr, padded: bool) -> Expr:
    """How many elements of a window count along an axis: in the data, or in it and its pads."""
    kernel, dilation = windows.kernel[n], windows.dilations[n]
    limit: Dim = windows.sizes[n] + (windows.end[n] if padded else 0)
    start = sub(mul(i, index(windows.strides[n])), size(windows.begin[n]))
    first: Expr = index(0)
    if windows.begin[n] != 0 and not padded:
        before = maximum(sub(index(0), start), index(0))
        first = floordiv(add(before, index(dilation - 1)), index(dilation))
    last: Expr = index(kernel)
    reach = (windows.out[n] - 1) * windows.strides[n] - windows.begin[n] + (kernel - 1) * dilation
    over = reach - limit
    if not isinstance(over, int) or over >= 0:
        room = add(sub(size(limit), start), index(dilation - 1))
        last = minimum(last, floordiv(room, index(dilation)))
    return sub(last, first)


def _norm(p: int) -> tuple[Callable[[Expr], Expr], Callable[[Expr], Expr]]:
    """|x|^p and the p-th root.

    Raises:
        ModelError: p is below 1.
    """
    if p < 1:
        raise ModelError(f"attribute 'p' is {p}, expected 1 or more")
    if p == 1:
        return lambda x: call("abs", x), lambda total: total
    if p == 2:
        return lambda x: mul(x, x), lambda total: call("sqrt", total)
    return (
        lambda x: call("pow", call("abs", x), like(p, x)),
        lambda total: call("pow", total, like(1 / p, total)),
    )


def _lp_pool(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    dtype = require(args, 0).dtype
    wide = accumulator(dtype)
    windows = _windows(args, attrs)
    power, root = _norm(int_attr(attrs, "p", 2))
    body = power(_window_load(args, windows, at, const(0, dtype)))
    return Reduction(windows.kernel, "sum", body, cast(root(Temp(0, (), wide)), dtype), wide)


def _infer_global(args: Args, attrs: Attrs) -> list[Result]:
    dtype = expect_dtype(args, 0, FLOATS)
    shape = require(args, 0).shape
    expect_rank(shape, 3, 0)
    if shape is None:
        return [Result(dtype, None)]
    return [Result(dtype, (*shape[:2], *(1 for _ in shape[2:])))]


def _global_load(args: Args, at: Index) -> tuple[Shape, Expr]:
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    x = load(0, (*at[:2], *loops("r", len(shape) - 2)), dtype)
    return shape[2:], cast(x, accumulator(dtype))


def _global_average(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    extents, x = _global_load(args, at)
    mean = div(Temp(0, (), x.dtype), cast(size(product(extents)), x.dtype))
    return Reduction(extents, "sum", x, cast(mean, require(args, 0).dtype), x.dtype)


def _global_max(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    extents, x = _global_load(args, at)
    dtype = require(args, 0).dtype
    finish = None if x.dtype is dtype else cast(Temp(0, (), x.dtype), dtype)
    return Reduction(extents, "max", x, finish, x.dtype)


def _global_lp(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    extents, x = _global_load(args, at)
    power, root = _norm(int_attr(attrs, "p", 2))
    finish = cast(root(Temp(0, (), x.dtype)), require(args, 0).dtype)
    return Reduction(extents, "sum", power(x), finish, x.dtype)


def _flops(args: Args, attrs: Attrs) -> Dim | None:
    shape = require(args, 0).shape
    if shape is None:
        return None
    windows = _windows(args, attrs)
    return product(shape[:2]) * product(windows.out) * product(windows.kernel)


POOLING: tuple[Op, ...] = (
    Op("MaxPool", _infer_pool(_MAX_POOL, 2), reduce=_max_pool, flops=_flops),
    Op(
        "AveragePool",
        _infer_pool(FLOATS, 1),
        reduce=_average_pool,
        flops=_flops,
    ),
    Op("LpPool", _infer_pool(FLOATS, 1), reduce=_lp_pool, flops=_flops),
    Op("GlobalAveragePool", _infer_global, reduce=_global_average),
    Op("GlobalMaxPool", _infer_global, reduce=_global_max),
    Op("GlobalLpPool", _infer_global, reduce=_global_lp),
)
