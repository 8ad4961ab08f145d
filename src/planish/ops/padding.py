"""Operators that repeat or surround the data: Tile, Pad."""

from __future__ import annotations

from planish.base.errors import ModelError
from planish.base.expr import Expr, index
from planish.base.shapes import Dim, dim_max, product
from planish.ops.checks import (
    axis_of,
    given,
    require,
    shape_of,
    str_attr,
)
from planish.ops.op import Args, Attrs, Op, Result, unknown
from planish.ops.pointwise import single
from planish.ops.scalar import (
    Index,
    both,
    cast,
    clamp,
    ge,
    load,
    lt,
    minimum,
    mod,
    size,
    sub,
    where,
)
from planish.ops.sizes import at_least, known_ints, known_sizes

# ---- Tile ---------------------------------------------------------------------------------------


def _infer_tile(args: Args, attrs: Attrs) -> list[Result]:
    x, repeats = require(args, 0), known_sizes(require(args, 1))
    if x.shape is None:
        return [Result(x.dtype, None)]
    if repeats is None:
        return [Result(x.dtype, tuple(unknown(n) for n in range(len(x.shape))))]
    if len(repeats) != len(x.shape):
        raise ModelError(f"Tile: expected {len(x.shape)} repeats, found {len(repeats)}")
    shape = tuple(dim * count for dim, count in zip(x.shape, repeats, strict=True))
    sizes = known_sizes(x)
    if sizes is not None and len(shape) == 1:
        sizes = sizes * repeats[0] if isinstance(repeats[0], int) else None
    return [Result(x.dtype, shape, sizes)]


def _tile(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    shape, repeats = shape_of(args, 0), known_sizes(require(args, 1)) or ()
    place = [
        index(0) if dim == 1 else i if count == 1 else mod(i, size(dim))
        for i, dim, count in zip(at, shape, repeats, strict=True)
    ]
    return load(0, place, require(args, 0).dtype)


def _refuse_tile(args: Args, attrs: Attrs) -> str | None:
    return "repeats (input 1) are no constant" if known_sizes(given(args, 1)) is None else None


# ---- Pad ----------------------------------------------------------------------------------------


def pads_of(args: Args) -> list[tuple[Dim, Dim]] | None:
    """(begin, end) for each axis of the data; None where the pads are not known.

    Raises:
        ModelError: Their number does not fit the data.
    """
    shape, pads = require(args, 0).shape, known_sizes(require(args, 1))
    if shape is None or pads is None:
        return None
    axes = given(args, 3)
    ints = tuple(range(len(shape))) if axes is None else known_ints(axes)
    if ints is None:
        return None
    if len(pads) != 2 * len(ints):
        raise ModelError(f"Pad: expected {2 * len(ints)} pads, found {len(pads)}")
    result: list[tuple[Dim, Dim]] = [(0, 0)] * len(shape)
    for n, axis in enumerate(ints):
        result[axis_of(axis, len(shape), "axes")] = (pads[n], pads[n + len(ints)])
    return result


def _infer_pad(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    str_attr(attrs, "mode", "constant", tuple(_PLACES))
    if x.shape is None:
        return [Result(x.dtype, None)]
    pads = pads_of(args)
    if pads is None:
        return [Result(x.dtype, tuple(unknown(n) for n in range(len(x.shape))))]
    pairs = zip(x.shape, pads, strict=True)
    return [Result(x.dtype, tuple(dim + begin + end for dim, (begin, end) in pairs))]


def _pad(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, shape = require(args, 0), shape_of(args, 0)
    mode = str_attr(attrs, "mode", "constant", tuple(_PLACES))
    inside: list[Expr] = []
    place: list[Expr] = []
    for i, dim, (begin, end) in zip(at, shape, pads_of(args) or (), strict=True):
        j = sub(i, size(begin))
        if begin != 0 or end != 0:
            if mode == "constant":
                inside += [ge(j, index(0))] * (not at_least(begin * -1, 0))
                inside += [lt(j, size(dim))] * (not at_least(end * -1, 0))
            else:
                j = _PLACES[mode](j, dim, begin, end)
        place.append(j)
    return where(both(inside), load(0, place, x.dtype), _pad_value(args))


def _pad_value(args: Args) -> Expr:
    x, value = require(args, 0), given(args, 2)
    if value is None:
        return cast(index(0), x.dtype)
    literal = single(value)
    return literal or load(2, [index(0)] * len(value.shape or ()), value.dtype)


def _as_is(j: Expr, dim: Dim, begin: Dim, end: Dim) -> Expr:
    return j


def _nearest(j: Expr, dim: Dim, begin: Dim, end: Dim) -> Expr:
    return clamp(j, index(0), size(dim - 1))


def _mirrored(j: Expr, dim: Dim, begin: Dim, end: Dim) -> Expr:
    """Reflected at the outermost elements, as often as it takes."""
    if dim == 1:
        return index(0)
    period = size(2 * dim - 2) if at_least(dim, 2) else size(dim_max(2 * dim - 2, 1))
    turned = mod(j, period)
    return (
        minimum(turned, sub(period, turned))
        if at_least(dim, 2)
        else _nearest(minimum(turned, sub(period, turned)), dim, begin, end)
    )


def _wrapped(j: Expr, dim: Dim, begin: Dim, end: Dim) -> Expr:
    return mod(j, size(dim))


_PLACES = {"constant": _as_is, "edge": _nearest, "reflect": _mirrored, "wrap": _wrapped}


def _refuse_pad(args: Args, attrs: Attrs) -> str | None:
    pads = pads_of(args)
    if pads is None:
        return "pads or axes are computed at run time"
    constant = str_attr(attrs, "mode", "constant", tuple(_PLACES)) == "constant"
    if not constant and not at_least(product(shape_of(args, 0)), 1):
        return "the data may be empty"
    return None


PADDING: tuple[Op, ...] = (
    Op("Tile", _infer_tile, element=_tile, refuse=_refuse_tile),
    Op("Pad", _infer_pad, element=_pad, refuse=_refuse_pad),
)
