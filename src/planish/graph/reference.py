"""Nodes as one-node ONNX models, and what they mean by the reference implementation of ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from planish.base.dtypes import DType
from planish.base.errors import UnsupportedError
from planish.base.shapes import evaluate, name_of
from planish.graph.graph import Graph, Node, Value, read_values
from planish.reference.evaluator import make_evaluator, newest_opset


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
    imports = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(d, newest_opset(d)) for d in sorted(domains)),
    ]
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
    if value.dtype is DType.OBJECT or (value.dtype is DType.STRING and value.type.shape is None):
        return onnx.ValueInfoProto(name=value.name)
    shape = value.type.shape
    dims = None if shape is None else [d if isinstance(d, int) else str(d) for d in shape]
    return helper.make_tensor_value_info(value.name, value.dtype.onnx, dims)


def _tensor(value: Value) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value.data), value.name)


def evaluate_node(node: Node, inputs: Mapping[str, Any]) -> list[Any]:
    """What a node gives, by the reference implementation of the ONNX specification.

    Args:
        node: The node.
        inputs: Contents of what it reads, by name; constants need not be there.

    Returns:
        One array for each output (a list or None where ONNX has sequences and optional values);
        None for one left out.

    Raises:
        UnsupportedError: The reference implementation cannot run it.
    """
    model, reads = host_model(node)
    proto = onnx.load_from_string(model)
    try:
        evaluator = make_evaluator(proto)
        results = iter(evaluator.run(None, {v.name: inputs[v.name] for v in reads}))
    except Exception as error:
        raise UnsupportedError(
            f"node {node.name!r} ({node.op}) fails in the reference implementation: {error}"
        ) from error
    return [None if value is None else _as_array(next(results)) for value in node.outputs]


def _as_array(result: Any) -> Any:
    return np.asarray(result) if isinstance(result, np.generic | int | float) else result


def interpret(graph: Graph, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Run a graph node by node through the reference implementation. Slow, and the plain twin of
    everything the passes and kernels do.

    Args:
        graph: The graph.
        feeds: One array for each graph input, by name.

    Returns:
        Every value by name, graph outputs among them.
    """
    known: dict[str, Any] = dict(feeds)
    symbols: dict[str, int] = {}
    for value in graph.inputs:
        _bind(value, known[value.name], symbols)
    for node in graph.nodes:
        for value in read_values(node):
            if value.is_sizes and value.dims is not None and value.name not in known:
                sizes = [evaluate(dim, symbols) for dim in value.dims]
                known[value.name] = np.array(sizes, value.dtype.numpy).reshape(
                    [evaluate(dim, symbols) for dim in value.shape]
                )
        for made, result in zip(node.outputs, evaluate_node(node, known), strict=True):
            if made is not None and result is not None:
                known[made.name] = result
                _bind(made, result, symbols)
    known |= {v.name: np.asarray(v.data) for v in graph.outputs if v.is_const}
    return known


def _bind(value: Value, array: Any, symbols: dict[str, int]) -> None:
    """Note the values of symbolic dims that a tensor's shape shows."""
    if value.type.shape is None or not isinstance(array, np.ndarray):
        return
    for dim, size in zip(value.type.shape, array.shape, strict=False):
        if name_of(dim):
            symbols.setdefault(name_of(dim), size)
