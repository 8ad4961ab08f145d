"""`auto_pad` over sizes that only a run tells: how much is padded changes from run to run."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish
from planish.plan import HostStep

onnxruntime = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
SIZES = ((7, 9), (8, 8), (13, 4), (1, 2))


def check(op: str, kernel: int, dtype: type, **attrs: object) -> None:
    """No step runs on the host, and every size gives what onnxruntime gives."""
    draw = (lambda s: RNG.integers(0, 100, s)) if dtype is np.uint8 else RNG.standard_normal
    weight = draw((3, 3, kernel, kernel)).astype(dtype)
    info = helper.make_tensor_value_info
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    result = TensorProto.INT32 if dtype is np.uint8 else element
    nodes = [helper.make_node(op, ["x", "w"], ["c"], **attrs)]
    nodes += [helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Relu", ["f"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", element, ["N", 3, "H", "W"])],
        [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
        value_info=[info("c", result, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    plan = planish.build(data, level=0)
    assert not [step for step in plan.steps if isinstance(step, HostStep)]
    with planish.Engine(plan) as engine:
        for sizes in SIZES:
            x = draw((2, 3, *sizes)).astype(dtype)
            (expected,) = session.run(None, {"x": x})
            np.testing.assert_allclose(engine(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_strided_convolutions_of_any_size(auto_pad: str, kernel: int) -> None:
    check("Conv", kernel, np.float32, auto_pad=auto_pad, strides=[2, 3])


def test_convolutions_of_bytes() -> None:
    check("ConvInteger", 3, np.uint8, auto_pad="SAME_UPPER", strides=[2, 2])


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_transposed_convolutions_cropped_to_a_size(auto_pad: str) -> None:
    """onnxruntime refuses these, so they are held against the sum that the crop is cut from."""
    weight = RNG.standard_normal((1, 1, 3)).astype(np.float32)
    info = helper.make_tensor_value_info
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], output_shape=[6], strides=[2], auto_pad=auto_pad
    )
    graph = helper.make_graph(
        [node],
        "g",
        [info("x", TensorProto.FLOAT, [1, 1, "W"])],
        [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with planish.Engine(planish.build(model, level=0)) as engine:
        for size in (3, 4, 5):
            x = RNG.standard_normal((1, 1, size)).astype(np.float32)
            whole = np.zeros(2 * size + 1, np.float32)
            for n in range(size):
                whole[2 * n : 2 * n + 3] += x[0, 0, n] * weight[0, 0]
            crop = len(whole) - 6
            begin = crop // 2 if auto_pad == "SAME_UPPER" else crop - crop // 2
            np.testing.assert_allclose(engine(x)[0, 0], whole[begin:][:6], rtol=1e-4, atol=1e-5)
