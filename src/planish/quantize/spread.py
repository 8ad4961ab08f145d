"""Inputs of a network whose channels have ranges of their own, brought to one range.

    x ─ Conv(W, b, pads)     becomes     x ─ Pad(0) ─ Mul(f) ─ Add(−low·f) ─ Conv(W/f, b + ΣW·low)
    x ─ MatMul(W) ─ Add(b)   becomes     x ─ Mul(f) ─ Add(−low·f) ─ MatMul(W/f) ─ Add(b + ΣW·low)

f = 255/(high − low), one a channel, so that each channel has all 256 codes to itself. The function
stays what it was, and what is added runs in the loop that quantises the input anyway. Channels of
pictures that were normalised apart come out as the very bytes that they were, without any error;
features of different units no longer share the step of the largest.

Not handled: inputs that more than one node reads, or that are no f32; grouped convolutions; weights
that are no constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import infer_types
from planish.quantize.apply import add_bias
from planish.quantize.ends import Ends

STEP = "spread_inputs"
LEVELS = 255.0


@dataclass(frozen=True)
class Spread:
    """An input whose channels may be spread.

    Attributes:
        value: The input.
        axis: Of its channels, counted from the front.
        reader: The contraction that reads it.
    """

    value: Value
    axis: int
    reader: Node


def spread_inputs(graph: Graph) -> list[Spread]:
    """The inputs of a graph that can be spread."""
    found = []
    for value in graph.inputs:
        reader = graph.only_user(value)
        if reader is None or value.dtype is not DType.F32 or value.type.shape is None:
            continue
        if reader.inputs[0] is not value or not _has_weights(reader):
            continue
        axis = 1 if reader.op == "Conv" else len(value.shape) - 1
        if axis < len(value.shape) and isinstance(value.shape[axis], int):
            found.append(Spread(value, axis, reader))
    return [one for one in found if one.value.shape[one.axis] != 1]


def apply_spread(graph: Graph, ends: Mapping[str, Ends]) -> None:
    """Spread inputs of a graph in place.

    Args:
        graph: The optimised float graph.
        ends: Input's name -> the ends of its channels; inputs that are not there stay.
    """
    for one in spread_inputs(graph):
        if one.value.name in ends:
            _spread(graph, one, *ends[one.value.name])
    infer_types(graph)


def _spread(graph: Graph, one: Spread, low: np.ndarray, high: np.ndarray) -> None:
    node, rank = one.reader, len(one.value.shape)
    pads = [int(n) for n in node.attrs.get("pads", [])]
    if any(pads):  # padding is 0, which has to be within the range
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    width = np.where(high > low, high - low, LEVELS)
    step = width / LEVELS
    shape = [-1 if n == one.axis else 1 for n in range(rank)]
    factor, offset = (v.astype(np.float32).reshape(shape) for v in (1.0 / step, -low / step))
    name = f"{one.value.name}.spread"
    inputs: list[Value | None] = [one.value]
    steps: list[tuple[str, Value]] = []
    if any(pads):
        half = len(pads) // 2
        full = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
        steps.append(("Pad", constant(graph.fresh(f"{name}.pads"), full)))
    steps.append(("Mul", constant(graph.fresh(f"{name}.factor"), factor)))
    steps.append(("Add", constant(graph.fresh(f"{name}.offset"), offset)))
    made: list[Node] = []
    for number, (op, operand) in enumerate(steps):
        last = number == len(steps) - 1
        kind = TensorType(DType.F32, None if op == "Pad" or any(pads) else one.value.type.shape)
        out = Value(graph.fresh(name if last else f"{name}.{op.lower()}"), kind)
        made.append(Node(op, [*inputs, operand], [out], name=out.name))
        inputs = [out]
    graph.apply(Patch(f"channels of {one.value.name} spread", add=tuple(made)), STEP)
    infer_types(graph, made)
    graph.reread(node, one.value, made[-1].output)
    _rescale_weights(graph, node, step, low)
    if any(pads):
        node.attrs = {**node.attrs, "pads": (0,) * len(pads)}


def _rescale_weights(graph: Graph, node: Node, step: np.ndarray, low: np.ndarray) -> None:
    """Weights for codes in place of numbers, and the bias that makes up for `low`."""
    old = node.inputs[1]
    assert old is not None and old.data is not None
    weights = np.asarray(old.data, np.float64)
    axis = 1 if node.op == "Conv" else 0  # of the input channels
    shape = [-1 if n == axis else 1 for n in range(weights.ndim)]
    scaled = (weights * step.reshape(shape)).astype(old.dtype.numpy)
    rest = tuple(n for n in range(weights.ndim) if n != 1 - axis)
    added = (weights * low.reshape(shape)).sum(axis=rest)
    graph.reread(node, old, constant(graph.fresh(old.name), scaled))
    add_bias(graph, node, added)


def _has_weights(node: Node) -> bool:
    weights = node.input(1)
    if weights is None or weights.data is None or weights.dtype is not DType.F32:
        return False
    bias = node.input(2)
    if node.op == "MatMul":
        return len(weights.shape) == 2
    plain = node.attrs.get("auto_pad", "NOTSET") == "NOTSET" and (bias is None or bias.is_const)
    return node.op == "Conv" and plain and int(node.attrs.get("group", 1)) == 1
