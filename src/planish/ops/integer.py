"""Integer convolutions and matrix products, and DynamicQuantizeLinear.

    ConvInteger(x, w, zx, zw)     is     ConvInteger(Pad(x, zx), w - zw) + (-zx · Σ(w - zw))

Kernels sum x · w with no zero points, for constant s8 weights: the other instances are brought to
that form. Weights whose distance from their zero point does not fit s8 leave a rest r, the same for
all: r times the sum of the window is added. What has no such form is computed in i32, with the zero
points subtracted first.
"""

from __future__ import annotations

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.shapes import Dim, is_static
from planish.ops.checks import equal, expect_dtype, given, int_attr, require, shape_of, text
from planish.ops.contraction import (
    conv_flops,
    conv_reduction,
    conv_windows,
    has_open_pads,
    infer_conv,
    infer_matmul,
    matmul_flops,
    matmul_reduction,
)
from planish.ops.op import Arg, Args, Attrs, Op, Primitive, Reduction, Result
from planish.ops.scalar import Index
from planish.ops.steps import Operand, Steps

_BYTES = frozenset((DType.U8, DType.I8))


def signed_weights(w: np.ndarray, zero: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Weights less their zero points as s8 plus a rest that is the same for all.

    Args:
        w: u8 or s8.
        zero: Zero points, in a shape that broadcasts against `w`.

    Returns:
        (s8 weights, rest): w - zero = weights + rest; None where there are none.
    """
    wide = w.astype(np.int32) - zero.astype(np.int32)
    if wide.min(initial=0) >= -128 and wide.max(initial=0) <= 127:
        return wide.astype(np.int8), 0
    if np.unique(zero).size != 1:
        return None
    middle = 128 if w.dtype == np.uint8 else 0
    weights = (w.astype(np.int32) - middle).astype(np.int8)
    return weights, middle - int(zero.reshape(-1)[0])


def _check_zero(args: Args, number: int, wanted: Dim | None) -> None:
    """A zero point is one number, or one a slice of its operand."""
    zero = given(args, number)
    if zero is None or zero.shape in (None, (), (1,)) or wanted is None:
        return
    assert zero.shape is not None
    if len(zero.shape) == 1:
        equal(zero.shape[0], wanted, f"zero point {text(zero.shape)} in input {number}")


def _is_settled(args: Args) -> bool:
    """Whether kernels take an instance as it is."""
    w = require(args, 1)
    zeros = given(args, 2) is not None or given(args, 3) is not None
    return w.data is not None and w.dtype is DType.I8 and not zeros


def _constant_zero(args: Args, number: int) -> np.ndarray | None:
    """A zero point that is left out or constant; None for another."""
    arg = given(args, number)
    return np.zeros((), np.int32) if arg is None else arg.data


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


def _shifted(
    steps: Steps, args: Args, total: str, sums: np.ndarray, zero: np.ndarray | None
) -> str:
    """A sum over x as one over x - zx, given the sums of the weights."""
    if zero is None:
        point = steps("Cast", "2", to=DType.I32.onnx)
        shape = shape_of(args, 2)
        if len(shape) == 1 and shape[0] == 1:
            point = steps.reshape(point)
        elif len(shape) == 1:
            point = steps.unsqueeze(point, 1)
        return steps("Sub", total, steps("Mul", point, sums))
    if not zero.any():
        return total
    rows = zero.astype(np.int32)
    rows = rows.reshape(-1, 1) if rows.ndim == 1 and rows.size > 1 else rows
    return steps("Add", total, np.asarray(-(rows.reshape(()) if rows.size == 1 else rows) * sums))


# ---- MatMulInteger ------------------------------------------------------------------------------


def _infer_matmul_integer(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, _BYTES)
    expect_dtype(args, 1, _BYTES)
    result = infer_matmul(args, DType.I32)
    a, b = require(args, 0).shape, require(args, 1).shape
    _check_zero(args, 2, a[-2] if a is not None and len(a) > 1 else None)
    _check_zero(args, 3, b[-1] if b is not None and len(b) > 1 else None)
    return [result]


def _reduce_matmul(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    return matmul_reduction(args, at, DType.I32, None)


def _expand_matmul_integer(args: Args, attrs: Attrs) -> list[Primitive] | None:
    if _is_settled(args):
        return None
    steps = Steps()
    total = _matmul_settled(steps, args)
    if total is None:
        a, b = _centred(steps, args, 0, 2, -2), _centred(steps, args, 1, 3, -1)
        total = steps("MatMul", a, b)
    return steps.finish(total)


def _matmul_settled(steps: Steps, args: Args) -> str | None:
    """The product in the form that kernels take; None where there is none."""
    b, zero = require(args, 1).data, _constant_zero(args, 3)
    if b is None or zero is None or b.ndim < 2 or len(shape_of(args, 0)) < 2:
        return None
    found = signed_weights(b, zero)
    if found is None:
        return None
    weights, rest = found
    x_zero = _constant_zero(args, 2)

    def product(weights: np.ndarray) -> str:
        total = steps("MatMulInteger", "0", weights)
        sums = weights.astype(np.int32).sum(axis=-2, keepdims=b.ndim > 2, dtype=np.int32)
        return _shifted(steps, args, total, sums, x_zero)

    total = product(weights)
    if rest:
        rows = product(np.ones((b.shape[-2], 1), np.int8))
        total = steps("Add", total, steps("Mul", rows, np.array(rest, np.int32)))
    return total


# ---- ConvInteger --------------------------------------------------------------------------------


def _infer_conv_integer(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, _BYTES)
    expect_dtype(args, 1, _BYTES)
    result = infer_conv(args, attrs)
    zero = given(args, 2)
    if zero is not None and zero.shape not in (None, (), (1,)):
        raise ModelError(f"the zero point of the data is {text(zero.shape)}, expected one number")
    _check_zero(args, 3, None if result.shape is None else result.shape[1])
    return [Result(DType.I32, result.shape, facts=result.facts)]


def _reduce_conv(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    return conv_reduction(args, attrs, at, DType.I32, None)


def _expand_conv_integer(args: Args, attrs: Attrs) -> list[Primitive] | None:
    if _is_settled(args):
        return None
    steps = Steps()
    total = _conv_settled(steps, args, attrs)
    if total is None:
        x, w = _centred(steps, args, 0, 2, None), _centred(steps, args, 1, 3, 0)
        total = steps("Conv", x, w, **attrs)
    return steps.finish(total)


def _conv_settled(steps: Steps, args: Args, attrs: Attrs) -> str | None:
    """The convolution in the form that kernels take; None where there is none."""
    w, zero = require(args, 1).data, _constant_zero(args, 3)
    if w is None or zero is None:
        return None
    column = (-1, *(1,) * (w.ndim - 1))
    found = signed_weights(w, zero.reshape(column))
    group = int_attr(attrs, "group", 1)
    if found is None or (found[1] and group not in (1, w.shape[0])):
        return None
    weights, rest = found
    x_zero = _constant_zero(args, 2)
    padded = _padded(steps, args, attrs, x_zero)
    if padded is None:
        return None
    x, attrs = padded

    def convolved(weights: np.ndarray) -> str:
        total = steps("ConvInteger", x, weights, **attrs)
        sums = weights.astype(np.int32).sum(axis=tuple(range(1, w.ndim)), dtype=np.int32)
        return _shifted(steps, args, total, sums.reshape(column[:-1]), x_zero)

    total = convolved(weights)
    if rest:
        windows = convolved(np.ones((group, *w.shape[1:]), np.int8))
        total = steps("Add", total, steps("Mul", windows, np.array(rest, np.int32)))
    return total


def _padded(
    steps: Steps, args: Args, attrs: Attrs, zero: np.ndarray | None
) -> tuple[str, Attrs] | None:
    """The data padded by its zero point, and the attributes of a convolution that does not pad."""
    windows = conv_windows(args, attrs)
    pads = (*windows.begin, *windows.end)
    if zero is not None and not zero.any():
        return "0", attrs
    if not is_static(pads):
        return None
    if not any(pads):
        return "0", attrs
    count = len(windows.begin)
    places = np.array([0, 0, *windows.begin, 0, 0, *windows.end], np.int64)
    value: Operand = steps.reshape("2") if zero is None else zero.reshape(())
    x = steps("Pad", "0", places, value)
    kept = {name: attr for name, attr in attrs.items() if name != "auto_pad"}
    return x, kept | {"pads": (0,) * (2 * count)}


# ---- QLinearMatMul, QLinearConv -----------------------------------------------------------------


def _infer_qlinear_matmul(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, _BYTES)
    return [infer_matmul(args, require(args, 7).dtype, 0, 3)]


def _expand_qlinear_matmul(args: Args, attrs: Attrs) -> list[Primitive] | None:
    if _refuse_rows(args, attrs):
        return None
    steps = Steps()
    product = steps("MatMulInteger", "0", "3", *_zero_points(args))
    rows = _f32(steps, args, 1)
    if len(shape_of(args, 1)) == 1:
        rows = steps.unsqueeze(rows, 1)
    scale = steps("Mul", rows, _f32(steps, args, 4))
    return steps.finish(_requantized(steps, product, scale, 6, 7))


def _zero_points(args: Args) -> tuple[Operand, Operand]:
    """The zero points of the two operands, left out where they are 0."""
    first, second = (require(args, n) for n in (2, 5))
    none = [arg.data is not None and not arg.data.any() for arg in (first, second)]
    return None if none[0] else "2", None if none[1] else "5"


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
    total = steps("ConvInteger", "0", "3", *_zero_points(args), **attrs)
    per_channel = (-1, *(1,) * (len(shape_of(args, 0)) - 2))
    if given(args, 8) is not None:
        total = steps("Add", total, steps.reshape("8", *per_channel))
    scale = steps("Mul", _f32(steps, args, 1), _f32(steps, args, 4))
    if shape_of(args, 4) not in ((), (1,)):
        scale = steps.reshape(scale, *per_channel)
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
    Op(
        "MatMulInteger",
        _infer_matmul_integer,
        reduce=_reduce_matmul,
        expand=_expand_matmul_integer,
        anchor="matmul",
        flops=matmul_flops,
    ),
    Op(
        "QLinearMatMul",
        _infer_qlinear_matmul,
        expand=_expand_qlinear_matmul,
        refuse=_refuse_rows,
    ),
    Op(
        "ConvInteger",
        _infer_conv_integer,
        reduce=_reduce_conv,
        expand=_expand_conv_integer,
        anchor="conv",
        plain=has_open_pads,
        flops=conv_flops,
    ),
    Op("QLinearConv", _infer_qlinear_conv, expand=_expand_qlinear_conv),
    Op("DynamicQuantizeLinear", _infer_dynamic, expand=_expand_dynamic),
)
