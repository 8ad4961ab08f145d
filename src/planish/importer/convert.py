"""ModelProto → Graph: values, constants and nodes, each node adapted to the canonical opset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.shapes import Dim, symbol
from planish.graph.graph import Graph, Node, TensorType, Value
from planish.importer.adapters import Draft
from planish.importer.adapt_table import ADAPTERS
from planish.importer.read import read_model, read_tensor


def import_model(model: str | Path | bytes | ModelProto) -> Graph:
    """Read a trained network.

    Args:
        model: A path of an ONNX file, its bytes, or a loaded model.

    Raises:
        ModelError: The file is missing, malformed or inconsistent; lists every problem found.
    """
    proto, folder = read_model(model)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    reader = _Reader(opsets, folder)
    graph = reader.graph(proto.graph, {})
    if reader.problems:
        raise ModelError("the model cannot be imported:", reader.problems)
    return graph


class _Reader:
    """Reads one model; nested graphs share it."""

    def __init__(self, opsets: dict[str, int], folder: Path | None) -> None:
        self.opsets = opsets
        self.folder = folder
        self.problems: list[str] = []
        self._names: set[str] = set()

    def graph(self, proto: GraphProto, outer: dict[str, Value]) -> Graph:
        known = dict(outer)
        for tensor in proto.initializer:
            data = read_tensor(tensor, self.folder)
            known[tensor.name] = self._constant(tensor.name, data)
        inputs = []
        for info in proto.input:
            if info.name in known and info.name not in outer:
                continue  # an initializer listed as an input: a default that stays
            value = Value(info.name, _type(info.type, info.name))
            known[info.name] = value
            inputs.append(value)
        types = {
            info.name: _type(info.type, info.name) for info in (*proto.value_info, *proto.output)
        }
        nodes: list[Node] = []
        for position, node in enumerate(proto.node):
            nodes += self._node(node, position, known, types)
        outputs = []
        for info in proto.output:
            if info.name not in known:
                self.problems.append(f"graph output {info.name!r} is made by no node")
            else:
                outputs.append(known[info.name])
        return Graph(proto.name or "graph", inputs, outputs, nodes)

    def _node(
        self,
        proto: NodeProto,
        position: int,
        known: dict[str, Value],
        types: dict[str, TensorType],
    ) -> list[Node]:
        name = proto.name or (proto.output[0] if proto.output else f"{proto.op_type}_{position}")
        inputs: list[Value | None] = []
        for source in proto.input:
            if source and source not in known:
                self.problems.append(f"node {name!r} reads {source!r}, which nothing makes before")
                return []
            inputs.append(known[source] if source else None)
        while inputs and inputs[-1] is None:
            inputs.pop()
        attrs = {attr.name: self._attr(attr, known) for attr in proto.attribute}
        domain = proto.domain or "ai.onnx"
        if domain == "ai.onnx" and proto.op_type == "Constant":
            known[proto.output[0]] = self._constant(proto.output[0], _constant_data(attrs))
            return []
        before: list[Node] = []
        op = proto.op_type if domain == "ai.onnx" else f"{domain}::{proto.op_type}"
        draft = Draft(
            op, inputs, attrs, name,
            lambda data: self._constant(self._fresh(f"{name}.const"), data),
            len(proto.output), before,
        )  # fmt: skip
        if domain == "ai.onnx":
            self._adapt(draft)
        outputs: list[Value | None] = []
        for target in proto.output:
            if not target:
                outputs.append(None)
                continue
            kind = types.get(target, TensorType(DType.F32, None))
            known[target] = Value(target, kind)
            outputs.append(known[target])
        made = Node(draft.op, draft.inputs, outputs, draft.attrs, name=name, origin=(name,))
        return [*before, made]

    def _adapt(self, draft: Draft) -> None:
        version = self.opsets.get("ai.onnx", 1)
        for row in ADAPTERS.get(draft.op, ()):
            if version < row.until:
                row.adapt(draft)

    def _attr(self, attr: AttributeProto, known: dict[str, Value]) -> Any:
        match attr.type:
            case AttributeProto.GRAPH:
                return self.graph(attr.g, known)
            case AttributeProto.TENSOR:
                return read_tensor(attr.t, self.folder)
            case AttributeProto.FLOAT:
                return float(attr.f)
            case AttributeProto.INT:
                return int(attr.i)
            case AttributeProto.STRING:
                return attr.s.decode("utf-8", "replace")
            case AttributeProto.FLOATS:
                return tuple(float(v) for v in attr.floats)
            case AttributeProto.INTS:
                return tuple(int(v) for v in attr.ints)
            case AttributeProto.STRINGS:
                return tuple(s.decode("utf-8", "replace") for s in attr.strings)
        return onnx.helper.get_attribute_value(attr)

    def _constant(self, name: str, data: np.ndarray) -> Value:
        self._names.add(name)
        return Value(name, TensorType(DType.from_numpy(data.dtype), tuple(data.shape)), data)

    def _fresh(self, hint: str) -> str:
        name, count = hint, 0
        while name in self._names:
            count += 1
            name = f"{hint}.{count}"
        return name


def _constant_data(attrs: dict[str, Any]) -> np.ndarray:
    """The contents of a Constant node, whichever attribute holds them."""
    (name, value), *_ = attrs.items()
    if name in ("value_int", "value_ints"):
        return np.asarray(value, dtype=np.int64)
    if name in ("value_float", "value_floats"):
        return np.asarray(value, dtype=np.float32)
    if name in ("value_string", "value_strings"):
        return np.asarray(value, dtype=object)
    return np.asarray(value)


def _type(proto: onnx.TypeProto, name: str) -> TensorType:
    tensor = proto.tensor_type
    try:
        dtype = DType.from_onnx(tensor.elem_type)
    except KeyError:
        dtype = DType.STRING
    if not tensor.HasField("shape"):
        return TensorType(dtype, None)
    dims: list[Dim] = []
    for number, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value"):
            dims.append(int(dim.dim_value))
        else:
            dims.append(symbol(dim.dim_param or f"{name}_dim{number}"))
    return TensorType(dtype, tuple(dims))
