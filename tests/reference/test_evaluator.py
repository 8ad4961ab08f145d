"""What the reference implementation is asked, and what it is mended with."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planish.reference.evaluator import has_reference, make_evaluator, newest_opset


@pytest.mark.parametrize(
    ("domain", "op", "known"),
    [
        ("ai.onnx.ml", "TreeEnsembleClassifier", True),
        ("ai.onnx.ml", "Scaler", True),
        ("ai.onnx.preview.training", "Adam", True),
        ("planish", "ScaledAttention", True),
        ("com.example", "Scaler", False),
        ("ai.onnx.ml", "NoSuchOperator", False),
    ],
)
def test_what_it_can_run(domain: str, op: str, known: bool) -> None:
    assert has_reference(domain, op) is known


def test_opsets_of_domains() -> None:
    assert newest_opset("") == newest_opset("ai.onnx") == onnx.defs.onnx_opset_version()
    assert newest_opset("com.example") == 1


def test_attention_by_its_definition() -> None:
    names = ["q", "k", "v"]
    node = helper.make_node("ScaledAttention", names, ["y"], domain="planish", scale=0.5)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in (*names, "y")]
    graph = helper.make_graph([node], "g", infos[:3], infos[3:])
    opsets = [helper.make_opsetid(d, newest_opset(d)) for d in ("", "planish")]
    model = helper.make_model(graph, opset_imports=opsets)
    q, k, v = (np.random.default_rng(n).standard_normal((2, 3, 4)).astype("f") for n in range(3))
    (found,) = make_evaluator(model).run(None, {"q": q, "k": k, "v": v})
    scores = np.exp(np.einsum("bqd,bkd->bqk", q, k) * 0.5)
    expected = np.einsum("bqk,bkd->bqd", scores / scores.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
