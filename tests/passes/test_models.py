"""All passes on real networks: what must be fused is fused, and the numbers stay the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_runs import assert_same, random_feeds, symbol_sizes
from onnx import numpy_helper
from onnx_export import to_model

from planish.graph.graph import Graph
from planish.graph.layer import Layer
from planish.graph.verify import verify
from planish.importer import import_model
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.passes.merge_siblings import merge_siblings
from planish.passes.rewrite import PassRun
from planish.passes.table import INTEGER_PASSES, PASSES

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "models"
SMALL = ("kwt1_mfcc", "lenet_mnist", "resnet20_cifar10", "squeezenet1.1", "ultraface_rfb320")


def light(name: str) -> onnx.ModelProto:
    """A light model of the onnx package, its weights random instead of all alike."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            data = rng.uniform(0.5, 1.5, shapes[node.input[0]]).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(data, node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def shared(name: str) -> Path:
    """A network of the shared folder."""
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def optimised(model: Path | onnx.ModelProto) -> tuple[Graph, list[Layer]]:
    """A model's graph after all passes, and its layers."""
    graph = import_model(model)
    verify(graph)
    run = PassRun(graph)
    for work in PASSES:
        run.run(work)
    verify(graph)
    layers = fuse_layers(graph, native_reason, lambda kind, node: True)
    return graph, merge_siblings(graph, layers)


def run_onnxruntime(model: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_numbers(name: str) -> None:
    graph, _ = optimised(shared(name))
    feeds = random_feeds(graph)
    expected = run_onnxruntime(shared(name).read_bytes(), feeds)
    found = run_onnxruntime(to_model(graph, symbol_sizes(graph)).SerializeToString(), feeds)
    assert_same(found, expected, 1e-4)


def test_keyword_transformer() -> None:
    graph, layers = optimised(shared("kwt1_mfcc"))
    found = Counter(node.op for node in graph.nodes)
    assert found["planish::ScaledAttention"] == 12
    assert found["LayerNormalization"] == 24
    assert found["Gelu"] == 12
    assert not set(found) & {"Softmax", "Sqrt", "Tanh", "ReduceMean", "Shape"}
    assert sum(len(layer.siblings) == 3 for layer in layers) == 12  # q, k and v


def test_residual_network() -> None:
    _, layers = optimised(shared("resnet20_cifar10"))
    assert Counter(layer.kind for layer in layers)["conv"] == 19
    assert not any(node.op in ("Mul", "BatchNormalization") for la in layers for node in la.nodes)


def test_inception_v1() -> None:
    _, layers = optimised(light("inception_v1"))
    merged = [layer for layer in layers if layer.siblings]
    assert len(merged) == 9
    for layer in merged:
        weights = [part.anchor.input(1) for part in layer.siblings]
        kernels = [w.shape[2:] for w in weights if w is not None]
        assert kernels == [(1, 1)] * len(layer.siblings) == [(1, 1)] * 3
        assert all([n.op for n in part.nodes] == ["Conv", "Relu"] for part in layer.siblings)


def test_inception_v2() -> None:
    _, layers = optimised(light("inception_v2"))
    convs = [part for la in layers if la.kind == "conv" for part in la.siblings or (la,)]
    assert len(convs) == 69
    assert all([node.op for node in part.nodes] == ["Conv", "Relu"] for part in convs)
    # Conv, batch norm, a scale and a shift with their constants' reshapes, Relu.
    assert {len(part.origin) for part in convs} == {5}


def test_residual_branches_are_siblings() -> None:
    _, layers = optimised(light("resnet50"))
    merged = [layer for layer in layers if layer.siblings]
    assert [len(layer.siblings) for layer in merged] == [2]
    sums = [layer.kind for layer in layers for node in layer.nodes if node.op == "Sum"]
    assert sums == ["conv"] * 16


@pytest.mark.parametrize("name", SMALL)
def test_passes_to_integers_find_nothing_in_floats(name: str) -> None:
    graph = import_model(shared(name))
    run = PassRun(graph)
    for work in PASSES:
        run.run(work)
    assert [run.run(work) for work in INTEGER_PASSES] == [0] * len(INTEGER_PASSES)
