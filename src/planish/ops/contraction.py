"""Contractions: Conv, ConvTranspose, MatMul."""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, Temp, index
from planish.base.shapes import Dim, Shape, floordiv, is_static, name_of, product
from planish.ops.checks import (
    FLOATS,
    NUMBERS,
    broadcast,
    equal,
    expect_dtype,
    expect_rank,
    given,
    int_attr,
    ints_attr,
    require,
    same_dtype,
    shape_of,
    str_attr,
    text,
)
from planish.ops.op import Args, Attrs, Op, Reduction, Result, is_unknown, unknown
from planish.ops.scalar import (
    Index,
    accumulator,
    add,
    both,
    cast,
    clamp,
    eq,
    ge,
    like,
    load,
    loops,
    lt,
    mod,
    mul,
    size,
    sub,
    where,
)
from planish.ops.scalar import floordiv as divide
from planish.ops.windows import (
    AUTO_PAD,
    Windows,
    kernel_and_facts,
    kernel_of,
    pads_attr,
    per_axis,
    windows_of,
)

# ---- Conv ---------------------------------------------------------------------------------------


def conv_windows(args: Args, attrs: Attrs) -> Windows:
    """Where the windows of a Conv lie, with `auto_pad` resolved."""
    x, w = shape_of(args, 0), shape_of(args, 1)
    return windows_of(x[2:], kernel_of(attrs, w[2:], "Conv"), attrs)


def infer_conv(args: Args, attrs: Attrs) -> Result:
    """The type of a convolution of input 0 with the weight in input 1."""
    x, w = require(args, 0), require(args, 1)
    expect_rank(x.shape, 3, 0)
    expect_rank(w.shape, 3, 1)
    if x.shape is None or w.shape is None:
        rank = x.shape or w.shape
        shape = None if rank is None else tuple(unknown(n) for n in range(len(rank)))
        return Result(x.dtype, shape)
    if len(x.shape) != len(w.shape):
        raise ModelError(f"input {text(x.shape)} and weight {text(w.shape)} differ in rank")
    group = int_attr(attrs, "group", 1)
    what = f"weight {text(w.shape)} with group={group} over an input {text(x.shape)}"
    facts = equal(x.shape[1], w.shape[1] * group, what)
    if group < 1 or (isinstance(w.shape[0], int) and w.shape[0] % group):
        raise ModelError(f"{what}: the output channels do not divide into groups")
    kernel, more = kernel_and_facts(attrs, w.shape[2:], "Conv")
    facts = (*facts, *more)
    open_sizes = tuple(unknown(n) for n in range(len(w.shape) - 2))
    spatial = open_sizes if kernel is None else windows_of(x.shape[2:], kernel, attrs).out
    return Result(x.dtype, (x.shape[0], w.shape[0], *spatial), facts=facts)


def refuse_open_filter(args: Args, attrs: Attrs) -> str | None:
    """Templates have the filter's shape and the channels in their code."""
    x, w = shape_of(args, 0), shape_of(args, 1)
    if not is_static(w):
        return f"its filter {text(w)} has a shape that is known at run time only"
    settled = name_of(x[1]) and not is_unknown(name_of(x[1]))  # a dim that the filter settles
    if not is_static(x[1:2]) and not settled:
        return f"its input {text(x)} has as many channels as are known at run time only"
    return None


def has_open_pads(args: Args, attrs: Attrs) -> bool:
    """Whether the padding of a convolution depends on sizes that are known at run time only.

    `auto_pad` pads a window of one element by nothing, whatever the size.
    """
    windows = conv_windows(args, attrs)
    pads = zip(windows.begin, windows.end, windows.kernel, strict=True)
    return any(k > 1 and not is_static((begin, end)) for begin, end, k in pads)


def _infer_conv(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, FLOATS | {DType.I32})  # i32: what ConvInteger expands to
    same_dtype(args, range(3))
    result = infer_conv(args, attrs)
    _check_bias(args, result.shape)
    return [result]


def _check_bias(args: Args, shape: Shape | None) -> None:
    bias = given(args, 2)
    if bias is None or bias.shape is None or shape is None:
        return
    if len(bias.shape) != 1:
        raise ModelError(f"bias has shape {text(bias.shape)}, expected [{shape[1]}]")
    equal(bias.shape[0], shape[1], "bias against output channels")


def _conv(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    dtype = require(args, 0).dtype
    wide = accumulator(dtype)
    finish = _with_bias(args, wide, dtype, at[1])
    return conv_reduction(args, attrs, at, wide, finish)


def conv_reduction(
    args: Args, attrs: Attrs, at: Index, wide: DType, finish: Expr | None
) -> Reduction:
    """The convolution of input 0 with the weight in input 1 as sums of a dtype."""
    x, w = require(args, 0), require(args, 1)
    width = shape_of(args, 1)[1]
    windows = conv_windows(args, attrs)
    channel, *inside = loops("r", 1 + len(windows.kernel))
    places, conditions = windows.places(at[2:], tuple(inside))
    source = channel
    if int_attr(attrs, "group", 1) > 1:
        per_group = floordiv(shape_of(args, 1)[0], int_attr(attrs, "group", 1))
        source = add(mul(divide(at[1], size(per_group)), size(width)), channel)
    value = cast(load(0, (at[0], source, *places), x.dtype), wide)
    weight = cast(load(1, (at[1], channel, *inside), w.dtype), wide)
    body = mul(where(both(conditions), value, like(0, value)), weight)
    return Reduction((width, *windows.kernel), "sum", body, finish, wide)


def _with_bias(args: Args, wide: DType, result: DType, channel: Expr) -> Expr | None:
    total: Expr = Temp(0, (), wide)
    bias = given(args, 2)
    if bias is not None:
        total = add(total, cast(load(2, (channel,), bias.dtype), wide))
    return None if bias is None and wide is result else cast(total, result)


def conv_flops(args: Args, attrs: Attrs) -> Dim | None:
    """Two operations a multiplication of a convolution."""
    shape = infer_conv(args, attrs).shape
    w = require(args, 1).shape
    return None if shape is None or w is None else product(shape) * product(w[1:]) * 2


# ---- ConvTranspose ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Where a ConvTranspose puts its windows, a tuple entry a spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: Shape
    out: Shape


def transpose_spread(args: Args, attrs: Attrs) -> Spread:
    """Kernel, strides, dilations, pads before the data, and output sizes, `auto_pad` resolved."""
    x, w = shape_of(args, 0), shape_of(args, 1)
    count = len(x) - 2
    kernel = kernel_of(attrs, w[2:], "ConvTranspose")
    strides, dilations = per_axis(attrs, "strides", count), per_axis(attrs, "dilations", count)
    extra = ints_attr(attrs, "output_padding") or (0,) * count
    wanted = ints_attr(attrs, "output_shape")
    if len(extra) != count or (wanted is not None and len(wanted) < count):
        raise ModelError(
            f"ConvTranspose over {count} spatial axes: output_padding is {extra}, "
            f"output_shape {wanted}"
        )
    begin, end = pads_attr(attrs, count)
    auto = str_attr(attrs, "auto_pad", "NOTSET", AUTO_PAD)
    out: list[Dim] = []
    for n in range(count):
        reach = (kernel[n] - 1) * dilations[n] + 1
        full = (x[n + 2] - 1) * strides[n] + extra[n] + reach
        if wanted is not None or auto.startswith("SAME"):
            out.append(wanted[n - count] if wanted is not None else x[n + 2] * strides[n])
            total = full - out[n]
            half = floordiv(total, 2)
            begin[n] = half if auto == "SAME_UPPER" else total - half
        else:
            out.append(full - begin[n] - end[n])
    return Spread(kernel, strides, dilations, tuple(begin), tuple(out))


def _infer_conv_transpose(args: Args, attrs: Attrs) -> list[Result]:
    x, w = require(args, 0), require(args, 1)
    expect_dtype(args, 0, FLOATS)
    dtype = same_dtype(args, range(3))
    expect_rank(x.shape, 3, 0)
    expect_rank(w.shape, 3, 1)
    if x.shape is None or w.shape is None:
        return [Result(dtype, None)]
    if len(x.shape) != len(w.shape):
        raise ModelError(f"input {text(x.shape)} and weight {text(w.shape)} differ in rank")
    facts = equal(x.shape[1], w.shape[0], f"weight {text(w.shape)} over {text(x.shape)}")
    group = int_attr(attrs, "group", 1)
    if group < 1 or (isinstance(w.shape[0], int) and w.shape[0] % group):
        raise ModelError(f"weight {text(w.shape)} does not divide into {group} groups")
    channels = w.shape[1] * group
    kernel, more = kernel_and_facts(attrs, w.shape[2:], "ConvTranspose")
    open_sizes = tuple(unknown(n) for n in range(len(w.shape) - 2))
    spatial = open_sizes if kernel is None else transpose_spread(args, attrs).out
    shape = (x.shape[0], channels, *spatial)
    _check_bias(args, shape)
    return [Result(dtype, shape, facts=(*facts, *more))]


def _conv_transpose(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    x, w = require(args, 0), require(args, 1)
    group = int_attr(attrs, "group", 1)
    spread = transpose_spread(args, attrs)
    width, per_group = floordiv(shape_of(args, 0)[1], group), shape_of(args, 1)[1]
    channel, *inside = loops("r", 1 + len(spread.kernel))
    places: list[Expr] = []
    conditions: list[Expr] = []
    for n, k in enumerate(inside):
        stride, extent = spread.strides[n], shape_of(args, 0)[n + 2]
        reached = sub(add(at[n + 2], size(spread.begin[n])), mul(k, index(spread.dilations[n])))
        place = divide(reached, index(stride))
        conditions += [ge(place, index(0)), lt(place, size(extent))]
        if stride > 1:
            conditions.append(eq(mod(reached, index(stride)), index(0)))
        places.append(place)
    source: Expr = channel
    filter_: Expr = at[1]
    if group > 1:
        block = divide(at[1], size(per_group))
        source = add(mul(block, size(width)), channel)
        filter_ = sub(at[1], mul(block, size(per_group)))
    wide = accumulator(x.dtype)
    value = cast(load(0, (at[0], source, *places), x.dtype), wide)
    weight = cast(load(1, (source, filter_, *inside), w.dtype), wide)
    body = mul(where(both(conditions), value, like(0, value)), weight)
    return Reduction(
        (width, *spread.kernel), "sum", body, _with_bias(args, wide, x.dtype, at[1]), wide
    )


def _has_open_crop(args: Args, attrs: Attrs) -> bool:
    """Whether it depends on run-time sizes how much of the result is cut off."""
    return not is_static(transpose_spread(args, attrs).begin)


def _conv_transpose_flops(args: Args, attrs: Attrs) -> Dim | None:
    x, w = require(args, 0).shape, require(args, 1).shape
    return None if x is None or w is None else product(x) * product(w[1:]) * 2


# ---- MatMul -------------------------------------------------------------------------------------


def infer_matmul(args: Args, dtype: DType, a: int = 0, b: int = 1) -> Result:
    """The type of the matrix product of two inputs."""
    left, right = require(args, a).shape, require(args, b).shape
    if left is None or right is None:
        return Result(dtype, None)
    if not left or not right:
        raise ModelError("MatMul: expected rank 1 or more, found a scalar")
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    inner = right[-2] if len(right) > 1 else right[0]
    facts = equal(left[-1], inner, f"MatMul of {text(left)} and {text(right)}")
    batch, more = broadcast((left[:-2], right[:-2]))
    return Result(dtype, (*batch, *rows, *columns), facts=(*facts, *more))


def _infer_matmul(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, NUMBERS)
    return [infer_matmul(args, same_dtype(args, (0, 1)))]


def matmul_index(args: Args, at: Index, k: Expr, a: int = 0, b: int = 1) -> tuple[Index, Index]:
    """Where element `k` of the sum for output index `at` lies in both operands."""
    left, right = shape_of(args, a), shape_of(args, b)
    batch = broadcast((left[:-2], right[:-2]))[0]
    outer, tail = at[: len(batch)], at[len(batch) :]
    row = tail[:1] if len(left) > 1 else ()
    column = tail[len(row) :]
    first = (*_batch_at(left[:-2], batch, outer), *row, k)
    return first, (*_batch_at(right[:-2], batch, outer), k, *column)


def _batch_at(shape: Shape, out: Shape, at: Index) -> Index:
    skip = len(out) - len(shape)
    return tuple(
        index(0) if dim == 1 else i if dim == total else clamp(i, index(0), size(dim - 1))
        for dim, total, i in zip(shape, out[skip:], at[skip:], strict=True)
    )


def _matmul(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    dtype = require(args, 0).dtype
    wide = accumulator(dtype)
    finish = None if wide is dtype else cast(Temp(0, (), wide), dtype)
    return matmul_reduction(args, at, wide, finish)


def matmul_reduction(args: Args, at: Index, wide: DType, finish: Expr | None) -> Reduction:
    """The product of inputs 0 and 1 as sums of a dtype."""
    a, b = (require(args, n).dtype for n in (0, 1))
    first, second = matmul_index(args, at, loops("r", 1)[0])
    body = mul(cast(load(0, first, a), wide), cast(load(1, second, b), wide))
    return Reduction((shape_of(args, 0)[-1],), "sum", body, finish, wide)


def matmul_flops(args: Args, attrs: Attrs) -> Dim | None:
    """Two operations a multiplication of a matrix product."""
    left = require(args, 0).shape
    shape = infer_matmul(args, require(args, 0).dtype).shape
    return None if shape is None or left is None else product(shape) * left[-1] * 2


CONTRACTION: tuple[Op, ...] = (
    Op(
        "Conv",
        _infer_conv,
        reduce=_conv,
        anchor="conv",
        plain=has_open_pads,
        refuse=refuse_open_filter,
        flops=conv_flops,
    ),
    Op(
        "ConvTranspose",
        _infer_conv_transpose,
        reduce=_conv_transpose,
        anchor="conv_transpose",
        plain=_has_open_crop,
        refuse=refuse_open_filter,
        flops=_conv_transpose_flops,
    ),
    Op("MatMul", _infer_matmul, reduce=_matmul, anchor="matmul", flops=matmul_flops),
)
