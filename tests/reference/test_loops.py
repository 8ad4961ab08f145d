"""Loop on the host: scan outputs of any rank, no iteration, no condition."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import planish


def model(shape: list[int], *, condition: bool = True) -> onnx.ModelProto:
    """Doubles its state each time, and scans it."""
    state = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Add", ["old", "old"], ["new"]),
            helper.make_node("Identity", ["new"], ["seen"]),
        ],
        "body",
        [
            state("number", TensorProto.INT64, []),
            state("going", TensorProto.BOOL, []),
            state("old", TensorProto.FLOAT, shape),
        ],
        [
            state("still", TensorProto.BOOL, []),
            state("new", TensorProto.FLOAT, shape),
            state("seen", TensorProto.FLOAT, shape),
        ],
    )
    inputs = ["trips", "go" if condition else "", "x"]
    graph = helper.make_graph(
        [helper.make_node("Loop", inputs, ["last", "all"], body=body, name="loop")],
        "loops",
        [
            state("trips", TensorProto.INT64, []),
            *([state("go", TensorProto.BOOL, [])] if condition else []),
            state("x", TensorProto.FLOAT, shape),
        ],
        [state("last", TensorProto.FLOAT, shape), state("all", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("shape", [[], [3], [2, 3], [2, 1, 3]])
@pytest.mark.parametrize("trips", [0, 1, 4])
@pytest.mark.parametrize("go", [True, False, None])
def test_scans_are_stacked(shape: list[int], trips: int, go: bool | None) -> None:
    x = np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape)
    feeds = {"trips": np.array(trips, np.int64), "x": x}
    if go is not None:
        feeds["go"] = np.array(go)
    plan = planish.build(model(shape, condition=go is not None), level=0, threads=1)
    found = planish.Engine(plan).run(feeds)
    done = 0 if go is False else trips
    assert np.array_equal(found["last"], x * 2**done)
    assert found["all"].shape == (done, *shape)
    assert np.array_equal(found["all"], [x * 2 ** (n + 1) for n in range(done)] or found["all"])
