"""Filters that are given at run time, and whose shape only a run tells: the host runs them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import planish
from planish.plan import HostStep

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)


def model(op: str, filter_: list[int | str], channels: int | str = 4, **attrs: object) -> bytes:
    """One convolution of x [2,4,7] by a filter that is an input."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], name="conv", **attrs)],
        "g",
        [info("x", FLOAT, [2, channels, 7]), info("w", FLOAT, filter_)],
        [info("y", FLOAT, None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(made.SerializeToString())


def check(data: bytes, filter_: tuple[int, ...], host: bool) -> None:
    """The plan's result is the reference's, on the host or natively."""
    x = RNG.standard_normal((2, 4, 7)).astype(np.float32)
    w = RNG.standard_normal(filter_).astype(np.float32)
    plan = planish.build(data, level=0, threads=1)
    steps = [step for step in plan.steps if isinstance(step, HostStep)]
    assert bool(steps) is host
    assert all("known at run time only" in step.reason for step in steps)
    with planish.Engine(plan) as engine:
        found = engine.run({"x": x, "w": w})["y"]
    (expected,) = ReferenceEvaluator(onnx.load_from_string(data)).run(None, {"x": x, "w": w})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("shape", [["M", 4, 3], [4, "M", 3], [4, 4, "K"], ["A", "B", "C"]])
def test_open_filters_run_on_the_host(op: str, shape: list[int | str]) -> None:
    settled = shape in (["M", 4, 3], [4, "M", 3]) and (op == "ConvTranspose") == (shape[0] == "M")
    check(model(op, shape), (4, 4, 3), host=not settled)


def test_the_kernel_shape_settles_the_filter() -> None:
    check(model("Conv", [4, 4, "K"], kernel_shape=[3]), (4, 4, 3), host=False)


def test_channels_are_solved_for() -> None:
    check(model("Conv", [4, "G", 3], group=2), (4, 2, 3), host=False)


def test_open_channels_run_on_the_host() -> None:
    check(model("Conv", [4, "A", 3], channels="B"), (4, 4, 3), host=True)
