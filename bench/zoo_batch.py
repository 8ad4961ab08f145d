"""Gives a model another batch size, and proves with onnxruntime that the result is that model.

The proof: with batch n, every row of every output equals what the original says of that row alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

PROOF_TOLERANCE = 1e-4  # relative to the output's largest magnitude
PROOF_BATCH = 3

Feeds = dict[str, np.ndarray]


class BatchError(ValueError):
    """The graph does not allow another batch size."""


def rebatch(model: onnx.ModelProto, batch: int | str) -> list[str]:
    """Sets the leading dim of every input to `batch` (a number or a symbol), in place.

    Target shapes [1, ...] of a Reshape whose data has a leading dim of 1 become [0, ...] ("as the
    input has it"); without that a static export keeps batch 1 for ever. Nothing else is touched.

    Returns:
        The names of the Reshape nodes that were changed.
    """
    released = _release_reshapes(model) if batch != 1 else []
    graph = model.graph
    initialized = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in initialized or not dims:
            continue
        dims[0].Clear()
        if isinstance(batch, str):
            dims[0].dim_param = batch
        else:
            dims[0].dim_value = batch
    graph.ClearField("value_info")  # shapes of the old batch
    for value in graph.output:
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].CopyFrom(graph.input[0].type.tensor_type.shape.dim[0])
    return released


def _release_reshapes(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    shapes = _shapes(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    released = []
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        data, target = node.input[0], numpy_helper.to_array(constants[node.input[1]])
        if data in constants or shapes.get(data, (0,))[0] != 1 or target[0] != 1:
            continue
        name = f"{node.output[0]}_batched_shape"
        graph.initializer.append(numpy_helper.from_array(np.array([0, *target[1:]], "i8"), name))
        node.input[1] = name
        released.append(node.name or node.output[0])
    return released


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    return {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in values
        if v.type.tensor_type.shape.dim
    }


def prove(original: Path, rebatched: Path, feeds: Feeds) -> None:
    """Holds `rebatched` against `original`, row by row of `feeds`.

    Raises:
        BatchError: Where onnxruntime refuses the batch, or a row's result differs.
    """
    whole = _run(rebatched, feeds)
    rows = len(next(iter(feeds.values())))
    for row in range(rows):
        alone = _run(original, {name: value[row : row + 1] for name, value in feeds.items()})
        for name, expected in alone.items():
            found = whole[name]
            if found.shape != (rows, *expected.shape[1:]):
                raise BatchError(f"output {name!r}: {found.shape} for a batch of {rows}")
            error = np.abs(found[row] - expected[0]).max() / max(np.abs(expected).max(), 1e-30)
            if error > PROOF_TOLERANCE:
                raise BatchError(f"output {name!r}, row {row}: off by {error:.1e} (relative)")


def _run(path: Path, feeds: Feeds) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refused batch is an answer here, not news
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise BatchError(str(error).splitlines()[0]) from error
