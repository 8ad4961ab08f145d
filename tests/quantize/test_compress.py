"""Weight-only INT8: whole numbers in memory, floats in registers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish

RANDOM = np.random.default_rng(11)


def network(*matrices: np.ndarray) -> onnx.ModelProto:
    """Products of one input with each matrix, added up with a bias and a Relu behind each."""
    rows, outputs = matrices[0].shape
    nodes = []
    for n in range(len(matrices)):
        nodes.append(helper.make_node("MatMul", ["x", f"w{n}"], [f"p{n}"], name=f"product{n}"))
        nodes.append(helper.make_node("Add", [f"p{n}", "b"], [f"s{n}"]))
        nodes.append(helper.make_node("Relu", [f"s{n}"], [f"y{n}"]))
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, rows])],
        [
            helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, [3, outputs])
            for n in range(len(matrices))
        ],
        [
            *(numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(matrices)),
            numpy_helper.from_array(RANDOM.standard_normal(outputs).astype(np.float32), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def matrix(rows: int, columns: int) -> np.ndarray:
    return RANDOM.standard_normal((rows, columns)).astype(np.float32)


def rounded(weights: np.ndarray) -> np.ndarray:
    scale = (np.abs(weights).max(axis=0) / np.float32(127)).astype(np.float32)
    return (np.rint(weights / scale) * scale).astype(np.float32)


@pytest.mark.parametrize("isa", ["", "avx2", "generic"])
@pytest.mark.parametrize("count", [1, 3])
def test_products_with_rounded_weights(isa: str, count: int) -> None:
    """Alone, and merged with siblings."""
    matrices = [matrix(70, 75) for _ in range(count)]
    x = matrix(3, 70)
    model = network(*matrices)
    plan = planish.build(model, precision="int8-weights", level=0, threads=2, isa=isa)
    bias = numpy_helper.to_array(model.graph.initializer[-1])
    found = planish.Engine(plan).run({"x": x})
    for n, weights in enumerate(matrices):
        expected = np.maximum(x @ rounded(weights) + bias, 0)
        assert np.abs(found[f"y{n}"] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert sum(w.nbytes for w in plan.weights) < 0.35 * sum(w.nbytes for w in matrices)
    assert all("plain" not in step.kernel for step in plan.steps)


def test_small_matrices_stay() -> None:
    weights = matrix(20, 30)
    x = matrix(3, 20)
    model = network(weights)
    found = planish.Engine(planish.build(model, precision="int8-weights", level=0)).run({"x": x})
    bias = numpy_helper.to_array(model.graph.initializer[-1])
    assert np.allclose(found["y0"], np.maximum(x @ weights + bias, 0), atol=1e-5)


def test_a_column_of_zeros() -> None:
    weights = matrix(70, 75)
    weights[:, 7] = 0
    model = network(weights)
    x = matrix(3, 70)
    found = planish.Engine(planish.build(model, precision="int8-weights", level=0)).run({"x": x})
    bias = numpy_helper.to_array(model.graph.initializer[-1])
    assert np.array_equal(found["y0"][:, 7], np.maximum(np.full(3, bias[7]), 0))
