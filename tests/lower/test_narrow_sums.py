"""What lowering proves of integer sums from the weights, and what plans make of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish
from planish.base.dtypes import DType
from planish.lower.convolutions import sums_are_narrow


def test_the_largest_sum_decides() -> None:
    filters = np.zeros((2, 200, 3, 3), np.int8)
    filters[1, :115] = 127  # 255 · 127 · 9 · 115 is just within 2²⁵
    assert sums_are_narrow(filters, DType.U8)
    filters[1, 115, 0, 0] = 127
    filters[1, 115, 0, 1] = 127
    assert not sums_are_narrow(filters, DType.U8)
    filters[1, 100:] *= -1  # of one sign less
    assert sums_are_narrow(filters, DType.U8)
    assert sums_are_narrow(filters, DType.I8)
    filters[0] = -128  # 128 · 128 · 9 · 200 is within 2²⁵ too
    assert sums_are_narrow(filters, DType.I8)
    assert not sums_are_narrow(filters, DType.U8)


def test_only_known_bytes() -> None:
    assert not sums_are_narrow(None, DType.U8)
    assert not sums_are_narrow(np.zeros((2, 3, 3, 3), np.float32), DType.U8)
    assert not sums_are_narrow(np.zeros((2, 3, 3, 3), np.int8), DType.F32)
    assert sums_are_narrow(np.zeros((0, 3, 3, 3), np.int8), DType.U8)


def _model(largest: int) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = rng.integers(-largest, largest + 1, (64, 256, 3, 3)).astype(np.int8)
    weights[0] = largest
    consts = {"zx": np.uint8(7), "zw": np.int8(0), "sx": np.float32(0.1), "sw": np.float32(0.01)}
    consts |= {"sy": np.float32(2.0), "zy": np.uint8(120), "w": weights, "sv": np.float32(0.1)}
    consts["v"] = rng.integers(-9, 10, (256, 16, 1, 1)).astype(np.int8)
    nodes = [
        helper.make_node("QLinearConv", ["x", "sx", "zx", "v", "sw", "zw", "sv", "zx"], ["z"]),
        helper.make_node(
            "QLinearConv", ["z", "sv", "zx", "w", "sw", "zw", "sy", "zy"], ["y"], pads=[1] * 4
        ),
    ]
    shape = [1, 16, 28, 28]
    graph = helper.make_graph(
        nodes,
        "narrow",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 64, 28, 28])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in consts.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(("largest", "narrow"), [(20, True), (127, False)])
def test_plans_of_quantised_models(
    largest: int, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Winograd where sums are narrow and larger weights cost nothing; the same bits either way."""
    x = np.random.default_rng(1).integers(0, 256, (1, 16, 28, 28)).astype(np.uint8)
    results = []
    monkeypatch.setenv("PLANISH_WEIGHT_GROWTH", "10000")
    for price in ("0", "1000000"):
        monkeypatch.setenv("PLANISH_WEIGHT_PRICE", price)
        plan = planish.build(_model(largest), level=0)
        kernels = {getattr(step, "kernel", "") for step in plan.steps}
        assert ("cpu.conv_u8.winograd" in kernels) == (narrow and price == "0")
        with planish.Engine(plan) as engine:
            results.append(engine.run({"x": x})["y"])
    assert results[0].tobytes() == results[1].tobytes()
    assert len(np.unique(results[0])) > 50
