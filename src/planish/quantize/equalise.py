"""Cross-layer equalisation: channels wide in one layer and narrow in the next are balanced.

    Conv(W₁, b₁) ─ Relu ─ Conv(W₂)           becomes    Conv(W₁/s, b₁/s) ─ Relu ─ Conv(W₂·s)
    Conv(W₁, b₁) ─ Clip(0, 6) ─ Conv(W₂)     becomes    Conv(W₁/s, b₁/s) ─ Relu ─ Min(6/s) ─ Conv(…)

one s > 0 a channel: W₁/s by output channels, W₂·s by input channels. The function stays what it was
up to the rounding of floats, since Relu lets positive factors through; a clip at 6 becomes one at
6/s, channel by channel. With s = √(r₁/r₂), r the largest magnitude of a channel's weights, a
channel has the same range on both sides (Nagel et al., "Data-free quantization through weight
equalization and bias correction", 2019). Pairs overlap in chains, so it is repeated until nothing
moves.

A channel is never enlarged so far that its bias exceeds the layer's largest: the results would take
a wider range than the network had, and lose more than the weights win.

It is for one weight scale a layer, where a depthwise network otherwise loses whole channels. Scales
for each output channel do by themselves what the s of W₁ is for.

Not handled: pairs with anything but Relu, LeakyRelu or a clip from 0 in between; results that
somebody else reads; grouped convolutions other than depthwise ones; matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import infer_types

STEP = "equalise"
_ROUNDS = 40
_MOST = 1e4  # the largest factor, and the inverse of the least
_SETTLED = 1e-3  # the largest change of a factor that still counts as none


@dataclass
class _Weights:
    """A convolution's parameters while they are being scaled, in f64."""

    node: Node
    data: np.ndarray
    bias: np.ndarray | None


@dataclass
class Pair:
    """Two convolutions with at most an activation between them.

    Attributes:
        first: Makes the channels.
        activation: What lies between; None for nothing.
        second: Reads the channels.
        factors: What the first is divided by and the second multiplied with, one a channel.
        least: The factors' lower ends.
    """

    first: Node
    activation: Node | None
    second: Node
    factors: np.ndarray
    least: np.ndarray


def find_pairs(graph: Graph) -> Iterator[Pair]:
    """Convolutions that can be balanced against each other, in the order of the graph."""
    shared = _shared_weights(graph)
    for node in graph.nodes:
        if not _is_plain(node, shared):
            continue
        user = graph.only_user(node.output)
        activation = None
        if user is not None and _lets_through(user):
            activation, user = user, graph.only_user(user.output)
        channels = _weights(node).shape[0]
        if user is None or not _is_plain(user, shared) or user.inputs[0] is None:
            continue
        between = node.output if activation is None else activation.output
        if user.inputs[0] is not between or not _reads_channels(user, channels):
            continue
        yield Pair(node, activation, user, np.ones(channels), _least_factors(node, channels))


def _least_factors(node: Node, channels: int) -> np.ndarray:
    """How far a channel may be enlarged: its bias to the largest of all channels, no further.

    A channel of next to no weights, as training leaves some, is its bias and nothing else; balanced
    by its weights alone it would take the whole range of the layer's results.
    """
    bias = node.input(2)
    if bias is None or not np.any(np.asarray(bias.data)):
        return np.full(channels, 1.0 / _MOST)
    magnitude = np.abs(np.asarray(bias.data, np.float64))
    return np.asarray(np.maximum(magnitude / magnitude.max(), 1.0 / _MOST))


def equalise(graph: Graph) -> list[Pair]:
    """Balance a graph in place.

    Args:
        graph: The optimised float graph.

    Returns:
        The pairs, with their factors.
    """
    pairs = list(find_pairs(graph))
    held: dict[Node, _Weights] = {}
    for node in (n for pair in pairs for n in (pair.first, pair.second)):
        bias = node.input(2)
        wide = None if bias is None else np.asarray(bias.data, np.float64)
        held.setdefault(node, _Weights(node, _weights(node).astype(np.float64), wide))
    for _ in range(_ROUNDS):
        moved = [_balance(pair, held[pair.first], held[pair.second]) for pair in pairs]
        if max(moved, default=0.0) < _SETTLED:
            break
    for weights in held.values():
        _write(graph, weights)
    for pair in pairs:
        _scale_clip(graph, pair)
    infer_types(graph)
    return pairs


def _balance(pair: Pair, first: _Weights, second: _Weights) -> float:
    """Scale both once; the largest change of a factor."""
    made = np.abs(first.data.reshape(first.data.shape[0], -1)).max(axis=1)
    read = _input_ranges(second.data, len(made))
    usable = (made > 0.0) & (read > 0.0)
    step = np.ones(len(made))
    step[usable] = np.sqrt(made[usable] / read[usable])
    step = np.clip(pair.factors * step, pair.least, _MOST) / pair.factors
    first.data = first.data / step.reshape((-1,) + (1,) * (first.data.ndim - 1))
    first.bias = None if first.bias is None else first.bias / step
    second.data = second.data * _by_input(second.data, step)
    pair.factors = pair.factors * step
    return float(np.abs(np.log(step)).max(initial=0.0))


def _input_ranges(weights: np.ndarray, channels: int) -> np.ndarray:
    """The largest magnitude that each input channel meets."""
    magnitude = np.abs(weights)
    if weights.shape[1] == channels:
        return np.asarray(np.moveaxis(magnitude, 1, 0).reshape(channels, -1).max(axis=1))
    return np.asarray(magnitude.reshape(channels, -1).max(axis=1))  # depthwise


def _by_input(weights: np.ndarray, step: np.ndarray) -> np.ndarray:
    """One factor an input channel, in the shape of the weights."""
    rest = (1,) * (weights.ndim - 2)
    if weights.shape[1] == len(step):
        return np.asarray(step.reshape((1, -1, *rest)))
    return np.asarray(np.repeat(step, weights.shape[0] // len(step)).reshape((-1, 1, *rest)))


# ---- which pairs --------------------------------------------------------------------------------


def _weights(node: Node) -> np.ndarray:
    weights = node.inputs[1]
    assert weights is not None
    return np.asarray(weights.data)


def _is_plain(node: Node, shared: set[Value]) -> bool:
    """Whether a node is a convolution whose parameters are its own."""
    if node.op != "Conv" or not all(v is None or v.is_const for v in node.inputs[1:]):
        return False
    if any(v in shared for v in node.inputs[1:] if v is not None):
        return False
    return all(v is not None and v.dtype is DType.F32 for v in node.inputs[:2])


def _shared_weights(graph: Graph) -> set[Value]:
    read = [v for node in graph.nodes for v in node.inputs if v is not None and v.is_const]
    return {value for value in read if len(graph.users(value)) > 1}


def _reads_channels(node: Node, channels: int) -> bool:
    weights, group = _weights(node), int(node.attrs.get("group", 1))
    if group == 1:
        return bool(weights.shape[1] == channels)
    return group == channels and weights.shape[1] == 1


def _lets_through(node: Node) -> bool:
    """Whether an activation commutes with positive factors, its upper end aside."""
    if node.op in ("Relu", "LeakyRelu"):
        return True
    low = node.input(1)
    if node.op != "Clip" or low is None or low.data is None or _high(node) is None:
        return False
    return float(np.asarray(low.data).reshape(-1)[0]) == 0.0


def _high(node: Node) -> float | None:
    """The upper end of a clip: infinity where it has none, None where it is not known."""
    high = node.input(2)
    if high is None:
        return float("inf")
    return None if high.data is None else float(np.asarray(high.data).reshape(-1)[0])


# ---- writing it down ----------------------------------------------------------------------------


def _write(graph: Graph, weights: _Weights) -> None:
    node = weights.node
    for operand, data in ((1, weights.data), (2, weights.bias)):
        old = node.input(operand)
        if old is not None and data is not None:
            new = constant(graph.fresh(old.name), data.astype(old.dtype.numpy))
            graph.reread(node, old, new)


def _scale_clip(graph: Graph, pair: Pair) -> None:
    """Clip(0, high) of scaled channels: Relu and a Min of its own for each channel."""
    clip = pair.activation
    if clip is None or clip.op != "Clip" or np.all(pair.factors == 1.0):
        return
    x, out, high = clip.inputs[0], clip.output, _high(clip)
    assert x is not None and high is not None
    above = Value(graph.fresh(f"{out.name}.relu"), TensorType(out.dtype, out.type.shape))
    below = Value(graph.fresh(out.name), TensorType(out.dtype, out.type.shape))
    shape = (1, -1) + (1,) * (len(out.shape) - 2)
    ends = (high / pair.factors).reshape(shape).astype(out.dtype.numpy)
    nodes = [Node("Relu", [x], [above], name=f"{clip.name}.Relu", origin=clip.origin)]
    if np.isfinite(high):
        bound = constant(graph.fresh(f"{clip.name}.high"), ends)
        nodes.append(Node("Min", [above, bound], [below], name=clip.name, origin=clip.origin))
    note = f"{pair.first.name} and {pair.second.name} balanced; {clip.name} clips each channel"
    made = nodes[-1].output
    graph.apply(Patch(note, (clip,), tuple(nodes), ((out, made),)), STEP)
