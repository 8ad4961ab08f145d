"""Files that onnxruntime's static quantiser makes: native layers in integers, and its answers.

The networks are those of the shared folder, quantised into a temporary folder in the formats that
are met in the wild: QDQ and QOperator, signed and unsigned, per tensor and per channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import planish
from planish.graph.graph import Node
from planish.pipeline import optimise, read_graph
from planish.runtime.engine import Engine

ort = pytest.importorskip("onnxruntime")
quantization = pytest.importorskip("onnxruntime.quantization")

SHARED = Path(__file__).resolve().parents[3] / "shared" / "models"
_PICTURES = 24

# name, format, activations, weights, per channel; contractions that the network has
CASES = [
    ("lenet_mnist", "QDQ", "QUInt8", "QInt8", True, 4),
    ("lenet_mnist", "QOperator", "QUInt8", "QInt8", False, 4),
    ("resnet20_cifar10", "QDQ", "QUInt8", "QInt8", True, 20),
    ("resnet20_cifar10", "QDQ", "QInt8", "QInt8", True, 20),
    ("resnet20_cifar10", "QDQ", "QUInt8", "QUInt8", False, 20),
    ("resnet20_cifar10", "QOperator", "QUInt8", "QInt8", True, 20),
    ("squeezenet1.1", "QDQ", "QUInt8", "QInt8", True, 26),
    ("squeezenet1.1", "QOperator", "QInt8", "QInt8", True, 26),
    ("mobilenetv2_1.0_224", "QDQ", "QUInt8", "QInt8", True, 53),
]


def feeds_of(path: Path, count: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Smooth random inputs."""
    rng = np.random.default_rng(seed)
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    for _ in range(count):
        made = {}
        for value in graph.input:
            dims = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            if value.name not in constants:
                made[value.name] = rng.standard_normal(dims).astype(np.float32)
        yield made


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, path: Path) -> None:
        self._feeds = feeds_of(path, 4, 0)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantised(
    name: str, form: str, data: str, weights: str, per_channel: bool, folder: Path
) -> Path:
    source = SHARED / f"{name}.onnx"
    if not source.exists():
        pytest.skip(f"{source} is not there")
    ready, target = folder / "ready.onnx", folder / "quantised.onnx"
    shape_inference = pytest.importorskip("onnxruntime.quantization.shape_inference")
    shape_inference.quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(ready),
        str(target),
        Reader(ready),
        quant_format=quantization.QuantFormat[form],
        activation_type=quantization.QuantType[data],
        weight_type=quantization.QuantType[weights],
        per_channel=per_channel,
    )
    return target


@pytest.mark.parametrize(
    ("name", "form", "data", "weights", "per_channel", "contractions"),
    CASES,
    ids=["-".join(map(str, case[:5])) for case in CASES],
)
def test_answers_are_those_of_onnxruntime(
    name: str,
    form: str,
    data: str,
    weights: str,
    per_channel: bool,
    contractions: int,
    tmp_path: Path,
) -> None:
    path = quantised(name, form, data, weights, per_channel, tmp_path)
    layers = optimise(read_graph(path)).layers
    kinds = Counter(layer.anchor.op for layer in layers)
    products = kinds["ConvInteger"] + kinds["MatMulInteger"]
    assert products >= contractions and not kinds["Conv"] + kinds["MatMul"], kinds
    assert not any(layer.kind == "host" for layer in layers)

    engine = Engine(planish.build(path, level=0))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    same = 0
    for feeds in feeds_of(path, _PICTURES, 7):
        (found,) = engine.run(feeds).values()
        (wanted,) = session.run(None, feeds)
        quantum = np.min(np.diff(np.unique(wanted)))
        assert np.max(np.abs(found - wanted)) <= 4 * quantum
        same += int(np.argmax(found) == np.argmax(wanted))
    assert same >= 0.95 * _PICTURES


def test_a_residual_block_is_two_layers(tmp_path: Path) -> None:
    path = quantised("resnet20_cifar10", "QDQ", "QUInt8", "QInt8", True, tmp_path)
    layers = optimise(read_graph(path)).layers
    sums = [layer for layer in layers if layer.kind == "conv" and _adds_a_skip(layer.nodes)]
    assert len(sums) == 9
    loops = Counter(layer.anchor.op for layer in layers if layer.kind == "loop")
    assert "DequantizeLinear" not in loops and "Add" not in loops, loops


def _adds_a_skip(nodes: list[Node]) -> bool:
    ops = [node.op for node in nodes]
    return ops.count("DequantizeLinear") >= 1 and ops.count("Add") == 2
