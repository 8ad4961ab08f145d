"""Weight-only INT8: constant matrices of products are kept as bytes, and multiply floats.

    MatMul(x, w)     becomes     MatMul(x, w') ─ Mul(scale[columns]),  w' whole numbers stored as s8

A quarter of the bytes, which is the time of a product of few rows: it only reads its weights. They
are widened as they are read, all arithmetic is f32, and the scales come in the epilogue. Symmetric,
a scale a column, -127 … 127.

Not handled: products whose matrix other nodes read too, or is smaller than `_LEAST` elements.
"""

from __future__ import annotations

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, TensorType, Value

_LEAST = 4096  # elements below which there is nothing to save
_MOST = 127


def compress_weights(graph: Graph) -> int:
    """Store the matrices of products as bytes.

    Args:
        graph: The graph after all passes, before it is grouped into layers.

    Returns:
        How many.
    """
    patches = [patch for node in graph.nodes if (patch := _compressed(graph, node)) is not None]
    for patch in patches:
        graph.apply(patch, "compress_weights")
    return len(patches)


def _compressed(graph: Graph, node: Node) -> Patch | None:
    weights = node.input(1) if node.op == "MatMul" else None
    if weights is None or weights.data is None or weights.dtype is not DType.F32:
        return None
    data = weights.data
    if data.ndim != 2 or data.size < _LEAST or graph.only_user(weights) is not node:
        return None
    if not np.isfinite(data).all():
        return None
    largest = np.abs(data).max(axis=0)
    scale = np.where(largest > 0, largest / np.float32(_MOST), np.float32(1)).astype(np.float32)
    whole = np.clip(np.rint(data / scale), -_MOST, _MOST).astype(np.int8)
    bytes_ = Value(graph.fresh(weights.name), weights.type, whole)
    scales = Value(
        graph.fresh(f"{weights.name}.scale"), TensorType(DType.F32, (data.shape[1],)), scale
    )
    total = Value(graph.fresh(node.output.name), node.output.type)
    made = Value(graph.fresh(node.output.name), node.output.type)
    product = Node(
        "MatMul", [node.input(0), bytes_], [total], node.attrs, name=node.name, origin=node.origin
    )
    scaled = Node("Mul", [total, scales], [made], name=f"{node.name}.scale", origin=node.origin)
    note = f"the weights of {node.name} are kept as bytes"
    return Patch(note, (node,), (product, scaled), ((node.output, made),))
