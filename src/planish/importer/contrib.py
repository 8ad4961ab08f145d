"""onnxruntime's operators on quantised tensors, as functions of standard operators.

    QLinearAdd(a, …, b, …)  is  DequantizeLinear(a) + DequantizeLinear(b), quantised again

The passes then find integer kernels for them, as they do for files that say so themselves. Each
function is written in ONNX's own text form, for a node's attributes and the inputs that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import onnx.parser
from onnx import FunctionProto, NodeProto

from planish.base.errors import ModelError

DOMAIN = "com.microsoft"
_OPSET = 17  # the form of the standard operators below

Write = Callable[[NodeProto, Mapping[str, Any]], tuple[list[str], list[str]]]


def is_contrib(node: NodeProto) -> bool:
    """Whether a node is one of onnxruntime's operators that are known here."""
    return node.domain == DOMAIN and node.op_type in _FUNCTIONS


def contrib_function(domain: str, node: NodeProto) -> FunctionProto | None:
    """What an operator of onnxruntime's own domain computes; None for one that is not known here.

    Raises:
        ModelError: The node has a form that is not handled.
    """
    write = _FUNCTIONS.get(node.op_type) if domain == DOMAIN else None
    if write is None:
        return None
    attrs = {attr.name: onnx.helper.get_attribute_value(attr) for attr in node.attribute}
    inputs, lines = write(node, attrs)
    if attrs.get("channels_last"):
        raise ModelError("attribute 'channels_last' is 1: only 0 has a standard form")
    body = "\n".join(lines)
    text = (
        f'<domain: "{DOMAIN}", opset_import: ["" : {_OPSET}]>\n'
        f"{node.op_type} ({', '.join(inputs)}) => (y)\n{{\n{body}\n}}"
    )
    function = onnx.parser.parse_function(text)
    del function.attribute[:]
    return function


def _kept(attrs: Mapping[str, Any], *names: str) -> str:
    """Attributes of a node in text form, those that it has."""
    found = [f"{name} = {_text(attrs[name])}" for name in names if name in attrs]
    return f"<{', '.join(found)}>" if found else ""


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return f'"{value.decode()}"'
    return str(list(value)) if isinstance(value, list | tuple) else str(value)


def _has(node: NodeProto, position: int) -> bool:
    return position < len(node.input) and bool(node.input[position])


_PARTS = ("x", "x_scale", "x_zero")
_RESULT = ("y_scale", "y_zero")
_READ = "r = DequantizeLinear (x, x_scale, x_zero)"
_WRITE = "y = QuantizeLinear (s, y_scale, y_zero)"


def _one(op: str, *names: str) -> Write:
    """A function of one quantised tensor."""

    def write(node: NodeProto, attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        return [*_PARTS, *_RESULT], [_READ, f"s = {op} {_kept(attrs, *names)} (r)", _WRITE]

    return write


def _two(op: str) -> Write:
    """A function of two quantised tensors."""

    def write(node: NodeProto, attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        inputs = [*_PARTS, "z", "z_scale", "z_zero", *_RESULT]
        read = "q = DequantizeLinear (z, z_scale, z_zero)"
        return inputs, [_READ, read, f"s = {op} (r, q)", _WRITE]

    return write


def _concat(node: NodeProto, attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    count = (len(node.input) - 2) // 3
    inputs = [*_RESULT]
    lines = []
    for n in range(count):
        inputs += [f"x{n}", f"x{n}_scale", f"x{n}_zero"]
        lines.append(f"r{n} = DequantizeLinear (x{n}, x{n}_scale, x{n}_zero)")
    parts = ", ".join(f"r{n}" for n in range(count))
    return inputs, [*lines, f"s = Concat <axis = {attrs.get('axis', 0)}> ({parts})", _WRITE]


def _gemm(node: NodeProto, attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """A bias is i32 in units of alpha · x_scale · w_scale; without y_scale the result is real."""
    inputs = [*_PARTS, "w", "w_scale", "w_zero", "c", *_RESULT]
    axis = 0 if attrs.get("transB", 0) else 1
    options = _kept(attrs, "alpha", "transA", "transB")
    lines = [_READ, f"v = DequantizeLinear <axis = {axis}> (w, w_scale, w_zero)"]
    lines.append(f"p = Gemm {options} (r, v)")
    if _has(node, 6):
        alpha = float(attrs.get("alpha", 1.0))
        lines += [
            f"a = Constant <value_float = {alpha}> ()",
            "u = Mul (x_scale, w_scale)",
            "t = Mul (u, a)",
            "f = Cast <to = 1> (c)",
            "b = Mul (f, t)",
            "s = Add (p, b)",
        ]
    else:
        lines.append("s = Identity (p)")
    return inputs, [*lines, _WRITE if _has(node, 7) else "y = Identity (s)"]


def _matmul_to_float(node: NodeProto, attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    inputs = ["x", "w", "x_scale", "w_scale", "x_zero", "w_zero", "c"]
    zeros = [name if _has(node, n) else "" for n, name in ((4, "x_zero"), (5, "w_zero"))]
    lines = [
        f"p = MatMulInteger ({', '.join(['x', 'w', *zeros]).rstrip(', ')})",
        "f = Cast <to = 1> (p)",
        "u = Mul (x_scale, w_scale)",
        "s = Mul (f, u)",
    ]
    return inputs, [*lines, "y = Add (s, c)" if _has(node, 6) else "y = Identity (s)"]


def _dynamic_matmul(node: NodeProto, attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    inputs = ["x", "w", "w_scale", "w_zero", "c"]
    zero = ", w_zero" if _has(node, 3) else ""
    lines = [
        "q, x_scale, x_zero = DynamicQuantizeLinear (x)",
        f"p = MatMulInteger (q, w, x_zero{zero})",
        "f = Cast <to = 1> (p)",
        "u = Mul (x_scale, w_scale)",
        "s = Mul (f, u)",
    ]
    return inputs, [*lines, "y = Add (s, c)" if _has(node, 4) else "y = Identity (s)"]


def _same(op: str) -> Write:
    """An operator that the standard has taken over since."""

    def write(node: NodeProto, attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        return ["x", "scale", "zero"], [f"y = {op} {_kept(attrs, 'axis')} (x, scale, zero)"]

    return write


_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")

_FUNCTIONS: dict[str, Write] = {
    "QLinearAdd": _two("Add"),
    "QLinearMul": _two("Mul"),
    "QLinearSigmoid": _one("Sigmoid"),
    "QLinearLeakyRelu": _one("LeakyRelu", "alpha"),
    "QLinearSoftmax": _one("Softmax", "axis"),
    "QLinearGlobalAveragePool": _one("GlobalAveragePool"),
    "QLinearAveragePool": _one("AveragePool", *_POOL),
    "QLinearReduceMean": _one("ReduceMean", "axes", "keepdims"),
    "QLinearConcat": _concat,
    "QGemm": _gemm,
    "MatMulIntegerToFloat": _matmul_to_float,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "QuantizeLinear": _same("QuantizeLinear"),
    "DequantizeLinear": _same("DequantizeLinear"),
}
