"""Graphs as ONNX models, so that onnxruntime can run what the passes made.

Symbolic dims get numbers, and planish's own operators become primitives.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from planish.base.shapes import evaluate
from planish.graph.graph import Graph, Node, Value


def to_model(graph: Graph, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """An ONNX model of a graph.

    Args:
        graph: A graph without bodies.
        sizes: Values of its symbolic dims.
    """
    nodes: list[onnx.NodeProto] = []
    leaves: dict[str, onnx.TensorProto] = {}
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None and (value.is_const or value.is_sizes):
                leaves[value.name] = _leaf(value, sizes)
        nodes += _attention(node) if node.op == "planish::ScaledAttention" else [_node(node)]
    for value in graph.outputs:
        if value.is_const:
            leaves[value.name] = _leaf(value, sizes)
    made = helper.make_graph(
        nodes,
        graph.name,
        [_info(value, sizes) for value in graph.inputs],
        [_info(value, sizes) for value in graph.outputs],
        list(leaves.values()),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def _leaf(value: Value, sizes: Mapping[str, int]) -> onnx.TensorProto:
    if value.data is not None:
        return numpy_helper.from_array(np.asarray(value.data), value.name)
    numbers = [evaluate(dim, sizes) for dim in value.dims or ()]
    data = np.array(numbers, value.dtype.numpy).reshape([int(str(dim)) for dim in value.shape])
    return numpy_helper.from_array(data, value.name)


def _info(value: Value, sizes: Mapping[str, int]) -> onnx.ValueInfoProto:
    shape = [evaluate(dim, sizes) for dim in value.shape]
    return helper.make_tensor_value_info(value.name, value.dtype.onnx, shape)


def _names(values: list[Value | None]) -> list[str]:
    return ["" if value is None else value.name for value in values]


def _node(node: Node) -> onnx.NodeProto:
    attrs = {}
    for name, value in node.attrs.items():
        attrs[name] = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
    inputs, outputs = _names(node.inputs), _names(node.outputs)
    return helper.make_node(node.op, inputs, outputs, name=node.name, **attrs)


def _attention(node: Node) -> list[onnx.NodeProto]:
    q, k, v, mask, keep, fill = (_names(node.inputs) + [""] * 6)[:6]
    keys = node.inputs[1]
    assert keys is not None
    rank = len(keys.shape)
    perm = [*range(rank - 2), rank - 1, rank - 2]
    scale = numpy_helper.from_array(np.float32(node.attrs["scale"]), "value")
    at = node.output.name
    nodes = [
        helper.make_node("Constant", [], [f"{at}.c"], value=scale),
        helper.make_node("Transpose", [k], [f"{at}.kt"], perm=perm),
        helper.make_node("MatMul", [q, f"{at}.kt"], [f"{at}.qk"]),
        helper.make_node("Mul", [f"{at}.qk", f"{at}.c"], [f"{at}.s"]),
    ]
    scores = f"{at}.s"
    if mask:
        nodes.append(helper.make_node("Add", [scores, mask], [f"{at}.m"]))
        scores = f"{at}.m"
    if keep:
        nodes.append(helper.make_node("Where", [keep, scores, fill], [f"{at}.w"]))
        scores = f"{at}.w"
    nodes.append(helper.make_node("Softmax", [scores], [f"{at}.p"], axis=-1))
    return [*nodes, helper.make_node("MatMul", [f"{at}.p", v], [at])]
