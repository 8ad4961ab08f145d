"""GridSample: elements read at places that a grid of coordinates in [-1, 1] gives."""

from __future__ import annotations

from itertools import product as combinations

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, call, const, index
from planish.base.shapes import Dim
from planish.ops.checks import (
    FLOATS,
    expect_dtype,
    expect_rank,
    flag_attr,
    require,
    shape_of,
    str_attr,
    text,
)
from planish.ops.op import Args, Attrs, Op, Result
from planish.ops.resizing import cubic_weights
from planish.ops.scalar import (
    Index,
    accumulator,
    add,
    both,
    cast,
    clamp,
    div,
    eq,
    ge,
    like,
    load,
    lt,
    mod,
    mul,
    select,
    size,
    sub,
    where,
)
from planish.ops.sizes import at_least

_MODES = ("linear", "nearest", "cubic", "bilinear", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
_CUBIC = -0.75


def _infer(args: Args, attrs: Attrs) -> list[Result]:
    x, grid = require(args, 0), require(args, 1)
    expect_dtype(args, 1, FLOATS)
    expect_rank(x.shape, 3, 0)
    str_attr(attrs, "mode", "linear", _MODES)
    str_attr(attrs, "padding_mode", "zeros", _PADDINGS)
    if x.shape is None or grid.shape is None:
        return [Result(x.dtype, None)]
    if len(grid.shape) != len(x.shape) or grid.shape[-1] != len(x.shape) - 2:
        raise ModelError(f"GridSample: the grid {text(grid.shape)} does not fit {text(x.shape)}")
    return [Result(x.dtype, (*x.shape[:2], *grid.shape[1:-1]))]


def _element(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, grid = require(args, 0), require(args, 1)
    spatial = shape_of(args, 0)[2:]
    rank = len(spatial)
    aligned = flag_attr(attrs, "align_corners", 0)
    padding = str_attr(attrs, "padding_mode", "zeros", _PADDINGS)
    mode = str_attr(attrs, "mode", "linear", _MODES).removeprefix("bi")
    work = accumulator(grid.dtype)
    places: list[Expr] = []
    for n, extent in enumerate(spatial):
        # The grid lists coordinates from the last axis to the first.
        g = cast(load(1, (at[0], *at[2:], index(rank - 1 - n)), grid.dtype), work)
        place = _place(g, extent, aligned)
        if padding != "zeros" and mode != "cubic":
            place = _held(place, extent, aligned, padding)
        places.append(place)
    if mode == "nearest":
        where_ = [cast(call("round", place), DType.I64) for place in places]
        return _pixel(args, attrs, at, where_)
    bases = [call("floor", place) for place in places]
    fractions = [sub(p, b) for p, b in zip(places, bases, strict=True)]
    offsets = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    weights = [
        [sub(like(1, t), t), t] if mode == "linear" else cubic_weights(t, _CUBIC) for t in fractions
    ]
    starts = [cast(base, DType.I64) for base in bases]
    total: Expr | None = None
    for steps in combinations(range(len(offsets)), repeat=rank):
        where_ = [add(start, index(offsets[k])) for start, k in zip(starts, steps, strict=True)]
        value = cast(_pixel(args, attrs, at, where_), work)
        for n, k in enumerate(steps):
            value = mul(value, weights[n][k])
        total = value if total is None else add(total, value)
    assert total is not None
    return cast(total, x.dtype)


def _place(g: Expr, extent: Dim, aligned: bool) -> Expr:
    """A coordinate of [-1, 1] as a place along an axis."""
    length = cast(size(extent), g.dtype)
    half, one = like(0.5, g), like(1, g)
    if aligned:
        return mul(mul(add(g, one), half), sub(length, one))
    return mul(sub(mul(add(g, one), length), one), half)


def _held(place: Expr, extent: Dim, aligned: bool, padding: str) -> Expr:
    """A place moved inside: to the border, or mirrored at it."""
    zero = like(0, place)
    last = sub(cast(size(extent), place.dtype), like(1, place))
    if padding == "border":
        return clamp(place, zero, last)
    low = zero if aligned else like(-0.5, place)
    span = last if aligned else add(last, like(1, place))
    # Distance from the lower mirror, folded back after every second mirror.
    safe = select(eq(span, zero), like(1, place), span)
    away = call("abs", sub(place, low))
    turns = call("floor", div(away, safe))
    rest = sub(away, mul(turns, safe))
    pairs = mul(call("floor", mul(turns, like(0.5, place))), like(2, place))
    odd = eq(sub(turns, pairs), like(1, place))
    folded = add(low, select(odd, sub(span, rest), rest))
    return clamp(select(eq(span, zero), zero, folded), zero, last)


def _pixel(args: Args, attrs: Attrs, at: Index, places: list[Expr]) -> Expr:
    """The element at whole places, which may lie outside."""
    x, spatial = require(args, 0), shape_of(args, 0)[2:]
    padding = str_attr(attrs, "padding_mode", "zeros", _PADDINGS)
    if padding == "zeros":
        inside: list[Expr] = []
        for place, extent in zip(places, spatial, strict=True):
            inside += [ge(place, index(0)), lt(place, size(extent))]
        return where(both(inside), load(0, (*at[:2], *places), x.dtype), const(0, x.dtype))
    aligned = flag_attr(attrs, "align_corners", 0)
    held: list[Expr] = []
    for place, extent in zip(places, spatial, strict=True):
        if padding == "reflection":
            place = _mirrored(place, extent, aligned)
        held.append(clamp(place, index(0), size(extent - 1)))
    return load(0, (*at[:2], *held), x.dtype)


def _mirrored(place: Expr, extent: Dim, aligned: bool) -> Expr:
    """A whole place mirrored at the outermost elements, or at their outer edges."""
    if extent == 1:
        return index(0)
    if aligned:
        period, last = size(2 * extent - 2), size(2 * extent - 2)
    else:
        period, last = size(2 * extent), size(2 * extent - 1)
    turned = mod(place, period)
    return select(lt(turned, size(extent)), turned, sub(last, turned))


def _refuse(args: Args, attrs: Attrs) -> str | None:
    spatial = shape_of(args, 0)[2:]
    if str_attr(attrs, "padding_mode", "zeros") == "reflection" and not all(
        at_least(extent, 2) or extent == 1 for extent in spatial
    ):
        return "reflection needs axes of known length"
    if len(spatial) > 3 and str_attr(attrs, "mode", "linear") in ("cubic", "bicubic"):
        return "cubic interpolation over more than 3 axes has no native form"
    return None


SAMPLING: tuple[Op, ...] = (Op("GridSample", _infer, element=_element, refuse=_refuse),)
