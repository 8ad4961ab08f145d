"""Fold per-channel scales and shifts around a contraction into its weights and bias.

    Conv(W, b) ─ Mul(s) ─ Add(t)        becomes        Conv(W·s, b·s + t)
    Mul(s) ─ Add(t) ─ Conv(W, b)        becomes        Conv(W·s, b + W∗t)

Batch normalisation arrives here as Mul and Add (see expand_operators), Scale layers likewise; Sub
and Div by a constant count as Add and Mul. In front, the scale goes to the input channels, and the
shift adds to the bias what the weights make of it.

Not handled: a contraction whose result somebody else reads, and a scale in front that somebody else
reads; scales that vary over pixels; a shift in front of a padded convolution (the padding is not
shifted); a matrix product has no bias here, so only scales fold into it; products with a vector;
scales that make weights too large for a number, or leave nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.passes.match import first_input, known_rank, make, origins
from planish.passes.rewrite import Pass

_SCALES = ("Mul", "Div")
_SHIFTS = ("Add", "Sub")
_CONTRACTIONS = ("Conv", "ConvTranspose", "MatMul")


def find(graph: Graph) -> Iterator[Patch]:
    """Contractions with a constant scale or shift behind or in front of them."""
    for listed in graph.nodes:
        node: Node | None = listed
        while node is not None and graph.holds(node) and _has_constant_weights(node):
            patch = _fold_behind(graph, node) or _fold_before(graph, node)
            if patch is None:
                break
            yield patch
            node = patch.add[0]


def _has_constant_weights(node: Node) -> bool:
    if node.op not in _CONTRACTIONS or not known_rank(*node.inputs, *node.outputs):
        return False
    w, b = node.input(1), node.input(2)
    if w is None or not w.is_const or not w.dtype.is_float or len(w.shape) < 2:
        return False
    return b is None or b.is_const


def _parameters(node: Node) -> tuple[np.ndarray, np.ndarray | None]:
    w, b = node.inputs[1], node.input(2)
    assert w is not None
    return np.asarray(w.data), None if b is None else np.asarray(b.data, dtype=np.float64)


# ---- behind ---------------------------------------------------------------------------------


def _fold_behind(graph: Graph, node: Node) -> Patch | None:
    user = graph.only_user(node.output)
    if user is None or not known_rank(*user.inputs, user.output):
        return None
    factor = _constant_factor(user, node.output, _output_axis(node), _channels(node))
    if factor is None or user.output.shape != node.output.shape:
        return None
    weights, bias = _parameters(node)
    if user.op in _SCALES:
        weights = _scaled(node, weights, factor)
        bias = None if bias is None else bias * factor
    elif node.op == "MatMul":
        return None
    else:
        bias = factor if bias is None else bias + factor
    made = _rebuilt(graph, node, first_input(node), weights, bias, user.output, [node, user])
    if made is None:
        return None
    note = f"{user.name} ({user.op}) folded into {node.name}"
    return Patch(note, (user,), (made,), ((user.output, made.output),))


def _constant_factor(node: Node, value: Value, axis: int, channels: int) -> np.ndarray | None:
    """What a node multiplies a value by, or adds to it: one float64 a channel, or one for all."""
    if node.op not in (*_SCALES, *_SHIFTS) or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    other = right if left is value else left
    if other is None or other.data is None or left is right:
        return None
    if node.op in ("Sub", "Div") and left is not value:
        return None
    data, rank = np.asarray(other.data, dtype=np.float64), len(value.shape)
    if data.ndim > rank:
        return None
    if data.size > 1:
        shape = (1,) * (rank - data.ndim) + data.shape
        if shape[axis] != channels or data.size != channels:
            return None
    with np.errstate(all="ignore"):
        data = 1.0 / data if node.op == "Div" else -data if node.op == "Sub" else data
    return data.reshape(-1) if np.all(np.isfinite(data)) else None


def _output_axis(node: Node) -> int:
    """The axis of the output's channels, counted so that it indexes a shape."""
    return -1 if node.op == "MatMul" else 1


def _channels(node: Node) -> int:
    """Output channels."""
    w = node.inputs[1]
    assert w is not None and w.data is not None
    if node.op == "ConvTranspose":
        return int(w.data.shape[1]) * int(node.attrs.get("group", 1))
    return int(w.data.shape[0] if node.op == "Conv" else w.data.shape[-1])


def _scaled(node: Node, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights with each output channel scaled, in float64."""
    wide = weights.astype(np.float64)
    if node.op == "Conv":
        return np.asarray(wide * scale.reshape((-1,) + (1,) * (weights.ndim - 1)))
    if node.op == "MatMul":
        return np.asarray(wide * scale)
    group = int(node.attrs.get("group", 1))
    full = np.broadcast_to(scale, (weights.shape[1] * group,)).reshape(group, 1, -1)
    parts = wide.reshape((group, weights.shape[0] // group, *weights.shape[1:]))
    parts = parts * full.reshape((group, 1, weights.shape[1]) + (1,) * (weights.ndim - 2))
    return np.asarray(parts.reshape(weights.shape))


# ---- in front -------------------------------------------------------------------------------


def _fold_before(graph: Graph, node: Node) -> Patch | None:
    x = first_input(node)
    before = x.producer
    if before is None or node.op == "ConvTranspose" or graph.only_user(x) is not node:
        return None
    source = next((v for v in before.inputs if v is not None and not v.is_const), None)
    if source is None or not known_rank(source) or source.type != x.type:
        return None
    axis, channels = (1, x.shape[1]) if node.op == "Conv" else (-1, x.shape[-1])
    if not isinstance(channels, int):
        return None
    factor = _constant_factor(before, source, axis, channels)
    if factor is None:
        return None
    weights, bias = _parameters(node)
    if before.op in _SCALES:
        weights = _scaled_inputs(node, weights, factor)
    elif node.op == "MatMul" or any(node.attrs.get("pads") or (0,)) or _pads_itself(node):
        return None
    else:
        shift = _shifted(node, weights, factor)
        bias = shift if bias is None else bias + shift
    made = _rebuilt(graph, node, source, weights, bias, node.output, [before, node])
    if made is None:
        return None
    note = f"{before.name} ({before.op}) folded into {node.name} behind it"
    return Patch(note, (node,), (made,), ((node.output, made.output),))


def _pads_itself(node: Node) -> bool:
    return node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _per_input(node: Node, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One value an input channel, in the shape of the weights: a convolution's groups differ."""
    if node.op == "MatMul":
        return np.asarray(np.broadcast_to(values, (weights.shape[-2],))[:, None])
    group = int(node.attrs.get("group", 1))
    per_group = np.broadcast_to(values, (weights.shape[1] * group,)).reshape(group, -1)
    rows = np.repeat(per_group, weights.shape[0] // group, axis=0)
    return np.asarray(rows.reshape(rows.shape + (1,) * (weights.ndim - 2)))


def _scaled_inputs(node: Node, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray(weights.astype(np.float64) * _per_input(node, weights, scale))


def _shifted(node: Node, weights: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What a shift of the input adds to each output channel."""
    moved = weights.astype(np.float64) * _per_input(node, weights, shift)
    return np.asarray(moved.sum(axis=tuple(range(1, weights.ndim))))


# ---- the result -----------------------------------------------------------------------------


def _rebuilt(
    graph: Graph,
    node: Node,
    source: Value,
    weights: np.ndarray,
    bias: np.ndarray | None,
    like: Value,
    sources: list[Node],
) -> Node | None:
    """The contraction with other parameters, rounded once; None if they are no numbers then."""
    w, b = node.inputs[1], node.input(2)
    assert w is not None
    anything = np.any(weights)
    with np.errstate(over="ignore", under="ignore"):
        weights = weights.astype(w.dtype.numpy)
        full = None if bias is None else np.broadcast_to(bias, (_channels(node),))
        full = None if full is None else full.astype(w.dtype.numpy)
    arrays = [a for a in (weights, full) if a is not None]
    if not all(np.all(np.isfinite(a.astype(np.float32))) for a in arrays):
        return None
    if anything and not np.any(weights.astype(np.float32)):
        return None
    inputs: list[Value | None] = [source, constant(graph.fresh(w.name), weights)]
    if full is not None:
        name = f"{node.name}.bias" if b is None else b.name
        inputs.append(constant(graph.fresh(name), full))
    made = make(graph, node.op, inputs, like, node.attrs, sources=[node], name=node.name)
    made.origin = origins(*sources)
    made.output.type = TensorType(w.dtype, node.output.shape)
    return made


PASS = Pass("fold_scales", "batch norms and scales folded", find)
