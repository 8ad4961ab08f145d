"""QuantizeLinear, DequantizeLinear: per tensor, per axis or in blocks. Half to even, saturating."""

from __future__ import annotations

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, call, const, index
from planish.base.shapes import Dim, Shape, ceildiv
from planish.ops.checks import (
    FLOATS,
    INTEGERS,
    axis_of,
    dtype_attr,
    given,
    int_attr,
    require,
    shape_of,
    text,
)
from planish.ops.op import Args, Attrs, Fact, Op, Result
from planish.ops.pointwise import single
from planish.ops.scalar import Index, add, cast, clamp, div, floordiv, load, mul, size, sub


def _infer_quantize(args: Args, attrs: Attrs) -> list[Result]:
    x, zero = require(args, 0), given(args, 2)
    wanted = dtype_attr(attrs, "output_dtype", DType.U8)
    if zero is not None:
        if attrs.get("output_dtype") and wanted is not zero.dtype:
            raise ModelError(f"output_dtype is {wanted}, the zero point is {zero.dtype}")
        wanted = zero.dtype
    return [Result(wanted, x.shape, facts=_check_scale(args, attrs))]


def _infer_dequantize(args: Args, attrs: Attrs) -> list[Result]:
    x, scale = require(args, 0), require(args, 1)
    facts = _check_scale(args, attrs)
    return [Result(dtype_attr(attrs, "output_dtype", scale.dtype), x.shape, facts=facts)]


def _check_scale(args: Args, attrs: Attrs) -> tuple[Fact, ...]:
    x, scale, zero = require(args, 0), require(args, 1), given(args, 2)
    if scale.dtype not in FLOATS and scale.dtype is not DType.I32:
        raise ModelError(f"the scale is {scale.dtype}, expected a float")
    if zero is not None and not _same_parameters(scale.shape, zero.shape):
        raise ModelError(
            f"scale {text(scale.shape)} and zero point {text(zero.shape)} differ in shape"
        )
    if x.shape is None or scale.shape is None or _is_scalar(scale.shape):
        return ()
    axis = axis_of(int_attr(attrs, "axis", 1), len(x.shape))
    if len(scale.shape) not in (1, len(x.shape)):
        raise ModelError(f"a scale of shape {text(scale.shape)} does not fit {text(x.shape)}")
    if len(scale.shape) == 1 and len(x.shape) > 1 and scale.shape[0] != x.shape[axis]:
        both = (scale.shape[0], x.shape[axis])
        if all(isinstance(dim, int) for dim in both):
            raise ModelError(f"{both[0]} scales for {both[1]} slices of axis {axis}")
        return (Fact("equal" if _known_later(*both) else "broadcast", *both),)
    return ()


def _same_parameters(scale: Shape | None, zero: Shape | None) -> bool:
    """True for parameters of one shape; one for all may be written as [] or [1]."""
    if scale is None or zero is None or scale == zero:
        return True
    return _is_scalar(scale) and _is_scalar(zero)


def _is_scalar(shape: Shape) -> bool:
    return shape in ((), (1,))


def _parameter(args: Args, attrs: Attrs, number: int, at: Index) -> Expr:
    """The scale or zero point of the element at an index."""
    arg = require(args, number)
    literal = single(arg)
    if literal is not None:
        return literal
    shape, data = shape_of(args, number), shape_of(args, 0)
    if _is_scalar(shape):
        return load(number, [index(0)] * len(shape), arg.dtype)
    axis = axis_of(int_attr(attrs, "axis", 1), len(data))
    if len(shape) == 1 and (shape[0] == data[axis] or _known_later(shape[0], data[axis])):
        return load(number, (at[axis],), arg.dtype)
    if len(shape) == 1 and not isinstance(shape[0], int):  # one for all, or one a slice
        return load(number, (clamp(at[axis], index(0), size(shape[0] - 1)),), arg.dtype)
    block = int_attr(attrs, "block_size", 0) or ceildiv(data[axis], shape[axis])
    place = [floordiv(i, index(block)) if n == axis else i for n, i in enumerate(at)]
    return load(number, place, arg.dtype)


def _work(args: Args) -> DType:
    """Quantisation is computed in f32, or f64 for data of that width."""
    wide = DType.F64 in (require(args, 0).dtype, require(args, 1).dtype)
    return DType.F64 if wide else DType.F32


def _quantize(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    """saturate(round(x / scale) + zero point).

    The sum is one of floats, exact where it does not saturate: results have 16 bits at most.
    """
    dtype, work = _infer_quantize(args, attrs)[0].dtype, _work(args)
    x = cast(load(0, at, require(args, 0).dtype), work)
    scale = cast(_parameter(args, attrs, 1, at), work)
    total = call("round", x if scale == const(1.0, work) else div(x, scale))
    if given(args, 2) is not None:
        zero = cast(_parameter(args, attrs, 2, at), work)
        total = total if zero == const(0.0, work) else add(total, zero)
    limits = np.iinfo(dtype.numpy)
    low, high = (cast(const(int(v), DType.I64), work) for v in (limits.min, limits.max))
    return cast(clamp(total, low, high), dtype)


def _dequantize(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, result = require(args, 0), _infer_dequantize(args, attrs)[0].dtype
    work = _work(args)
    value = load(0, at, x.dtype)
    if given(args, 2) is None:
        return cast(mul(cast(value, work), cast(_parameter(args, attrs, 1, at), work)), result)
    zero = _parameter(args, attrs, 2, at)
    wide = DType.I64 if x.dtype in (DType.I32, DType.U32) else DType.I32
    distance = cast(sub(cast(value, wide), cast(zero, wide)), work)
    return cast(mul(distance, cast(_parameter(args, attrs, 1, at), work)), result)


def _known_later(parameters: Dim, slices: Dim) -> bool:
    """True where a fact holds the slices to the number of parameters at run time."""
    return isinstance(parameters, int) and not isinstance(slices, int)


def _refuse_quantize(args: Args, attrs: Attrs) -> str | None:
    dtype = _infer_quantize(args, attrs)[0].dtype
    if dtype not in INTEGERS or dtype.bits > 16:
        return f"QuantizeLinear to {dtype} has no native form"
    return _refuse_blocks(args, attrs)


def _refuse_dequantize(args: Args, attrs: Attrs) -> str | None:
    x = require(args, 0)
    if x.dtype not in INTEGERS:
        return f"DequantizeLinear of {x.dtype} has no native form"
    return _refuse_blocks(args, attrs)


def _refuse_blocks(args: Args, attrs: Attrs) -> str | None:
    shape, data = shape_of(args, 1), shape_of(args, 0)
    if len(shape) <= 1 or int_attr(attrs, "block_size", 0) > 0:
        return None
    axis = axis_of(int_attr(attrs, "axis", 1), len(data))
    if isinstance(shape[axis], int) and isinstance(data[axis], int):
        return None
    return "the size of the blocks is not known"


QUANTIZATION: tuple[Op, ...] = (
    Op("QuantizeLinear", _infer_quantize, element=_quantize, refuse=_refuse_quantize),
    Op("DequantizeLinear", _infer_dequantize, element=_dequantize, refuse=_refuse_dequantize),
)
