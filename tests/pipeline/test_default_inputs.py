"""Inputs that the model has values for: constants of the plan, or inputs where the user says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish
from planish.base.errors import InputError, ModelError

X = np.arange(6, dtype=np.float32).reshape(2, 3)
W = np.array([1, 2, 3], np.float32)


def model(ir_version: int = 10) -> onnx.ModelProto:
    """y = reshape(x * w, to): w and the target shape are inputs with values."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "w"], ["xw"], name="scale"),
            helper.make_node("Reshape", ["xw", "to"], ["y"], name="shape"),
        ],
        "g",
        [
            info("x", TensorProto.FLOAT, [2, 3]),
            info("w", TensorProto.FLOAT, [3]),
            info("to", TensorProto.INT64, [1]),
        ],
        [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(np.array([6]), "to")],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


@pytest.mark.parametrize("ir_version", [3, 10])
def test_they_are_constants(ir_version: int, tmp_path: Path) -> None:
    planish.build(model(ir_version), level=0, threads=1).save(tmp_path / "m.plan")
    with planish.load(tmp_path / "m.plan") as engine:
        assert [tensor.name for tensor in engine.inputs] == ["x"]
        assert engine.plan.folded == ("w", "to")
        assert engine.run({"x": X})["y"].tolist() == (X * W).reshape(-1).tolist()
        with pytest.raises(InputError) as caught:
            engine.run({"x": X, "w": W})
    assert "['w'] are constants of this plan" in caught.value.message
    assert "inputs=['w']" in caught.value.hint and "--input" in caught.value.hint


def test_one_stays_an_input_where_asked() -> None:
    plan = planish.build(model(), level=0, threads=1, inputs=["w"])
    assert plan.folded == ("to",)
    with planish.Engine(plan) as engine:
        assert [tensor.name for tensor in engine.inputs] == ["x", "w"]
        assert engine.run({"x": X, "w": W + 1})["y"].tolist() == (X * (W + 1)).ravel().tolist()
        with pytest.raises(InputError, match=r"missing inputs \['w'\]"):
            engine.run({"x": X})


def test_a_shape_that_stays_an_input_is_not_taken_for_known() -> None:
    plan = planish.build(model(), level=0, threads=1, inputs=["to", "x"])
    with planish.Engine(plan) as engine:
        assert engine.run({"x": X, "to": np.array([6])})["y"].shape == (6,)


def test_a_name_that_is_no_input() -> None:
    with pytest.raises(ModelError, match=r"'q' cannot stay an input, .* \['x', 'w', 'to'\]"):
        planish.build(model(), level=0, threads=1, inputs=["q"])
