"""Small models, and what planish's importer and ONNX's reference make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from planish.graph.reference import interpret
from planish.importer import import_model


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str] | None],
    outputs: Sequence[str],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 0,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of f32 inputs; outputs have no stated type."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    stored = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", infos, made, stored)
    opsets = [helper.make_opsetid("", opset or onnx.defs.onnx_opset_version())]
    opsets += [helper.make_opsetid(d, v) for d, v in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def node(op: str, inputs: str, outputs: str, domain: str = "", **attrs: Any) -> onnx.NodeProto:
    """A node whose inputs and outputs are words; "-" is one left out."""
    names = [["" if n == "-" else n for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, name=f"n_{names[1][0]}", domain=domain, **attrs)


def imported_outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What the imported graph gives, node by node, at the canonical opset."""
    graph = import_model(model)
    known = interpret(graph, feeds)
    return [known[value.name] for value in graph.outputs]


def check_against_reference(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], tolerance: float = 1e-5
) -> None:
    """The imported graph means what the model means by ONNX's reference."""
    expected = ReferenceEvaluator(model).run(None, feeds)
    for ours, theirs in zip(imported_outputs(model, feeds), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
