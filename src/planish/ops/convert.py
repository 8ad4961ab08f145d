"""Operators that pass elements on, converted or bounded: Cast, Clip, Identity, Dropout."""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Const, Expr
from planish.ops.checks import (
    NUMBERS,
    dtype_attr,
    expect_dtype,
    given,
    int_attr,
    require,
    same_dtype,
    text,
)
from planish.ops.op import Args, Attrs, Op, Result
from planish.ops.pointwise import single
from planish.ops.scalar import Index, cast, load, maximum, minimum
from planish.ops.sizes import combine, known_sizes, size_max, size_min


def _infer_identity(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    return [Result(x.dtype, x.shape, known_sizes(x))]


def _identity(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    return load(0, at, require(args, 0).dtype)


def _infer_cast(args: Args, attrs: Attrs) -> list[Result]:
    return _converted(args, dtype_attr(attrs, "to"))


def _infer_cast_like(args: Args, attrs: Attrs) -> list[Result]:
    return _converted(args, require(args, 1).dtype)


def _converted(args: Args, to: DType) -> list[Result]:
    x = require(args, 0)
    keeps = (x.dtype.is_float or x.dtype.is_integer) and (to.is_float or to.is_integer)
    return [Result(to, x.shape, known_sizes(x) if keeps else None)]


def _cast_element(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x = require(args, 0)
    return cast(load(0, at, x.dtype), _infer_cast(args, attrs)[0].dtype)


def _cast_like_element(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    return cast(load(0, at, require(args, 0).dtype), require(args, 1).dtype)


def _infer_clip(args: Args, attrs: Attrs) -> list[Result]:
    dtype = same_dtype(args, range(3))
    expect_dtype(args, 0, NUMBERS)
    for number in (1, 2):
        bound = given(args, number)
        if bound is not None and bound.shape not in (None, (), (1,)):
            raise ModelError(f"input {number} has shape {text(bound.shape)}, expected a scalar")
    x = require(args, 0)
    dims = known_sizes(x)
    for number, pick in ((1, size_max), (2, size_min)):
        if given(args, number) is not None:
            dims = combine(pick, [dims, known_sizes(given(args, number))], x.shape)
    return [Result(dtype, x.shape, dims)]


def _clip(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x: Expr = load(0, at, require(args, 0).dtype)
    low, high = _bound(args, 1), _bound(args, 2)
    if low is not None:
        x = maximum(x, low)
    return x if high is None else minimum(x, high)


def _bound(args: Args, number: int) -> Expr | None:
    """A bound of Clip; None where it is left out or bounds nothing."""
    arg = given(args, number)
    if arg is None:
        return None
    literal = single(arg)
    if isinstance(literal, Const):
        return literal
    return load(number, [Const(0, DType.I64)] * len(arg.shape or ()), arg.dtype)


def _infer_dropout(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    return [Result(x.dtype, x.shape), Result(DType.BOOL, x.shape)]


def _dropout(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    if output == 1:
        return Const(True, DType.BOOL)
    return load(0, at, require(args, 0).dtype)


def _refuse_training(args: Args, attrs: Attrs) -> str | None:
    mode = given(args, 2)
    if mode is None or (mode.data is not None and not mode.data.any()):
        return None
    if mode.data is None:
        return "training_mode is not a constant"
    ratio = given(args, 1)
    if ratio is not None and ratio.data is not None and not ratio.data.any():
        return None
    return "Dropout in training mode draws random numbers"


def _infer_bit_cast(args: Args, attrs: Attrs) -> list[Result]:
    x, to = require(args, 0), dtype_attr(attrs, "to")
    if x.dtype.bits != to.bits:
        raise ModelError(f"BitCast from {x.dtype} to {to}: expected dtypes of one width")
    return [Result(to, x.shape)]


def _refuse_saturation(args: Args, attrs: Attrs) -> str | None:
    round_mode = attrs.get("round_mode", "up")
    if round_mode not in ("up", b"up"):
        return f"round_mode {round_mode!r} is for 8-bit floats only"
    int_attr(attrs, "saturate", 1)
    return None


CONVERT: tuple[Op, ...] = (
    Op("Identity", _infer_identity, element=_identity),
    Op("Cast", _infer_cast, element=_cast_element, refuse=_refuse_saturation),
    Op("CastLike", _infer_cast_like, element=_cast_like_element, refuse=_refuse_saturation),
    Op("BitCast", _infer_bit_cast),
    Op("Clip", _infer_clip, element=_clip),
    Op("Dropout", _infer_dropout, element=_dropout, refuse=_refuse_training),
)
