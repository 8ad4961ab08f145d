"""Counts the multiply-adds of a model's contractions, from shapes that onnx infers.

Convolutions and matrix products only: they are what a core's FMA peak can be held against.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import shape_inference

Shape = tuple[int, ...]


def _product(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _conv(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    return _product(output) * _product(inputs[1][1:])  # weight: [out, in / groups, kernel ...]


def _conv_transpose(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    return _product(inputs[0]) * _product(inputs[1][1:])  # weight: [in, out / groups, kernel ...]


def _gemm(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return _product(output) * inputs[0][0 if transposed else 1]


def _matmul(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    return _product(output) * inputs[0][-1]


COUNTERS: dict[str, Callable[[onnx.NodeProto, list[Shape], Shape], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def count_macs(path: Path, feeds: dict[str, np.ndarray]) -> int:
    """Multiply-adds of one run of the model at `path` on `feeds`.

    Shapes that onnx cannot infer, because the graph computes them, are read off a run.
    """
    model = shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    graph = model.graph
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.name not in shapes and dims and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    contractions = [node for node in graph.node if node.op_type in COUNTERS]
    touched = [name for node in contractions for name in (*node.input[:2], node.output[0])]
    unknown = [name for name in dict.fromkeys(touched) if name not in shapes]
    if unknown:
        shapes |= _observed_shapes(path, feeds, unknown)

    total = 0
    for node in contractions:
        *inputs, output = (shapes[name] for name in [*node.input[:2], node.output[0]])
        total += COUNTERS[node.op_type](node, inputs, output)
    return total


def _observed_shapes(
    path: Path, feeds: dict[str, np.ndarray], names: list[str]
) -> dict[str, Shape]:
    import onnxruntime

    model = onnx.load(path)
    known = {output.name for output in model.graph.output}
    for name in names:
        if name not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(names, feeds)
    return {name: value.shape for name, value in zip(names, values, strict=True)}
