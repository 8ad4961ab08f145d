"""The listing of a model's operators: versions, what runs natively and why not, problems."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from planish.pipeline.listing import list_operators


def model_of(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph(nodes, "g", [x], [onnx.ValueInfoProto(name="y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_native_and_host() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("NonZero", ["r"], ["y"], name="where"),
    ]
    listing = list_operators(model_of(nodes))
    assert [(r.name, r.op, r.version, r.native) for r in listing.rows] == [
        ("relu", "Relu", 14, True),
        ("where", "NonZero", 13, False),
    ]
    assert listing.rows[1].reason
    assert not listing.problems and not listing.unsupported


def test_problems_are_listed() -> None:
    nodes = [
        helper.make_node("Nonsense", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["b"], ["y"], name="second"),
    ]
    listing = list_operators(model_of(nodes))
    assert len(listing.problems) >= 2
    assert [r.version for r in listing.rows] == [0, 14]
    assert not any(r.native for r in listing.rows)
    assert np.all([r.domain == "ai.onnx" for r in listing.rows])
