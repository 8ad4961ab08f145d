"""Integer convolutions and matrix products, and DynamicQuantizeLinear, as i32 arithmetic.

Zero points are subtracted first, in i32: exact, and padding by 0 is then padding by the zero point.
"""

from __future__ import annotations

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.ops.checks import expect_dtype, given, require, shape_of
from planish.ops.contraction import infer_conv, infer_matmul
from planish.ops.op import Arg, Args, Attrs, Op, Primitive, Result
from planish.ops.steps import Operand, Steps

_BYTES = frozenset((DType.U8, DType.I8))


def _centred(steps: Steps, args: Args, number: int, zero: int, axis: int | None) -> str:
    """An operand as i32 with its zero point subtracted; one zero a slice of `axis`."""
    x = steps("Cast", str(number), to=DType.I32.onnx)
    arg = given(args, zero)
    if arg is None or (arg.data is not None and not arg.data.any()):
        return x
    point: Operand = steps("Cast", str(zero), to=DType.I32.onnx)
    shape = shape_of(args, zero)
    if axis is not None and len(shape) == 1 and shape[0] != 1:
        rank = len(shape_of(args, number))
        point = steps.reshape(point, *(-1 if n == axis % rank else 1 for n in range(rank)))
    return steps("Sub", x, point)


# ---- MatMulInteger, QLinearMatMul ---------------------------------------------------------------


def _infer_matmul_integer(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, _BYTES)
    expect_dtype(args, 1, _BYTES)
    return [infer_matmul(args, DType.I32)]


def _expand_matmul_integer(args: Args, attrs: Attrs) -> list[Primitive]:
    steps = Steps()
    a, b = _centred(steps, args, 0, 2, -2), _centred(steps, args, 1, 3, -1)
    return steps.finish(steps("MatMul", a, b))


def _infer_qlinear_matmul(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, _BYTES)
    return [infer_matmul(args, require(args, 7).dtype, 0, 3)]


def _expand_qlinear_matmul(args: Args, attrs: Attrs) -> list[Primitive] | None:
    if _refuse_rows(args, attrs):
        return None
    steps = Steps()
    a, b = _centred(steps, args, 0, 2, -2), _centred(steps, args, 3, 5, -1)
    product = steps("MatMul", a, b)
    rows = _f32(steps, args, 1)
    if len(shape_of(args, 1)) == 1:
        rows = steps.unsqueeze(rows, 1)
    scale = steps("Mul", rows, _f32(steps, args, 4))
    return steps.finish(_requantized(steps, product, scale, 6, 7))


def _f32(steps: Steps, args: Args, number: int) -> str:
    if require(args, number).dtype is DType.F32:
        return str(number)
    return steps("Cast", str(number), to=DType.F32.onnx)


def _requantized(steps: Steps, total: str, scale: str, y_scale: int, y_zero: int) -> str:
    real = steps("Mul", steps("Cast", total, to=DType.F32.onnx), scale)
    return steps("QuantizeLinear", real, str(y_scale), str(y_zero), axis=-2)


def _refuse_rows(args: Args, attrs: Attrs) -> str | None:
    """A result scale for each row of each matrix is no axis of QuantizeLinear."""
    if len(shape_of(args, 6)) > 1:
        return "QLinearMatMul with a result scale for each row of each matrix"
    return None


# ---- ConvInteger, QLinearConv -------------------------------------------------------------------


def _infer_conv_integer(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, _BYTES)
    expect_dtype(args, 1, _BYTES)
    result = infer_conv(args, attrs)
    return [Result(DType.I32, result.shape, facts=result.facts)]


def _expand_conv_integer(args: Args, attrs: Attrs) -> list[Primitive]:
    steps = Steps()
    x, w = _centred(steps, args, 0, 2, None), _centred(steps, args, 1, 3, 0)
    return steps.finish(steps("Conv", x, w, **attrs))


def _qlinear_parts(args: Args) -> list[Arg | None]:
    """The data and the weight of a QLinearConv, as a Conv has them."""
    return [require(args, 0), require(args, 3)]


def _infer_qlinear_conv(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, _BYTES)
    expect_dtype(args, 3, _BYTES)
    result = infer_conv(_qlinear_parts(args), attrs)
    return [Result(require(args, 7).dtype, result.shape, facts=result.facts)]


def _expand_qlinear_conv(args: Args, attrs: Attrs) -> list[Primitive]:
    steps = Steps()
    x, w = _centred(steps, args, 0, 2, None), _centred(steps, args, 3, 5, 0)
    bias = None if given(args, 8) is None else "8"
    total = steps("Conv", x, w, bias, **attrs)
    scale = steps("Mul", _f32(steps, args, 1), _f32(steps, args, 4))
    if shape_of(args, 4) not in ((), (1,)):
        rank = len(shape_of(args, 0))
        scale = steps.reshape(scale, *(-1 if n == 1 else 1 for n in range(rank)))
    return steps.finish(_requantized(steps, total, scale, 6, 7))


# ---- DynamicQuantizeLinear ----------------------------------------------------------------------


def _infer_dynamic(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    if x.dtype is not DType.F32:
        raise ModelError(f"DynamicQuantizeLinear: the input is {x.dtype}, expected f32")
    return [Result(DType.U8, x.shape), Result(DType.F32, ()), Result(DType.U8, ())]


def _expand_dynamic(args: Args, attrs: Attrs) -> list[Primitive]:
    """The range of the data, widened to hold 0, is spread over 0…255."""
    steps = Steps()
    zero, top = np.array(0, np.float32), np.array(255, np.float32)
    low = steps("Min", steps("ReduceMin", "0", keepdims=0), zero)
    high = steps("Max", steps("ReduceMax", "0", keepdims=0), zero)
    scale = steps("Div", steps("Sub", high, low), top)
    shifted = steps("Clip", steps("Div", steps("Neg", low), scale), zero, top)
    point = steps("Cast", steps("Round", shifted), to=DType.U8.onnx)
    y = steps("QuantizeLinear", "0", scale, point)
    return steps.finish(y, scale, point)


INTEGER: tuple[Op, ...] = (
    Op("MatMulInteger", _infer_matmul_integer, expand=_expand_matmul_integer),
    Op(
        "QLinearMatMul",
        _infer_qlinear_matmul,
        expand=_expand_qlinear_matmul,
        refuse=_refuse_rows,
    ),
    Op("ConvInteger", _infer_conv_integer, expand=_expand_conv_integer),
    Op("QLinearConv", _infer_qlinear_conv, expand=_expand_qlinear_conv),
    Op("DynamicQuantizeLinear", _infer_dynamic, expand=_expand_dynamic),
)
