"""FP16 as storage of weights: which ones, and what the plan makes of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish
from planish.graph.infer import infer_types
from planish.importer import import_model
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.quantize.halve import halve_weights

RANDOM = np.random.default_rng(5)


def network(weights: np.ndarray, group: int = 1) -> onnx.ModelProto:
    """Conv, Relu, global mean, Gemm."""
    channels = weights.shape[0]
    dense = RANDOM.standard_normal((channels, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], group=group, name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"], name="dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(
                "x", TensorProto.FLOAT, [1, weights.shape[1] * group, 9, 9]
            )
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(dense, "m")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def weights(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def halved(model: onnx.ModelProto) -> dict[str, str]:
    graph = import_model(model)
    infer_types(graph)
    layers = fuse_layers(graph, native_reason, lambda kind, node: True)
    return {node.name: why for node, why in halve_weights(graph, layers)}


def test_weights_of_contractions_are_halved() -> None:
    assert halved(network(weights(20, 8, 3, 3))) == {"conv": "", "dense": ""}


@pytest.mark.parametrize(
    ("made", "group", "why"),
    [
        (weights(8, 1, 3, 3), 8, "depthwise weights are small"),
        (weights(8, 4, 3, 3) * 1e5, 1, "beyond f16"),
        (weights(8, 4, 3, 3) * 1e-8, 1, "too small for f16"),
        (np.full((8, 4, 3, 3), np.nan, np.float32), 1, "beyond f16"),
    ],
)
def test_weights_that_stay(made: np.ndarray, group: int, why: str) -> None:
    assert why in halved(network(made, group))["conv"]


@pytest.mark.parametrize("isa", ["", "avx2", "generic"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_plan_computes_with_the_rounded_weights(isa: str, level: int) -> None:
    made = weights(40, 24, 3, 3)
    model = network(made)
    x = weights(1, 24, 9, 9)
    plan = planish.build(model, precision="fp16", level=level, threads=2, isa=isa)
    rounded = network(made.astype(np.float16).astype(np.float32))
    for number in range(2):
        old = model.graph.initializer[number]
        half = numpy_helper.to_array(old).astype(np.float16).astype(np.float32)
        rounded.graph.initializer[number].CopyFrom(numpy_helper.from_array(half, old.name))
    expected = planish.Engine(planish.build(rounded, level=0, threads=2, isa=isa)).run({"x": x})
    found = planish.Engine(plan).run({"x": x})
    scale = np.abs(expected["y"]).max()
    assert np.abs(found["y"] - expected["y"]).max() <= 1e-5 * scale
    assert plan.provenance["options"]["precision"] == "fp16"


def test_the_weights_take_half_the_bytes() -> None:
    model = network(weights(64, 64, 3, 3))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2  # no Winograd weights
    sizes = [
        sum(w.nbytes for w in planish.build(model, precision=p, level=0, threads=1).weights)
        for p in ("fp16", "fp32")
    ]
    assert sizes[0] < 0.55 * sizes[1]
