"""Bad models: every problem at once, with the nodes' names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import imported_outputs, model_of, node
from onnx import TensorProto, helper

from planish.base.errors import ModelError, PlanishError, UnsupportedError
from planish.importer import import_model


def problems_of(model: onnx.ModelProto) -> list[str]:
    with pytest.raises(ModelError) as caught:
        import_model(model)
    return caught.value.problems


def test_all_problems_at_once() -> None:
    nodes = [
        node("Nonsense", "x", "a"),
        node("Relu", "nowhere", "b"),
        node("Concat", "x x", "c"),
        node("Relu", "x x", "d"),
        node("Relu", "x", "e"),
        node("Relu", "x", "e"),
        node("MatMul", "x w", "f"),
        node("Gather", "x w", "g", axis="one"),
    ]
    found = problems_of(
        model_of(nodes, {"x": [2, 3]}, ["e", "missing"], {"w": np.ones((4, 5), np.float32)})
    )
    for part in (
        "'n_a' (Nonsense): opset",
        "'n_b' reads 'nowhere'",
        "'n_c' (Concat): attribute 'axis' is missing",
        "'n_d' (Relu): expected 1 inputs, found 2",
        "'n_e' makes 'e' again",
        "'n_f' (MatMul)",
        "'n_g' (Gather): attribute 'axis' is STRING, expected INT",
        "output 'missing' is made by no node",
    ):
        assert any(part in line for line in found), (part, found)


def test_nodes_behind_a_problem_are_looked_at_too() -> None:
    nodes = [
        node("Relu", "x x", "a"),
        node("Nonsense", "a", "b"),
        node("Relu", "nowhere", "c"),
        node("Concat", "c c", "d"),
        node("Relu", "c", "e"),
    ]
    found = problems_of(model_of(nodes, {"x": [2, 3]}, ["b", "d", "e"]))
    for part in ("'n_b' (Nonsense): opset", "'n_d' (Concat): attribute 'axis' is missing"):
        assert any(part in line for line in found), (part, found)
    assert not any("'n_e'" in line for line in found)


def test_cycle() -> None:
    found = problems_of(
        model_of([node("Add", "x b", "a"), node("Relu", "a", "b")], {"x": [2]}, ["b"])
    )
    assert any("cycle" in line and "'n_a'" in line and "'n_b'" in line for line in found)


def test_unsorted_nodes_are_sorted() -> None:
    x = np.array([-1.0, 2.0], np.float32)
    model = model_of([node("Neg", "a", "y"), node("Relu", "x", "a")], {"x": [2]}, ["y"])
    (y,) = imported_outputs(model, {"x": x})
    np.testing.assert_array_equal(y, -np.maximum(x, 0))


def test_stated_dtype_of_an_output() -> None:
    model = model_of([node("Shape", "x", "y")], {"x": [2]}, ["y"])
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    assert any("'y' is stated as f32, but is i64" in line for line in problems_of(model))


def test_newer_opset() -> None:
    newer = onnx.defs.onnx_opset_version() + 1
    model = model_of([node("Relu", "x", "y")], {"x": [2]}, ["y"], opset=newer)
    assert any(f"opset {newer}" in line for line in problems_of(model))


def test_nodes_that_nothing_runs_are_all_named() -> None:
    nodes = [node("Foo", "x", "a", domain="acme"), node("Bar", "a", "y", domain="acme")]
    with pytest.raises(UnsupportedError) as caught:
        import_model(model_of(nodes, {"x": [2]}, ["y"], domains={"acme": 1}))
    assert "'n_a' (Foo)" in str(caught.value) and "'n_y' (Bar)" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no protobuf at all", b"\x00" * 64, b"\x08\x07"])
def test_no_model(data: bytes) -> None:
    with pytest.raises(PlanishError, match="not an ONNX model"):
        import_model(data)


def test_no_file() -> None:
    with pytest.raises(ModelError, match="cannot read"):
        import_model("/does/not/exist.onnx")
