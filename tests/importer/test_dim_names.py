"""Symbolic dims keep the model's names, and differ wherever the model's names differ."""

from __future__ import annotations

from itertools import combinations

import onnx
import pytest
from models import model_of, node

from planish.base.shapes import name_of
from planish.graph.parse import parse_graph
from planish.graph.text import print_graph
from planish.importer import import_model

NAMES = ["a-b", "a_b", "a b", "N+1", "N_1", "0", "s_0", "max", "größe", "gr__e", "_unknown0", "x,y"]


@pytest.mark.parametrize(("left", "right"), [*combinations(NAMES, 2)])
def test_names_stay_apart(left: str, right: str) -> None:
    made = [node("Relu", "x", "y"), node("Relu", "z", "w")]
    graph = import_model(model_of(made, {"x": [left, 3], "z": [right, 3]}, ["y", "w"]))
    assert graph.outputs[0].shape[0] != graph.outputs[1].shape[0]
    for name, value in zip((left, right), graph.inputs, strict=True):
        assert name_of(value.shape[0]).removeprefix("model ") == name
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)


def test_unnamed_dims_are_called_after_their_value() -> None:
    made = [node("Relu", "x", "y"), node("Relu", "z", "w")]
    model = model_of(made, {"x": ["", "x_dim1"], "z": ["x_dim0", ""]}, ["y", "w"])
    graph = import_model(model)
    names = [name_of(dim) for value in graph.inputs for dim in value.shape]
    assert names == ["x_dim0_", "x_dim1", "x_dim0", "z_dim1"]


def test_names_in_bodies_count_as_the_models() -> None:
    body = onnx.helper.make_graph(
        [node("Relu", "x", "r")],
        "body",
        [],
        [onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["x_dim0", 3])],
    )
    made = node("If", "c", "y", then_branch=body, else_branch=body)
    graph = import_model(model_of([made], {"x": ["", 3], "c": []}, ["y"]))
    assert name_of(graph.inputs[0].shape[0]) == "x_dim0_"


def test_sizes_that_depend_on_data_stay_apart() -> None:
    made = [node("NonZero", "x", "a-b"), node("NonZero", "z", "a_b")]
    graph = import_model(model_of(made, {"x": [4], "z": [5]}, ["a-b", "a_b"]))
    first, second = (value.shape[1] for value in graph.outputs)
    assert first != second
