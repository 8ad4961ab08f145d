"""Activation functions. Constants are rounded to the dtype in which the function is computed."""

from __future__ import annotations

import math

from planish.base.errors import ModelError
from planish.base.expr import Expr, call
from planish.ops.checks import (
    FLOATS,
    NUMBERS,
    expect_dtype,
    float_attr,
    require,
    same_dtype,
    shape_of,
    str_attr,
    text,
)
from planish.ops.checks import broadcast as broadcast_shapes
from planish.ops.op import Args, Attrs, Op, Result
from planish.ops.pointwise import fetch, pointwise, wide
from planish.ops.scalar import Index, add, cast, clamp, div, le, like, lt, maximum, mul, select, sub

_SELU_ALPHA = 1.67326319217681884765625
_SELU_GAMMA = 1.05070102214813232421875


def _relu(attrs: Attrs, x: Expr) -> Expr:
    return maximum(x, like(0, x))


def _leaky_relu(attrs: Attrs, x: Expr) -> Expr:
    return select(lt(x, like(0, x)), mul(like(float_attr(attrs, "alpha", 0.01), x), x), x)


def _thresholded_relu(attrs: Attrs, x: Expr) -> Expr:
    return select(lt(like(float_attr(attrs, "alpha", 1.0), x), x), x, like(0, x))


def _elu(attrs: Attrs, x: Expr) -> Expr:
    alpha = like(float_attr(attrs, "alpha", 1.0), x)
    return select(lt(x, like(0, x)), mul(alpha, call("expm1", x)), x)


def _selu(attrs: Attrs, x: Expr) -> Expr:
    alpha = like(float_attr(attrs, "alpha", _SELU_ALPHA), x)
    gamma = like(float_attr(attrs, "gamma", _SELU_GAMMA), x)
    return mul(gamma, select(le(x, like(0, x)), mul(alpha, call("expm1", x)), x))


def _celu(attrs: Attrs, x: Expr) -> Expr:
    alpha = like(float_attr(attrs, "alpha", 1.0), x)
    return select(lt(x, like(0, x)), mul(alpha, call("expm1", div(x, alpha))), x)


def _hard_sigmoid(attrs: Attrs, x: Expr) -> Expr:
    alpha = like(float_attr(attrs, "alpha", 0.2), x)
    beta = like(float_attr(attrs, "beta", 0.5), x)
    return clamp(add(mul(alpha, x), beta), like(0, x), like(1, x))


def _hard_swish(attrs: Attrs, x: Expr) -> Expr:
    gate = clamp(add(mul(x, like(1 / 6, x)), like(0.5, x)), like(0, x), like(1, x))
    return mul(x, gate)


def _swish(attrs: Attrs, x: Expr) -> Expr:
    alpha = float_attr(attrs, "alpha", 1.0)
    return mul(x, call("sigmoid", x if alpha == 1.0 else mul(like(alpha, x), x)))


def _mish(attrs: Attrs, x: Expr) -> Expr:
    return mul(x, call("tanh", call("softplus", x)))


def _softsign(attrs: Attrs, x: Expr) -> Expr:
    return div(x, add(like(1, x), call("abs", x)))


def _gelu(attrs: Attrs, x: Expr) -> Expr:
    half, one = like(0.5, x), like(1, x)
    if str_attr(attrs, "approximate", "none", ("none", "tanh")) == "none":
        bend = call("erf", mul(x, like(math.sqrt(0.5), x)))
    else:
        cube = mul(like(0.044715, x), mul(mul(x, x), x))
        bend = call("tanh", mul(like(math.sqrt(2 / math.pi), x), add(x, cube)))
    return mul(mul(half, x), add(one, bend))


def _shrink(attrs: Attrs, x: Expr) -> Expr:
    lambd = float_attr(attrs, "lambd", 0.5)
    bias = like(float_attr(attrs, "bias", 0.0), x)
    inner = select(lt(like(lambd, x), x), sub(x, bias), like(0, x))
    return select(lt(x, like(-lambd, x)), add(x, bias), inner)


def _infer_prelu(args: Args, attrs: Attrs) -> list[Result]:
    dtype = same_dtype(args, (0, 1))
    expect_dtype(args, 0, NUMBERS)
    x, slope = require(args, 0).shape, require(args, 1).shape
    if x is None or slope is None:
        return [Result(dtype, x)]
    shape, facts = broadcast_shapes((x, slope))
    if shape != x and not facts:
        raise ModelError(f"slope {text(slope)} does not broadcast to the input's {text(x)}")
    return [Result(dtype, x, facts=facts)]


def _prelu(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    out = shape_of(args, 0)
    x, slope = wide(fetch(args, 0, at, out)), wide(fetch(args, 1, at, out))
    return cast(select(lt(x, like(0, x)), mul(slope, x), x), require(args, 0).dtype)


ACTIVATION: tuple[Op, ...] = (
    pointwise("Relu", _relu, inputs=1, accepts=NUMBERS),
    pointwise("LeakyRelu", _leaky_relu, inputs=1, accepts=FLOATS),
    pointwise("ThresholdedRelu", _thresholded_relu, inputs=1, accepts=FLOATS),
    pointwise("Elu", _elu, inputs=1, accepts=FLOATS),
    pointwise("Selu", _selu, inputs=1, accepts=FLOATS),
    pointwise("Celu", _celu, inputs=1, accepts=FLOATS),
    pointwise("HardSigmoid", _hard_sigmoid, inputs=1, accepts=FLOATS),
    pointwise("HardSwish", _hard_swish, inputs=1, accepts=FLOATS),
    pointwise("Swish", _swish, inputs=1, accepts=FLOATS),
    pointwise("Mish", _mish, inputs=1, accepts=FLOATS),
    pointwise("Softsign", _softsign, inputs=1, accepts=FLOATS),
    pointwise("Gelu", _gelu, inputs=1, accepts=FLOATS),
    pointwise("Shrink", _shrink, inputs=1, accepts=NUMBERS),
    Op("PRelu", _infer_prelu, element=_prelu),
)
