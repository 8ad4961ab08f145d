"""FP16 as storage: constant weights of convolutions and products are kept in half precision.

    Conv(x, w f32[64, 64, 3, 3])     becomes     Conv(x, w f32[64, 64, 3, 3] stored as f16)

Half the bytes in the plan and in memory; they are widened as they are read, and all arithmetic
stays in f32. A value that is stored narrower than its type says so by the dtype of its contents.

Not handled: depthwise weights (small, and read by kernels that keep them in registers), weights
that other nodes read too, and activations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Value
from planish.graph.layer import Layer

_ANCHORS = ("conv", "matmul")
_ERROR = 2.0**-10  # of the largest weight: f16 keeps 11 bits, if they are in its range


def halve_weights(graph: Graph, layers: Sequence[Layer]) -> list[tuple[Node, str]]:
    """Store weights as f16 where that costs no more than f16's own rounding.

    Args:
        graph: The graph after all passes; contents of its weights are replaced.
        layers: Its layers.

    Returns:
        For each contraction with constant f32 weights: its node, and why they stay f32, or "".
    """
    found = []
    for layer in (part for whole in layers for part in (whole.siblings or (whole,))):
        node = layer.anchor
        weights = node.input(1) if layer.kind in _ANCHORS else None
        if weights is None or weights.data is None or weights.dtype is not DType.F32:
            continue
        why = _refusal(graph, node, weights)
        if not why:
            weights.data = weights.data.astype(np.float16)
        found.append((node, why))
    return found


def _refusal(graph: Graph, node: Node, weights: Value) -> str:
    assert weights.data is not None
    if any(user is not node for user in graph.users(weights)):
        return "the weights are read by several nodes"
    group = int(node.attrs.get("group", 1)) if node.op == "Conv" else 1
    if group > 1 and weights.data.shape[1] == 1:
        return "depthwise weights are small"
    largest = float(np.abs(weights.data).max(initial=0.0))
    if not largest <= float(np.finfo(np.float16).max):
        return f"weights up to {largest:.3g} are beyond f16"
    error = np.abs(weights.data.astype(np.float16).astype(np.float32) - weights.data).max(initial=0)
    if error > _ERROR * largest:
        return f"weights of at most {largest:.3g} are too small for f16"
    return ""
