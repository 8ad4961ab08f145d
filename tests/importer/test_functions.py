"""Functions and bodies: inlined functions, names of their own, If, Loop and Scan on the host."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import check_against_reference, imported_outputs, model_of, node
from onnx import TensorProto, helper

import planish.onnx_backend as backend
from planish.base.errors import ModelError
from planish.importer import import_model

X = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)


def function(name: str, nodes: list[onnx.NodeProto], attributes: list[str]) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", onnx.defs.onnx_opset_version()),
              helper.make_opsetid("local", 1)]  # fmt: skip
    return helper.make_function("local", name, ["a", "b"], ["c"], nodes, opsets, attributes)


def test_model_local_functions() -> None:
    leaky = helper.make_node("LeakyRelu", ["a"], ["t"])
    leaky.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    inner = function("Inner", [leaky, node("Add", "t b", "c")], ["slope"])
    outer = function("Outer", [node("Inner", "a b", "t", domain="local", slope=0.5),
                               node("Mul", "t t", "c")], [])  # fmt: skip
    model = model_of(
        [node("Outer", "x x", "y", domain="local"),
         node("Inner", "y x", "z", domain="local", slope=0.25)],
        {"x": X.shape}, ["y", "z"], functions=[inner, outer], domains={"local": 1},
    )  # fmt: skip
    half = np.where(X < 0, X / 2, X) + X
    y = half * half  # never negative
    made = imported_outputs(model, {"x": X})
    np.testing.assert_allclose(made[0], y)
    np.testing.assert_allclose(made[1], y + X)
    graph = import_model(model)
    assert {o for n in graph.nodes for o in n.origin} == {"n_y", "n_z"}
    assert [v.name for v in graph.outputs] == ["y", "z"]


def test_endless_function() -> None:
    again = function("Again", [node("Again", "a b", "c", domain="local")], [])
    model = model_of([node("Again", "x x", "y", domain="local")], {"x": [2]}, ["y"],
                     functions=[again], domains={"local": 1})  # fmt: skip
    with pytest.raises(ModelError, match="calls itself"):
        import_model(model)


def test_operators_that_functions_define() -> None:
    model = model_of([node("MeanVarianceNormalization", "x", "y", axes=[0])], {"x": X.shape}, ["y"])
    check_against_reference(model, {"x": X}, 1e-3)


def branch(name: str, op: str, read: str) -> onnx.GraphProto:
    out = [onnx.ValueInfoProto(name="r")]
    const = node("Constant", "", "k", value_float=2.0 if name == "yes" else 3.0)
    return helper.make_graph([const, node(op, f"{read} k", "r")], name, [], out)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("constant", [True, False])
def test_if_reads_from_outside(flag: bool, constant: bool) -> None:
    """Both branches call a constant k; the names of bodies are apart."""
    made = node("If", "flag", "y", then_branch=branch("yes", "Mul", "x"),
                else_branch=branch("no", "Add", "x"))  # fmt: skip
    weights = {"flag": np.array(flag)} if constant else {}
    model = model_of([made, node("Relu", "y", "z")], {"x": X.shape}, ["z"], weights)
    feeds = {"x": X}
    if not constant:
        model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
        feeds["flag"] = np.array(flag)
    expected = np.maximum(X * 2 if flag else X + 3, 0)
    np.testing.assert_array_equal(imported_outputs(model, feeds)[0], expected)
    made_outputs = backend.run_model(model, list(feeds.values()), threads=1)
    np.testing.assert_allclose(made_outputs[0], expected)


def test_loop_with_a_nested_if() -> None:
    """The sum of x over 4 trips, doubled on the last one; one row of it is scanned."""
    value = helper.make_tensor_value_info
    inner = node("If", "late", "add", then_branch=branch("yes", "Mul", "x"),
                 else_branch=helper.make_graph([node("Identity", "x", "r2")], "no", [],
                                               [onnx.ValueInfoProto(name="r2")]))  # fmt: skip
    body = helper.make_graph(
        [node("Constant", "", "two", value_int=2), node("Less", "two i", "late"), inner,
         node("Add", "s add", "s_out"), node("ReduceSum", "s_out axis", "trace", keepdims=0),
         node("Identity", "go", "go_out")],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []),
         value("s", TensorProto.FLOAT, X.shape)],
        [value("go_out", TensorProto.BOOL, []), value("s_out", TensorProto.FLOAT, X.shape),
         value("trace", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    weights = {"axis": np.array([1]), "trips": np.array(4)}
    weights |= {"go0": np.array(True), "s0": np.zeros_like(X)}
    model = model_of([node("Loop", "trips go0 s0", "total traces", body=body)], {"x": X.shape},
                     ["total", "traces"], weights)  # fmt: skip
    (total, traces) = backend.run_model(model, [X], threads=1)
    steps = [X, X, X, 2 * X]
    np.testing.assert_allclose(total, sum(steps))
    np.testing.assert_allclose(traces, np.cumsum(steps, axis=0).sum(axis=2))


def test_scan() -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Add", "s e", "s_out"), node("Identity", "s_out", "o")], "body",
        [value("s", TensorProto.FLOAT, [2]), value("e", TensorProto.FLOAT, [2])],
        [value("s_out", TensorProto.FLOAT, [2]), value("o", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    model = model_of([node("Scan", "s0 x", "s y", body=body, num_scan_inputs=1)],
                     {"x": X.shape}, ["s", "y"], {"s0": np.zeros(2, np.float32)})  # fmt: skip
    (last, all_) = backend.run_model(model, [X], threads=1)
    np.testing.assert_allclose(all_, X.cumsum(axis=0))
    np.testing.assert_allclose(last, X.sum(axis=0))
