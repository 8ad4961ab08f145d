"""Nodes as one-node ONNX models, and what they mean by the reference implementation of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from planish.base.dtypes import DType
from planish.base.errors import UnsupportedError
from planish.graph.graph import Graph, Node, Value, read_values


def host_model(node: Node) -> tuple[bytes, list[Value]]:
    """A serialised model of one node.

    Constants are initializers; everything else the node (or a body in its attributes) reads is an
    input of the model.

    Returns:
        The model, and the values that are its inputs, in order.
    """
    reads = list(dict.fromkeys(read_values(node)))
    inputs = [v for v in reads if not v.is_const]
    graph = helper.make_graph(
        [_node(node)],
        node.name or node.op,
        [_info(v) for v in inputs],
        [_info(v) for v in node.outputs if v is not None],
        [_tensor(v) for v in _constants(node)],
    )
    opset = onnx.defs.onnx_opset_version()
    domains = {node.op.split("::")[0] for node in _all_nodes(node) if "::" in node.op}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=min(onnx.IR_VERSION, 11))
    return model.SerializeToString(), inputs


def _all_nodes(node: Node) -> list[Node]:
    found = [node]
    for attr in node.attrs.values():
        if isinstance(attr, Graph):
            for inner in attr.nodes:
                found += _all_nodes(inner)
    return found


def _constants(node: Node) -> list[Value]:
    """Constants that the node reads, those of its bodies too."""
    values: dict[str, Value] = {}
    for inner in _all_nodes(node):
        for value in inner.inputs:
            if value is not None and value.is_const:
                values[value.name] = value
        for attr in inner.attrs.values():
            if isinstance(attr, Graph):
                values |= {v.name: v for v in attr.outputs if v.is_const}
    return list(values.values())


def _node(node: Node) -> onnx.NodeProto:
    domain, _, op = node.op.rpartition("::")
    attrs = {name: _attr(value) for name, value in node.attrs.items()}
    return helper.make_node(
        op,
        [v.name if v is not None else "" for v in node.inputs],
        [v.name if v is not None else "" for v in node.outputs],
        name=node.name,
        domain=domain,
        **attrs,
    )


def _attr(value: Any) -> Any:
    if isinstance(value, Graph):
        return helper.make_graph(
            [_node(n) for n in value.nodes],
            value.name,
            [_info(v) for v in value.inputs],
            [_info(v) for v in value.outputs],
        )
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(np.asarray(value))
    return list(value) if isinstance(value, tuple) else value


def _info(value: Value) -> onnx.ValueInfoProto:
    if value.dtype is DType.STRING and value.type.shape is None:
        return onnx.ValueInfoProto(name=value.name)
    shape = value.type.shape
    dims = None if shape is None else [d if isinstance(d, int) else str(d) for d in shape]
    return helper.make_tensor_value_info(value.name, value.dtype.onnx, dims)


def _tensor(value: Value) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value.data), value.name)


def evaluate_node(node: Node, inputs: dict[str, np.ndarray]) -> list[np.ndarray | None]:
    """What a node gives, by the reference implementation of the ONNX specification.

    Args:
        node: The node.
        inputs: Contents of what it reads, by name; constants need not be there.

    Returns:
        One array for each output; None for one left out.

    Raises:
        UnsupportedError: The reference implementation cannot run it.
    """
    model, reads = host_model(node)
    proto = onnx.load_from_string(model)
    try:
        evaluator = ReferenceEvaluator(proto)
        results = iter(evaluator.run(None, {v.name: inputs[v.name] for v in reads}))
    except Exception as error:
        raise UnsupportedError(
            f"node {node.name!r} ({node.op}) fails in the reference implementation: {error}"
        ) from error
    return [None if v is None else np.asarray(next(results)) for v in node.outputs]


def interpret(graph: Graph, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph node by node through the reference implementation. Slow, and the plain twin of
    everything the passes and kernels do.

    Args:
        graph: The graph.
        feeds: One array for each graph input, by name.

    Returns:
        Every value by name, graph outputs among them.
    """
    known = dict(feeds)
    for node in graph.nodes:
        for value, result in zip(node.outputs, evaluate_node(node, known), strict=True):
            if value is not None and result is not None:
                known[value.name] = result
    known |= {v.name: np.asarray(v.data) for v in graph.outputs if v.is_const}
    return known
