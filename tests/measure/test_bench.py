"""Benchmarks of an engine: what is counted, and that failures come out."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planish import build
from planish.base.errors import PlanishError
from planish.measure import bench_engine
from planish.runtime import Engine


@pytest.fixture(scope="module")
def engine():
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, 16])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    with Engine(build(model, level=0, threads=2)) as made:
        yield made


def test_report(engine: Engine) -> None:
    x = np.ones((6, 16), np.float32)
    report = bench_engine(engine, {"x": x}, seconds=0.05, warmup=0.01, streams=2)
    assert report.batch == 6 and report.streams == 2 and report.stream_threads == 1
    assert report.per_second == pytest.approx(6 * report.throughput)
    assert report.latency.runs >= 10 and report.first_ms > 0
    assert set(report.memory) >= {"weights", "code", "arena", "peak_rss"}


def test_a_failing_stream_raises_and_leaves_no_thread(engine: Engine) -> None:
    import threading

    before = threading.active_count()
    with pytest.raises(PlanishError):
        bench_engine(engine, {"x": np.ones((5, 16), np.float32)}, seconds=0.05)
    assert threading.active_count() == before
