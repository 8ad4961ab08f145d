"""Fills the onnx package's "light" models: real topologies whose weights were taken out.

A light model makes each weight by ConstantOfShape. Here every such node becomes an initializer of
seeded random numbers, so that activations stay in a sane range through the whole network and any
runtime can fold, fuse and time it. Nodes, attributes and names are otherwise left alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

# Opset 9 models whose initializers need not be graph inputs any more: that came with IR 4.
IR_VERSION = 4
LOGIT_SPREAD = 2.0  # standard deviation of the scores that enter the last Softmax

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _he(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    fan_in = int(np.prod(shape[1:]))
    weight = rng.standard_normal((shape[0], fan_in)) * np.sqrt(2.0 / fan_in)
    # What comes out of a ReLU has a large positive mean. A filter whose weights sum to zero does
    # not pass it on, so the output depends on the picture and not on the biases alone.
    return (weight - weight.mean(axis=1, keepdims=True)).reshape(shape)


def _near_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape) * 0.1


def _near_one(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.8, 1.2, shape)


# (consumer, which of its inputs) -> how such a weight is drawn.
ROLES: dict[tuple[str, int], Draw] = {
    ("Conv", 1): _he,
    ("Conv", 2): _near_zero,
    ("Gemm", 1): _he,  # every Gemm of these models has transB = 1: [out, in]
    ("Gemm", 2): _near_zero,
    ("BatchNormalization", 1): _near_one,
    ("BatchNormalization", 2): _near_zero,
    ("BatchNormalization", 3): _near_zero,
    ("BatchNormalization", 4): _near_one,
    ("Mul", 1): _near_one,
    ("Add", 1): _near_zero,
}
# Operators that hand a weight on unchanged but for its shape: the role is their consumer's.
RESHAPING = {"Unsqueeze", "Reshape"}


def light_files() -> dict[str, Path]:
    """The light models of the installed onnx package, by name."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return {path.stem: path for path in sorted(folder.glob("light_*.onnx"))}


def fill(path: Path, seed: int = 0) -> onnx.ModelProto:
    """The light model at `path` with random weights in place of its ConstantOfShape nodes.

    Trained batch-norm statistics that the file kept are redrawn too: they belong to weights that
    are no longer there.
    """
    model = onnx.load(path)
    graph = model.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made = {
        node.output[0]: tuple(int(d) for d in shapes[node.input[0]])
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    kept = {
        t.name: tuple(t.dims)
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and _draw_for(graph, t.name) is not None
    }
    shape_inputs = {node.input[0] for node in graph.node if node.op_type == "ConstantOfShape"}
    weights = [_weight(graph, name, shape, seed) for name, shape in (made | kept).items()]

    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    others = [t for t in graph.initializer if t.name not in shape_inputs and t.name not in kept]
    initialized = {t.name for t in weights} | {t.name for t in others} | shape_inputs
    inputs = [value for value in graph.input if value.name not in initialized]
    for field, content in (("node", nodes), ("initializer", weights + others), ("input", inputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(content)
    model.ir_version = IR_VERSION
    _spread_logits(model, seed)
    onnx.checker.check_model(model)
    return model


def _draw_for(graph: onnx.GraphProto, name: str) -> Draw | None:
    for node in graph.node:
        for index, consumed in enumerate(node.input):
            if consumed != name:
                continue
            if node.op_type in RESHAPING and index == 0:
                return _draw_for(graph, node.output[0])
            if (node.op_type, index) in ROLES:
                return ROLES[node.op_type, index]
    return None


def _weight(
    graph: onnx.GraphProto, name: str, shape: tuple[int, ...], seed: int
) -> onnx.TensorProto:
    draw = _draw_for(graph, name)
    if draw is None:
        raise ValueError(f"weight {name!r} {shape}: no role known; add its consumer to ROLES")
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return numpy_helper.from_array(draw(rng, shape).astype(np.float32), name)


def _spread_logits(model: onnx.ModelProto, seed: int) -> None:
    """Scales the last Conv or Gemm so that a final Softmax does not saturate.

    Without it a residual network's random scores are hundreds apart, its output is one-hot, and
    comparing outputs would prove nothing.
    """
    import onnxruntime

    graph = model.graph
    last = graph.node[-1]
    if last.op_type != "Softmax":
        return
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.helper.make_empty_tensor_value_info(last.input[0]))
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = graph.input[0]
    shape = [d.dim_value for d in feed.type.tensor_type.shape.dim]
    pixels = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    (scores,) = session.run([last.input[0]], {feed.name: pixels})
    factor = LOGIT_SPREAD / float(scores.std())

    classifier = next(n for n in reversed(graph.node) if n.op_type in ("Conv", "Gemm"))
    sources = {out: node.input[0] for node in graph.node for out in node.output if node.input}
    for name in classifier.input[1:]:
        while name in sources:
            name = sources[name]
        tensor = next(t for t in graph.initializer if t.name == name)
        scaled = (numpy_helper.to_array(tensor) * factor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(scaled, name))
