"""Resize: nearest, linear and cubic over any axes, in every coordinate mode.

Where an output element lies in the input is a rational number (a*i + b) / d with whole a, b, d,
also for symbolic sizes. Positions and their fractions are therefore exact: no rounding decides
which element is nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, call, const, index
from planish.base.shapes import Dim, floordiv
from planish.ops.checks import (
    FLOATS,
    INTEGERS,
    axis_of,
    float_attr,
    given,
    int_attr,
    ints_attr,
    require,
    shape_of,
    str_attr,
)
from planish.ops.op import Arg, Args, Attrs, Op, Result, unknown
from planish.ops.scalar import (
    Index,
    add,
    both,
    cast,
    clamp,
    div,
    ge,
    le,
    like,
    load,
    lt,
    mul,
    select,
    size,
    sub,
    where,
)
from planish.ops.scalar import floordiv as divide
from planish.ops.sizes import known_sizes, size_max

_COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_MODES = ("nearest", "linear", "cubic")
_POLICIES = ("stretch", "not_larger", "not_smaller")


@dataclass(frozen=True)
class Axis:
    """How one axis is resized: output i lies at (a*i + b) / d of the input."""

    extent: Dim
    out: Dim
    a: Dim
    b: Dim
    d: Dim

    @property
    def untouched(self) -> bool:
        """True when every element stays where it is."""
        return self.extent == self.out and self.a == self.d and self.b == 0


# ---- what is resized, and how far ---------------------------------------------------------------


def _axes(args: Args, attrs: Attrs) -> tuple[int, ...]:
    rank = len(shape_of(args, 0))
    axes = ints_attr(attrs, "axes")
    return tuple(range(rank)) if axes is None else tuple(axis_of(a, rank, "axes") for a in axes)


def _constant(arg: Arg | None) -> tuple[Fraction, ...] | None:
    """The contents of a constant, exactly; None for no or an empty input."""
    if arg is None or arg.data is None or not arg.data.size:
        return None
    values = [float(value) for value in arg.data.reshape(-1)]
    if not all(map(math.isfinite, values)):
        raise ModelError(f"Resize: expected finite scales and regions, found {values}")
    return tuple(map(Fraction, values))


def _is_given(arg: Arg | None) -> bool:
    return arg is not None and arg.shape not in ((0,), None)


def _targets(args: Args, attrs: Attrs) -> list[tuple[Dim, Dim, Dim]] | None:
    """(output size, numerator and denominator of the scale) of each resized axis."""
    shape, axes = shape_of(args, 0), _axes(args, attrs)
    scales, sizes = given(args, 2), given(args, 3)
    if _is_given(sizes):
        wanted = known_sizes(sizes)
        if wanted is None:
            return None
        _check_count("sizes", len(wanted), len(axes))
        return _by_sizes([shape[axis] for axis in axes], wanted, attrs)
    factors = _constant(scales)
    if factors is None:
        ints = known_sizes(scales) if _is_given(scales) else None
        factors = None if ints is None else tuple(Fraction(i) for i in ints if isinstance(i, int))
        if factors is None:
            return None
    _check_count("scales", len(factors), len(axes))
    if min(factors) <= 0:
        raise ModelError(f"Resize: a scale of {[float(f) for f in factors]} is not positive")
    return [
        (floordiv(shape[axis] * f.numerator, f.denominator), f.numerator, f.denominator)
        for axis, f in zip(axes, factors, strict=True)
    ]


def _check_count(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise ModelError(f"Resize: expected {expected} {what}, found {found}")


def _by_sizes(
    extents: Sequence[Dim], wanted: Sequence[Dim], attrs: Attrs
) -> list[tuple[Dim, Dim, Dim]] | None:
    policy = str_attr(attrs, "keep_aspect_ratio_policy", "stretch", _POLICIES)
    if policy == "stretch":
        return [(out, out, extent) for extent, out in zip(extents, wanted, strict=True)]
    ratios: list[Fraction] = []
    for extent, out in zip(extents, wanted, strict=True):
        if not isinstance(extent, int) or not isinstance(out, int):
            return None
        ratios.append(Fraction(out, extent))
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    made: list[tuple[Dim, Dim, Dim]] = []
    for extent in extents:
        assert isinstance(extent, int)
        out = int(scale * extent + Fraction(1, 2))  # halves go up
        made.append((out, scale.numerator, scale.denominator))
    return made


def _infer(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    _check_attrs(attrs)
    if x.shape is None:
        return [Result(x.dtype, None)]
    axes, targets = _axes(args, attrs), _targets(args, attrs)
    shape = list(x.shape)
    for n, axis in enumerate(axes):
        shape[axis] = unknown(n) if targets is None else targets[n][0]
    return [Result(x.dtype, tuple(shape))]


def _check_attrs(attrs: Attrs) -> None:
    str_attr(attrs, "mode", "nearest", _MODES)
    str_attr(attrs, "coordinate_transformation_mode", "half_pixel", _COORDINATES)
    str_attr(attrs, "nearest_mode", "round_prefer_floor", _NEAREST)
    str_attr(attrs, "keep_aspect_ratio_policy", "stretch", _POLICIES)


# ---- where an output element lies ---------------------------------------------------------------


def plan_axes(args: Args, attrs: Attrs) -> dict[int, Axis]:
    """The axes that are resized, without those that stay as they are."""
    shape, axes = shape_of(args, 0), _axes(args, attrs)
    mode = str_attr(attrs, "coordinate_transformation_mode", "half_pixel", _COORDINATES)
    roi = _constant(given(args, 1)) or ()
    made: dict[int, Axis] = {}
    for n, (axis, (out, p, q)) in enumerate(zip(axes, _targets(args, attrs) or (), strict=True)):
        if mode == "tf_crop_and_resize":
            found = _crop(shape[axis], out, roi[n], roi[n + len(axes)])
        else:
            found = _RULES[mode](shape[axis], out, p, q)
        if not found.untouched:
            made[axis] = found
    return made


def _half_pixel(extent: Dim, out: Dim, p: Dim, q: Dim) -> Axis:
    return _reduced(extent, out, 2 * q, q - p, 2 * p)


def _pytorch_half_pixel(extent: Dim, out: Dim, p: Dim, q: Dim) -> Axis:
    return Axis(extent, out, 0, 0, 1) if out == 1 else _half_pixel(extent, out, p, q)


def _half_pixel_symmetric(extent: Dim, out: Dim, p: Dim, q: Dim) -> Axis:
    return _reduced(extent, out, 2 * q, (extent - 1) * p - out * q + q, 2 * p)


def _align_corners(extent: Dim, out: Dim, p: Dim, q: Dim) -> Axis:
    """The last elements meet; the resized length is extent * scale, which need not be whole."""
    if out == 1:
        return Axis(extent, out, 0, 0, 1)
    return _reduced(extent, out, (extent - 1) * q, 0, size_max(extent * p - q, 1))


def _asymmetric(extent: Dim, out: Dim, p: Dim, q: Dim) -> Axis:
    return _reduced(extent, out, q, 0, p)


def _half_pixel_for_nn(extent: Dim, out: Dim, p: Dim, q: Dim) -> Axis:
    return _reduced(extent, out, 2 * q, q, 2 * p)


def _crop(extent: Dim, out: Dim, start: Fraction, end: Fraction) -> Axis:
    """The part of the axis from `start` to `end`, both as shares of its length."""
    assert isinstance(extent, int) and isinstance(out, int)
    if out > 1:
        first, step = start * (extent - 1), (end - start) * (extent - 1) / (out - 1)
    else:
        first, step = (start + end) * (extent - 1) / 2, Fraction(0)
    first, step = first.limit_denominator(1 << 24), step.limit_denominator(1 << 24)
    scale = lcm(first.denominator, step.denominator)
    return _reduced(extent, out, int(step * scale), int(first * scale), scale)


def _reduced(extent: Dim, out: Dim, a: Dim, b: Dim, d: Dim) -> Axis:
    if isinstance(a, int) and isinstance(b, int) and isinstance(d, int):
        common = gcd(a, b, d)
        return Axis(extent, out, a // common, b // common, d // common)
    return Axis(extent, out, a, b, d)


_RULES: dict[str, Callable[[Dim, Dim, Dim, Dim], Axis]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "tf_half_pixel_for_nn": _half_pixel_for_nn,
}


# ---- the element --------------------------------------------------------------------------------


def _element(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x = require(args, 0)
    axes = plan_axes(args, attrs)
    mode = str_attr(attrs, "mode", "nearest", _MODES)
    if mode == "nearest":
        rounding = str_attr(attrs, "nearest_mode", "round_prefer_floor", _NEAREST)
        place = [_nearest(axes[n], i, rounding) if n in axes else i for n, i in enumerate(at)]
        value: Expr = load(0, place, x.dtype)
    else:
        value = _blend(args, attrs, at, axes, mode)
    outside = _outside(args, attrs, at, axes)
    fill = const(float_attr(attrs, "extrapolation_value", 0.0), x.dtype)
    return value if outside is None else select(outside, fill, value)


def _position(axis: Axis, i: Expr) -> Expr:
    """a*i + b: the place times d."""
    return add(mul(i, size(axis.a)), size(axis.b))


def _nearest(axis: Axis, i: Expr, rounding: str) -> Expr:
    place, d, two = _position(axis, i), size(axis.d), index(2)
    if rounding == "floor":
        found = divide(place, d)
    elif rounding == "ceil":
        found = _upward(place, d)
    elif rounding == "round_prefer_ceil":
        found = divide(add(mul(place, two), d), mul(d, two))
    else:
        found = _upward(sub(mul(place, two), d), mul(d, two))
    return clamp(found, index(0), size(axis.extent - 1))


def _upward(a: Expr, b: Expr) -> Expr:
    """A / b rounded up."""
    return sub(index(0), divide(sub(index(0), a), b))


def _outside(args: Args, attrs: Attrs, at: Index, axes: dict[int, Axis]) -> Expr | None:
    """When an element lies outside the input and is given a fixed value."""
    mode = str_attr(attrs, "coordinate_transformation_mode", "half_pixel", _COORDINATES)
    if mode != "tf_crop_and_resize":
        return None
    inside: list[Expr] = []
    for n, axis in axes.items():
        place = _position(axis, at[n])
        inside += [ge(place, index(0)), le(place, size((axis.extent - 1) * axis.d))]
    found = both(inside)
    return None if found is None else call("not", found)


def _blend(args: Args, attrs: Attrs, at: Index, axes: dict[int, Axis], mode: str) -> Expr:
    """The weighted sum of the neighbours, axis after axis."""
    x = require(args, 0)
    work = DType.F64 if x.dtype is DType.F64 else DType.F32
    neighbours = {n: _neighbours(axis, at[n], mode, attrs, work) for n, axis in axes.items()}
    order = list(axes)

    def total(depth: int, place: dict[int, Expr]) -> Expr:
        if depth == len(order):
            return cast(load(0, [place.get(n, i) for n, i in enumerate(at)], x.dtype), work)
        parts = [
            mul(weight, total(depth + 1, {**place, order[depth]: where_}))
            for where_, weight in neighbours[order[depth]]
        ]
        result = parts[0]
        for part in parts[1:]:
            result = add(result, part)
        return result

    return cast(total(0, {}), x.dtype)


def _neighbours(
    axis: Axis, i: Expr, mode: str, attrs: Attrs, work: DType
) -> list[tuple[Expr, Expr]]:
    """(index, weight) of the elements around a place; indices outside give the outermost one."""
    place, d = _position(axis, i), size(axis.d)
    base = divide(place, d)
    t = div(cast(sub(place, mul(base, d)), work), cast(d, work))
    if mode == "linear":
        first, weights = 0, [sub(like(1, t), t), t]
    else:
        first, weights = -1, cubic_weights(t, float_attr(attrs, "cubic_coeff_a", -0.75))
    wanted = [add(base, index(first + n)) for n in range(len(weights))]
    if int_attr(attrs, "exclude_outside", 0):
        weights = _only_inside(axis, wanted, weights)
    last = size(axis.extent - 1)
    return [(clamp(w, index(0), last), weight) for w, weight in zip(wanted, weights, strict=True)]


def cubic_weights(t: Expr, a: float) -> list[Expr]:
    """Weights of the elements at -1, 0, 1, 2 around a place at fraction t, for coefficient a."""
    one = like(1, t)

    def near(s: Expr) -> Expr:  # ((a + 2) s - (a + 3)) s² + 1
        inner = sub(mul(like(a + 2, t), s), like(a + 3, t))
        return add(mul(mul(inner, s), s), one)

    def far(s: Expr) -> Expr:  # ((a s - 5a) s + 8a) s - 4a
        inner = add(mul(sub(mul(like(a, t), s), like(5 * a, t)), s), like(8 * a, t))
        return sub(mul(inner, s), like(4 * a, t))

    rest = sub(one, t)
    return [far(add(t, one)), near(t), near(rest), far(add(rest, one))]


def _only_inside(axis: Axis, wanted: list[Expr], weights: list[Expr]) -> list[Expr]:
    """Weights of elements outside become 0, the others are scaled up to a sum of 1."""
    kept = [
        where(both((ge(w, index(0)), lt(w, size(axis.extent)))), weight, like(0, weight))
        for w, weight in zip(wanted, weights, strict=True)
    ]
    total = kept[0]
    for weight in kept[1:]:
        total = add(total, weight)
    return [div(weight, total) for weight in kept]


def _refuse(args: Args, attrs: Attrs) -> str | None:
    x = require(args, 0)
    if int_attr(attrs, "antialias", 0):
        return "Resize with antialias has no native form"
    if _targets(args, attrs) is None:
        return "the output's size is computed at run time from data"
    mode = str_attr(attrs, "mode", "nearest", _MODES)
    if mode != "nearest" and x.dtype not in FLOATS and x.dtype not in INTEGERS:
        return f"{mode} interpolation of {x.dtype} has no native form"
    if str_attr(attrs, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        if _constant(given(args, 1)) is None:
            return "tf_crop_and_resize needs a constant roi"
        sizes = [*shape_of(args, 0), *(out for out, _, _ in _targets(args, attrs) or ())]
        if not all(isinstance(dim, int) for dim in sizes):
            return "tf_crop_and_resize needs sizes that are known"
    return None


RESIZING: tuple[Op, ...] = (Op("Resize", _infer, element=_element, refuse=_refuse),)
