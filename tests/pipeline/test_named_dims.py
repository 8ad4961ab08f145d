"""Symbolic dims whose names are no plain words: said, told and run as the model spells them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import planish
from planish.base.errors import ShapeError
from planish.measure.feeds import dims_of, parse_shapes


def model(left: str, right: str) -> onnx.ModelProto:
    """The rows of two inputs, one behind the other."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x", "z"], ["y"], axis=0)],
        "g",
        [info("x", TensorProto.FLOAT, [left, 3]), info("z", TensorProto.FLOAT, [right, 3])],
        [info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("left", "right"),
    [("a-b", "a_b"), ("N+1", "N_1"), ("batch size", "batch"), ("größe", "N=2"), ("a,b", "lambda")],
)
def test_two_names_are_two_sizes(left: str, right: str, tmp_path: Path) -> None:
    said = f"{left}=1:2:5,{right}=1:3:6"
    plan = planish.build(model(left, right), level=0, threads=1, profiles=said)
    assert plan.profiles[0].dims == ((left, 1, 2, 5), (right, 1, 3, 6))
    assert dims_of(plan, {left: (2,), right: (4,)}) == {left: 2, right: 4}
    plan.save(tmp_path / "m.plan")
    with planish.load(tmp_path / "m.plan") as engine:
        x, z = np.ones((2, 3), np.float32), np.zeros((5, 3), np.float32)
        assert np.array_equal(engine.run({"x": x, "z": z})["y"], np.concatenate([x, z]))
        with pytest.raises(ShapeError) as caught:
            engine.run({"x": np.ones((7, 3), np.float32), "z": z})
    assert f"{left} = 7 is not from 1 to 5" in caught.value.message


def test_a_name_given_twice_is_one_size() -> None:
    engine = planish.Engine(planish.build(model("a-b", "a-b"), level=0, threads=1))
    x, z = np.ones((2, 3), np.float32), np.zeros((5, 3), np.float32)
    with engine, pytest.raises(ShapeError, match="a-b = 5, but axis 0 of input 'x' has a-b = 2"):
        engine.run({"x": x, "z": z})


def test_shapes_as_people_write_them() -> None:
    assert parse_shapes(["batch size=8,N=2=3", "x=1x3"]) == {
        "batch size": (8,),
        "N=2": (3,),
        "x": (1, 3),
    }
