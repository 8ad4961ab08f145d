"""Runs the command as a user would: in a process of its own, without a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LIMIT_S = 180


def planish(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run `planish` with arguments."""
    command = [sys.executable, "-c", "from planish.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, env={**os.environ, **(env or {})}
    )


def small_model(path: Path, *, batch: int | str = "N", host: bool = False) -> Path:
    """Conv + Relu twice over one input, joined, a Gemm behind; with `host` an operator that only
    the host runs."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.1, name)

    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["ca"], name="conv_a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["ca"], ["ra"], name="relu_a"),
        helper.make_node("Conv", ["x", "wb"], ["cb"], name="conv_b"),
        helper.make_node("Relu", ["cb"], ["rb"], name="relu_b"),
        helper.make_node("Concat", ["ra", "rb"], ["joined"], name="join", axis=1),
        helper.make_node("Identity", ["joined"], ["same"], name="identity"),
        helper.make_node("GlobalAveragePool", ["same"], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "wg"], ["scores"], name="classify"),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])]
    if host:
        nodes.append(helper.make_node("Unique", ["scores"], ["unique"], name="unique"))
        outputs.append(helper.make_tensor_value_info("unique", TensorProto.FLOAT, ["K"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        outputs,
        [weight("wa", 8, 3, 3, 3), weight("wb", 8, 3, 1, 1), weight("wg", 16, 5)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
