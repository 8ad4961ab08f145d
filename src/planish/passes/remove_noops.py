"""Drop nodes that give back what they got.

    x ─ Identity | Dropout | Cast(same type) | Mul(1) | Add(0) | Reshape(same shape)
      | Transpose(identity) | Pad(0) | Slice(all) | Concat(one) | Expand(same) | Clip()
      | Where(true, x, _) ─ y                                           becomes   x ─ y
    x ─ Dropout ─ graph output, where x is a graph input                becomes   x ─ Identity ─ y

Adding 0 turns -0 into 0; that difference is not kept.

Not handled: ×1 and +0 that broadcast x to a larger shape or change its type; Dropout whose mask is
read; an Identity between a graph input and a graph output, or between two graph outputs (the output
must be written).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from planish.graph.graph import Graph, Node, Patch, Value
from planish.passes.match import make, scalar
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Nodes that do nothing."""
    for node in graph.nodes:
        if not graph.holds(node) or not node.outputs or node.outputs[0] is None:
            continue
        source = _passes_on(node)
        if source is None or source.type != node.output.type:
            continue
        if any(v is not None and (graph.users(v) or graph.is_output(v)) for v in node.outputs[1:]):
            continue
        note = f"{node.name}: {node.op} changes nothing"
        if not graph.is_output(node.output) or _may_be_output(graph, source):
            yield Patch(note, (node,), (), ((node.output, source),))
        elif node.op != "Identity":
            copy = make(graph, "Identity", [source], node.output, sources=[node])
            yield Patch(f"{note}, but it writes a graph output", (node,), (copy,),
                        ((node.output, copy.output),))  # fmt: skip


def _may_be_output(graph: Graph, source: Value) -> bool:
    return source.producer is not None and not graph.is_output(source)


def _passes_on(node: Node) -> Value | None:
    """The input that a node gives back unchanged; None if it does anything."""
    rule = _RULES.get(node.op)
    return None if rule is None or not node.inputs else rule(node)


def _first(node: Node) -> Value | None:
    return node.inputs[0]


def _dropout(node: Node) -> Value | None:
    training = node.input(2)
    return node.inputs[0] if training is None or scalar(training) == 0 else None


def _same_shape(node: Node) -> Value | None:
    source = node.inputs[0]
    if source is None or source.type.shape is None or node.output.type.shape is None:
        return None
    return source if source.shape == node.output.shape else None


def _transpose(node: Node) -> Value | None:
    source = node.inputs[0]
    if source is None or source.type.shape is None:
        return None
    axes = tuple(range(len(source.shape)))
    perm = tuple(node.attrs.get("perm") or reversed(axes))
    kept = [axis for axis in perm if source.shape[axis] != 1]
    moves_only_ones = kept == sorted(kept) and source.shape == node.output.shape
    return source if perm == axes or moves_only_ones else None


def _neutral(number: float, either: bool) -> Callable[[Node], Value | None]:
    """A binary operator with a constant that is its neutral element throughout."""

    def rule(node: Node) -> Value | None:
        if len(node.inputs) != 2:
            return None
        left, right = node.inputs
        for value, other in ((left, right), (right, left))[: 2 if either else 1]:
            if value is None or other is None or other.data is None or not other.data.size:
                continue
            if bool(np.all(np.asarray(other.data) == number)):
                return value
        return None

    return rule


def _pad(node: Node) -> Value | None:
    pads = node.input(1)
    return node.inputs[0] if pads is not None and _zeros(pads) else None


def _zeros(value: Value) -> bool:
    return value.data is not None and not np.any(value.data)


def _slice(node: Node) -> Value | None:
    """A slice of everything: steps of 1 and the shape kept."""
    steps = node.input(4)
    if steps is not None and (steps.data is None or np.any(np.asarray(steps.data) != 1)):
        return None
    return _same_shape(node)


def _single(node: Node) -> Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _split(node: Node) -> Value | None:
    return node.inputs[0] if len(node.outputs) == 1 else None


def _clip(node: Node) -> Value | None:
    low, high = node.input(1), node.input(2)
    open_below = low is None or scalar(low) == -np.inf
    open_above = high is None or scalar(high) == np.inf
    return node.inputs[0] if open_below and open_above else None


def _where(node: Node) -> Value | None:
    condition = node.inputs[0]
    if condition is None or condition.data is None or not condition.data.size:
        return None
    if np.all(condition.data):
        return node.inputs[1]
    return None if np.any(condition.data) else node.inputs[2]


_RULES: dict[str, Callable[[Node], Value | None]] = {
    "Identity": _first,
    "Dropout": _dropout,
    "Cast": _first,
    "CastLike": _first,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
    "Mul": _neutral(1, either=True),
    "Div": _neutral(1, either=False),
    "Add": _neutral(0, either=True),
    "Sub": _neutral(0, either=False),
    "Pow": _neutral(1, either=False),
    "And": _neutral(1, either=True),
    "Or": _neutral(0, either=True),
    "Clip": _clip,
    "Where": _where,
}

PASS = Pass("remove_noops", "no-ops removed", find)
