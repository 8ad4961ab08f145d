"""Fold a per-channel scale or shift behind a contraction into its weights and bias.

    Conv(W, b) ─ Mul(s) ─ Add(t)        becomes        Conv(W·s, b·s + t)

Batch normalisation arrives here as Mul and Add (see expand_operators), Scale layers likewise; Sub
and Div by a constant count as Add and Mul.

Not handled: a contraction whose result somebody else reads; scales that vary over pixels; a matrix
product has no bias here, so only scales fold into it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.passes.rewrite import Pass

_SCALES = ("Mul", "Div")
_SHIFTS = ("Add", "Sub")


def find(graph: Graph) -> Iterator[Patch]:
    """Contractions followed by a constant scale or shift."""
    for node in list(graph.nodes):
        if node.op not in ("Conv", "ConvTranspose", "MatMul") or not _constant_weights(node):
            continue
        patch = _fold(graph, node)
        while patch is not None:
            yield patch
            node = patch.add[0]
            patch = _fold(graph, node)


def _constant_weights(node: Node) -> bool:
    w, b = node.input(1), node.input(2)
    return w is not None and w.is_const and w.dtype.is_float and (b is None or b.is_const)


def _fold(graph: Graph, node: Node) -> Patch | None:
    user = graph.only_user(node.output)
    if user is None or user.op not in (*_SCALES, *_SHIFTS) or len(user.inputs) != 2:
        return None
    left, right = user.inputs
    other = right if left is node.output else left
    if other is None or other.data is None or left is right:
        return None
    if user.op in ("Sub", "Div") and left is not node.output:
        return None
    factor = _per_channel(node, other)
    if factor is None or user.output.shape != node.output.shape:
        return None
    w, b = node.inputs[1], node.input(2)
    assert w is not None and w.data is not None
    weights = np.asarray(w.data)
    bias = None if b is None else np.asarray(b.data)
    if user.op in _SCALES:
        scale = 1.0 / factor if user.op == "Div" else factor
        weights = _scaled(node, weights, scale)
        bias = None if bias is None else (bias.astype(np.float64) * scale)
    else:
        if node.op == "MatMul":
            return None
        shift = -factor if user.op == "Sub" else factor
        bias = shift if bias is None else bias.astype(np.float64) + shift
    if not np.all(np.isfinite(weights)) or (bias is not None and not np.all(np.isfinite(bias))):
        return None
    inputs: list[Value | None] = [node.inputs[0], constant(graph.fresh(w.name), weights)]
    if bias is not None:
        name = graph.fresh(f"{node.name}.bias" if b is None else b.name)
        inputs.append(
            constant(name, np.broadcast_to(bias, (_channels(node),)).astype(w.data.dtype))
        )
    out = Value(graph.fresh(user.output.name), TensorType(w.dtype, node.output.shape))
    made = Node(
        node.op, inputs, [out], node.attrs, name=node.name, origin=(*node.origin, *user.origin)
    )
    return Patch(
        f"{user.name} ({user.op}) folded into {node.name}",
        remove=(node, user),
        add=(made,),
        replace=((user.output, out),),
    )


def _channels(node: Node) -> int:
    w = node.inputs[1]
    assert w is not None and w.data is not None
    if node.op == "ConvTranspose":
        return int(w.data.shape[1]) * int(node.attrs.get("group", 1))
    return int(w.data.shape[0] if node.op == "Conv" else w.data.shape[-1])


def _per_channel(node: Node, value: Value) -> np.ndarray | None:
    """A constant as one float64 for each output channel (or one for all); None if it is neither."""
    data = np.asarray(value.data, dtype=np.float64)
    if data.size == 1:
        return data.reshape(1) if data.ndim <= len(node.output.shape) else None
    rank = len(node.output.shape)
    axis = rank - 1 if node.op == "MatMul" else 1
    shape = (1,) * (rank - data.ndim) + data.shape
    if len(shape) != rank or shape[axis] != _channels(node):
        return None
    if any(extent != 1 for n, extent in enumerate(shape) if n != axis):
        return None
    return data.reshape(-1)


def _scaled(node: Node, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights with each output channel scaled, rounded once."""
    wide = weights.astype(np.float64)
    if node.op == "Conv":
        wide = wide * scale.reshape((-1,) + (1,) * (weights.ndim - 1))
    elif node.op == "MatMul":
        wide = wide * scale
    else:
        group = int(node.attrs.get("group", 1))
        full = np.broadcast_to(scale, (weights.shape[1] * group,)).reshape(group, 1, -1)
        parts = wide.reshape((group, weights.shape[0] // group, *weights.shape[1:]))
        parts = parts * full.reshape((group, 1, weights.shape[1]) + (1,) * (weights.ndim - 2))
        wide = parts.reshape(weights.shape)
    return np.asarray(wide.astype(weights.dtype))


PASS = Pass("fold_scales", "batch norms and scales folded", find)
