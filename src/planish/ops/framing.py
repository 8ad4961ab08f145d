"""Frames and windows: CenterCropPad, AffineGrid, Col2Im, and the window functions of signals."""

from __future__ import annotations

import math
from collections.abc import Callable

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, Temp, call, const, index
from planish.base.shapes import Dim, Shape, floordiv, product
from planish.ops.checks import (
    axis_of,
    dtype_attr,
    expect_rank,
    flag_attr,
    int_attr,
    ints_attr,
    require,
    shape_of,
    text,
)
from planish.ops.op import Args, Attrs, Op, Reduction, Result, unknown
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
    linear,
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
from planish.ops.sizes import known_size, known_sizes, size_max
from planish.ops.windows import pads_attr, per_axis


def _refuse_unknown(args: Args, attrs: Attrs) -> str | None:
    """The wanted sizes stand in input 1."""
    if known_sizes(require(args, 1)) is None:
        return "the size (input 1) is computed at run time from data"
    return None


# ---- CenterCropPad ------------------------------------------------------------------------------


def _frame(args: Args, attrs: Attrs) -> Shape | None:
    """The wanted size of every axis; None where it is not known."""
    shape, wanted = shape_of(args, 0), known_sizes(require(args, 1))
    given = ints_attr(attrs, "axes")
    axes = range(len(shape)) if given is None else [axis_of(a, len(shape), "axes") for a in given]
    if wanted is None:
        return None
    if len(wanted) != len(axes):
        raise ModelError(f"CenterCropPad: {len(wanted)} sizes for {len(axes)} axes")
    targets = dict(zip(axes, wanted, strict=True))
    return tuple(targets.get(n, dim) for n, dim in enumerate(shape))


def _infer_centre(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    if x.shape is None:
        return [Result(x.dtype, None)]
    found = _frame(args, attrs)
    return [Result(x.dtype, found or tuple(unknown(n) for n in range(len(x.shape))))]


def _centre(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, shape = require(args, 0), shape_of(args, 0)
    place: list[Expr] = []
    inside: list[Expr] = []
    for i, dim, target in zip(at, shape, _frame(args, attrs) or shape, strict=True):
        cropped = floordiv(size_max(dim - target, 0), 2)
        padded = floordiv(size_max(target - dim, 0), 2)
        j = add(i, size(cropped - padded))
        if dim != target:
            inside += [ge(j, index(0)), lt(j, size(dim))]
        place.append(j)
    return where(both(inside), load(0, place, x.dtype), const(0, x.dtype))


# ---- AffineGrid ---------------------------------------------------------------------------------


def _infer_grid(args: Args, attrs: Attrs) -> list[Result]:
    theta, wanted = require(args, 0), known_sizes(require(args, 1))
    expect_rank(theta.shape, 3, 0, 3)
    if wanted is None:
        return [Result(theta.dtype, None)]
    if len(wanted) not in (4, 5):
        raise ModelError(f"AffineGrid: the size is {text(wanted)}, expected 4 or 5 numbers")
    return [Result(theta.dtype, (wanted[0], *wanted[2:], len(wanted) - 2))]


def _grid(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    """Theta times (x, y, …, 1), x running along the last axis from -1 to 1."""
    dtype = require(args, 0).dtype
    work = accumulator(dtype)
    spatial = (known_sizes(require(args, 1)) or ())[2:]
    aligned = flag_attr(attrs, "align_corners", 0)
    batch, row = at[0], at[-1]

    def theta(column: int) -> Expr:
        return cast(load(0, (batch, row, index(column)), dtype), work)

    total = theta(len(spatial))
    for n, extent in enumerate(reversed(spatial)):
        i = cast(at[len(spatial) - n], work)
        two, one = like(2, i), like(1, i)
        if aligned:
            steps = size(size_max(extent - 1, 1))
            place = sub(div(mul(i, two), cast(steps, work)), one)
        else:
            place = sub(div(add(mul(i, two), one), cast(size(extent), work)), one)
        total = add(total, mul(theta(n), place))
    return cast(total, dtype)


# ---- Col2Im -------------------------------------------------------------------------------------


def _blocks(args: Args, attrs: Attrs) -> tuple[Shape, tuple[int, ...]] | None:
    """The image's and the block's size; None where they are not known."""
    image, block = known_sizes(require(args, 1)), known_sizes(require(args, 2))
    if image is None or block is None:
        return None
    kernel = tuple(dim for dim in block if isinstance(dim, int))
    if len(kernel) != len(image):
        raise ModelError(f"Col2Im: blocks {text(block)} over an image {text(image)}")
    return image, kernel


def _infer_col2im(args: Args, attrs: Attrs) -> list[Result]:
    x, found = require(args, 0), _blocks(args, attrs)
    expect_rank(x.shape, 3, 0, 3)
    if x.shape is None or found is None:
        return [Result(x.dtype, None)]
    image, kernel = found
    return [Result(x.dtype, (x.shape[0], floordiv(x.shape[1], product(kernel)), *image))]


def _col2im(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    """The sum over all blocks that cover a pixel."""
    dtype = require(args, 0).dtype
    work = accumulator(dtype)
    image, kernel = _blocks(args, attrs) or ((), ())
    count = len(kernel)
    strides, dilations = per_axis(attrs, "strides", count), per_axis(attrs, "dilations", count)
    begin, end = pads_attr(attrs, count)
    inside = loops("r", count)
    blocks: list[Dim] = []
    places: list[Expr] = []
    conditions: list[Expr] = []
    for n in range(count):
        reach = (kernel[n] - 1) * dilations[n] + 1
        blocks.append(floordiv(image[n] + begin[n] + end[n] - reach, strides[n]) + 1)
        start = sub(add(at[n + 2], size(begin[n])), mul(inside[n], index(dilations[n])))
        place = divide(start, index(strides[n]))
        conditions += [ge(place, index(0)), lt(place, size(blocks[n]))]
        if strides[n] > 1:
            conditions.append(eq(mod(start, index(strides[n])), index(0)))
        places.append(place)
    channel = add(mul(at[1], size(product(kernel))), linear(inside, kernel))
    x = cast(load(0, (at[0], channel, linear(places, tuple(blocks))), dtype), work)
    body = where(both(conditions), x, like(0, x))
    finish = None if work is dtype else cast(Temp(0, (), work), dtype)
    return Reduction(kernel, "sum", body, finish, work)


def _refuse_col2im(args: Args, attrs: Attrs) -> str | None:
    return "its sizes are computed at run time" if _blocks(args, attrs) is None else None


# ---- window functions ---------------------------------------------------------------------------


def _infer_window(args: Args, attrs: Attrs) -> list[Result]:
    length = known_size(require(args, 0))
    dtype = dtype_attr(attrs, "output_datatype", DType.F32)
    return [Result(dtype, (unknown(0) if length is None else length,))]


def _window(*factors: float) -> Callable[[Args, Attrs, int, Index], Expr]:
    """A sum of cosines of 0, 1, 2 … turns over the window, with alternating signs."""

    def element(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
        dtype = dtype_attr(attrs, "output_datatype", DType.F32)
        length = known_size(require(args, 0)) or 1
        turns = length if int_attr(attrs, "periodic", 1) else size_max(length - 1, 1)
        share = div(cast(at[0], DType.F64), cast(size(turns), DType.F64))
        total: Expr = const(factors[0], DType.F64)
        for n, factor in enumerate(factors[1:], start=1):
            wave = call("cos", mul(share, const(2 * math.pi * n, DType.F64)))
            total = add(total, mul(wave, const(factor * (-1) ** n, DType.F64)))
        return cast(total, dtype)

    return element


def _refuse_window(args: Args, attrs: Attrs) -> str | None:
    if known_size(require(args, 0)) is None:
        return "the length (input 0) is computed at run time"
    return None


# name, weights of the cosines
_WINDOWS: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("HannWindow", (0.5, 0.5)),
    ("HammingWindow", (25 / 46, 21 / 46)),
    ("BlackmanWindow", (0.42, 0.5, 0.08)),
)

FRAMING: tuple[Op, ...] = (
    Op("CenterCropPad", _infer_centre, element=_centre, refuse=_refuse_unknown),
    Op("AffineGrid", _infer_grid, element=_grid, refuse=_refuse_unknown),
    Op("Col2Im", _infer_col2im, reduce=_col2im, refuse=_refuse_col2im),
    *(
        Op(name, _infer_window, element=_window(*factors), refuse=_refuse_window)
        for name, factors in _WINDOWS
    ),
)
