"""onnxruntime's operators on quantised tensors, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from planish.graph.reference import interpret
from planish.importer import import_model

ort = pytest.importorskip("onnxruntime")

_X = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 6)).astype(np.uint8)
_POINTS = (np.float32(0.05), np.uint8(110))
_RESULT = (np.float32(0.07), np.uint8(90))
_SCALE, _ZERO = np.float32(0.02), np.uint8(0)

# operator, inputs behind the data, attributes, what stands before the data
CASES: list[tuple[str, list[Any], dict[str, Any], list[Any]]] = [
    ("QLinearAdd", [*_POINTS, _X[::-1].copy(), _SCALE, _ZERO, *_RESULT], {}, []),
    ("QLinearMul", [*_POINTS, _X[::-1].copy(), _SCALE, _ZERO, *_RESULT], {}, []),
    ("QLinearSigmoid", [*_POINTS, np.float32(1 / 256), np.uint8(0)], {}, []),
    ("QLinearLeakyRelu", [*_POINTS, *_RESULT], {"alpha": 0.25}, []),
    ("QLinearGlobalAveragePool", [*_POINTS, *_RESULT], {"channels_last": 0}, []),
    (
        "QLinearAveragePool",
        [*_POINTS, *_RESULT],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        [],
    ),
    ("QLinearConcat", [*_POINTS, _X[:1].copy(), _SCALE, _ZERO], {"axis": 0}, list(_RESULT)),
]


def model_of(op: str, rest: list[Any], attrs: dict[str, Any], before: list[Any]) -> ModelProto:
    tensors = [
        numpy_helper.from_array(np.asarray(array), f"c{n}")
        for n, array in enumerate((*before, *rest))
    ]
    names = [tensor.name for tensor in tensors]
    inputs = [*names[: len(before)], "x", *names[len(before) :]]
    node = helper.make_node(op, inputs, ["y"], domain="com.microsoft", **attrs)
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, list(_X.shape))
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, None)
    graph = helper.make_graph([node], "one", [x], [y], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize(("op", "rest", "attrs", "before"), CASES, ids=[c[0] for c in CASES])
def test_results(op: str, rest: list[Any], attrs: dict[str, Any], before: list[Any]) -> None:
    model = model_of(op, rest, attrs, before)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": _X})
    graph = import_model(model)
    found = interpret(graph, {"x": _X})[graph.outputs[0].name]
    assert np.max(np.abs(found.astype(int) - wanted.astype(int))) <= 1
