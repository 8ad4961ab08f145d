"""Operators that are a few simpler ones: Gemm, BatchNormalization."""

from __future__ import annotations

import numpy as np

from planish.base.errors import ModelError
from planish.base.shapes import Dim
from planish.ops.checks import (
    FLOATS,
    NUMBERS,
    broadcast,
    equal,
    expect_dtype,
    expect_rank,
    flag_attr,
    float_attr,
    given,
    int_attr,
    require,
    same_dtype,
    shape_of,
    text,
)
from planish.ops.op import Arg, Args, Attrs, Fact, Op, Primitive, Result, unknown
from planish.ops.steps import Operand, Steps

# ---- Gemm ---------------------------------------------------------------------------------------


def _gemm_sizes(args: Args, attrs: Attrs) -> tuple[Dim, Dim, Dim, Dim] | None:
    """M, K of the left and K, N of the right operand, after transposition."""
    a, b = require(args, 0).shape, require(args, 1).shape
    expect_rank(a, 2, 0, 2)
    expect_rank(b, 2, 1, 2)
    if a is None or b is None:
        return None
    m, k = a[::-1] if int_attr(attrs, "transA", 0) else a
    inner, n = b[::-1] if int_attr(attrs, "transB", 0) else b
    return m, k, inner, n


def _infer_gemm(args: Args, attrs: Attrs) -> list[Result]:
    expect_dtype(args, 0, NUMBERS)
    dtype = same_dtype(args, range(3))
    found = _gemm_sizes(args, attrs)
    if found is None:
        return [Result(dtype, (unknown(0), unknown(1)))]
    m, k, inner, n = found
    facts: list[Fact] = list(equal(k, inner, "Gemm: inner sizes"))
    c = given(args, 2)
    if c is not None and c.shape is not None:
        shape, more = broadcast(((m, n), c.shape))
        if shape != (m, n) and not more:
            raise ModelError(f"Gemm: C {text(c.shape)} does not broadcast to [{m},{n}]")
        facts += more
    return [Result(dtype, (m, n), facts=tuple(facts))]


def _expand_gemm(args: Args, attrs: Attrs) -> list[Primitive]:
    """Alpha * A' * B' + beta * C, with the factors folded into constants where there are any."""
    dtype = require(args, 0).dtype.numpy
    alpha, beta = float_attr(attrs, "alpha", 1.0), float_attr(attrs, "beta", 1.0)
    steps = Steps()
    a, _ = _factor(steps, args, 0, flag_attr(attrs, "transA", 0), 1.0)
    b, scaled = _factor(steps, args, 1, flag_attr(attrs, "transB", 0), alpha)
    y = steps("MatMul", a, b)
    if alpha != 1.0 and not scaled:
        y = steps("Mul", y, np.array(alpha, dtype))
    if given(args, 2) is not None and beta != 0.0:
        c, scaled = _factor(steps, args, 2, False, beta)
        if beta != 1.0 and not scaled:
            c = steps("Mul", c, np.array(beta, dtype))
        y = steps("Add", y, c)
    return steps.finish(y)


def _factor(
    steps: Steps, args: Args, number: int, turned: bool, scale: float
) -> tuple[Operand, bool]:
    """An operand, transposed as asked, and whether the scale is in it: true for constants."""
    data = require(args, number).data
    if data is None:
        return (steps("Transpose", str(number), perm=(1, 0)) if turned else str(number)), False
    if not turned and scale == 1.0:
        return str(number), True
    data = data.T if turned else data
    return (data if scale == 1.0 else np.asarray(data * data.dtype.type(scale))), True


# ---- BatchNormalization -------------------------------------------------------------------------


def _infer_batch_norm(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    expect_dtype(args, 0, FLOATS)
    expect_rank(x.shape, 2, 0)
    facts: list[Fact] = []
    for number in range(1, 5):
        shape = require(args, number).shape
        expect_rank(shape, 1, number, 1)
        if shape is not None and x.shape is not None:
            facts += equal(shape[0], x.shape[1], f"input {number} against {text(x.shape)}")
    y = Result(x.dtype, x.shape, facts=tuple(facts))
    if not int_attr(attrs, "training_mode", 0):
        return [y]
    mean, variance = require(args, 3), require(args, 4)
    return [y, Result(mean.dtype, mean.shape), Result(variance.dtype, variance.shape)]


def _expand_batch_norm(args: Args, attrs: Attrs) -> list[Primitive] | None:
    """X * a + b with a = scale / sqrt(var + epsilon) and b = bias - mean * a, per channel."""
    if int_attr(attrs, "training_mode", 0):
        return None
    epsilon = float_attr(attrs, "epsilon", 1e-5)
    dtype = require(args, 0).dtype.numpy
    ones = (1,) * (len(shape_of(args, 0)) - 2)
    known = [_f64(require(args, number)) for number in range(1, 5)]
    steps = Steps()
    if all(value is not None for value in known):
        scale, bias, mean, variance = (value for value in known if value is not None)
        a = scale / np.sqrt(variance + epsilon)
        b = bias - mean * a
        factor: Operand = a.reshape(-1, *ones).astype(dtype)
        addend: Operand = b.reshape(-1, *ones).astype(dtype)
    else:
        shape = np.array((-1, *ones), np.int64)
        # Types of parameters may differ from the data's.
        scale_, bias_, mean_, variance_ = (
            steps("CastLike", str(number), "0")
            if require(args, number).dtype is not require(args, 0).dtype
            else str(number)
            for number in range(1, 5)
        )
        root = steps("Sqrt", steps("Add", variance_, np.array(epsilon, dtype)))
        per_channel = steps("Div", scale_, root)
        shift = steps("Sub", bias_, steps("Mul", mean_, per_channel))
        factor = steps("Reshape", per_channel, shape)
        addend = steps("Reshape", shift, shape)
    return steps.finish(steps("Add", steps("Mul", "0", factor), addend))


def _f64(arg: Arg) -> np.ndarray | None:
    return None if arg.data is None else arg.data.astype(np.float64)


def _refuse_training(args: Args, attrs: Attrs) -> str | None:
    if int_attr(attrs, "training_mode", 0):
        return "BatchNormalization in training mode"
    return None


COMPOSITE: tuple[Op, ...] = (
    Op("Gemm", _infer_gemm, expand=_expand_gemm),
    Op(
        "BatchNormalization",
        _infer_batch_norm,
        expand=_expand_batch_norm,
        refuse=_refuse_training,
    ),
)
