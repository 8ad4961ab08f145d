"""Drop nodes that give back what they got.

    x ─ Identity | Dropout | Cast(same type) | Mul(1) | Add(0) | Reshape(same shape)
      | Transpose(identity) | Pad(0) | Slice(all) | Concat(one) | Expand(same) ─ y      becomes   x ─ y
    x ─ Transpose(p) ─ Transpose(q)          becomes        x ─ Transpose(p∘q)
    x ─ Reshape(a) ─ Reshape(b)              becomes        x ─ Reshape(b)
    x ─ Relu ─ Relu                          becomes        x ─ Relu

Not handled: ×1 and +0 that broadcast x to a larger shape or change its type; a no-op between a graph
input and a graph output (the output must be written).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from planish.graph.graph import Graph, Node, Patch, Value, constant
from planish.passes.rewrite import Pass

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def find(graph: Graph) -> Iterator[Patch]:
    """Nodes that do nothing, and pairs of which one would do."""
    for node in list(graph.nodes):
        if not node.outputs or not node.inputs or node.outputs[0] is None:
            continue
        source = _passes_on(node)
        if source is not None and _may_vanish(graph, node, source):
            yield Patch(
                f"{node.name}: {node.op} changes nothing",
                remove=(node,),
                replace=((node.output, source),),
            )
            continue
        patch = _pair(graph, node)
        if patch is not None:
            yield patch


def _may_vanish(graph: Graph, node: Node, source: Value) -> bool:
    if any(v is not None and (graph.users(v) or graph.is_output(v)) for v in node.outputs[1:]):
        return False
    if not graph.is_output(node.output):
        return True
    # A graph output keeps its name, so its new maker must be a node that makes no other output.
    return source.producer is not None and not graph.is_output(source)


def _passes_on(node: Node) -> Value | None:
    """The input that a node gives back unchanged; None if it does anything."""
    rule = _RULES.get(node.op)
    source = node.inputs[0] if rule is None else rule(node)
    if rule is None or source is None:
        return None
    return source if source.type == node.output.type else None


def _first(node: Node) -> Value | None:
    return node.inputs[0]


def _same_shape(node: Node) -> Value | None:
    source = node.inputs[0]
    if source is None or source.type.shape is None or node.output.type.shape is None:
        return None
    return source if source.shape == node.output.shape else None


def _transpose(node: Node) -> Value | None:
    source = node.inputs[0]
    perm = node.attrs.get("perm")
    return source if perm is not None and tuple(perm) == tuple(range(len(perm))) else None


def _neutral(number: float, either: bool) -> Callable[[Node], Value | None]:
    """A binary operator with a constant that is its neutral element throughout."""

    def rule(node: Node) -> Value | None:
        if len(node.inputs) != 2:
            return None
        left, right = node.inputs
        for value, other in ((left, right), (right, left))[: 2 if either else 1]:
            if other is not None and other.data is not None and other.data.size:
                if bool(np.all(np.asarray(other.data) == number)) and not (
                    number == 0 and np.any(np.signbit(np.asarray(other.data, dtype=np.float64)))
                ):
                    return value
        return None

    return rule


def _pad(node: Node) -> Value | None:
    pads = node.input(1)
    return (
        node.inputs[0]
        if pads is not None and pads.data is not None and not np.any(pads.data)
        else None
    )


def _slice(node: Node) -> Value | None:
    """A slice of everything: steps of 1 and the shape kept."""
    steps = node.input(4)
    if steps is not None and (steps.data is None or np.any(np.asarray(steps.data) != 1)):
        return None
    return _same_shape(node)


def _single(node: Node) -> Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _pair(graph: Graph, node: Node) -> Patch | None:
    """Two nodes of one kind in a row, where one would do."""
    source = node.inputs[0]
    before = source.producer if source is not None else None
    if before is None or before.inputs[0] is None:
        return None
    if node.op == "Transpose" and before.op == "Transpose":
        rank = len(node.output.type.shape or ())
        first = tuple(before.attrs.get("perm") or reversed(range(rank)))
        second = tuple(node.attrs.get("perm") or reversed(range(rank)))
        attrs = {"perm": tuple(first[axis] for axis in second)}
        return _joined(graph, before, node, "Transpose", [before.inputs[0]], attrs)
    if node.op in _RESHAPES and before.op in _RESHAPES and node.output.type.shape is not None:
        shape = node.output.shape
        if graph.only_user(before.output) is None or sum(not isinstance(d, int) for d in shape) > 1:
            return None
        if any(d == 0 for d in shape):
            return None
        target = np.array([d if isinstance(d, int) else -1 for d in shape], dtype=np.int64)
        value = constant(graph.fresh(f"{node.name}.shape"), target)
        return _joined(graph, before, node, "Reshape", [before.inputs[0], value], {})
    if node.op in ("Relu", "Abs", "Floor", "Ceil", "Round") and before.op == node.op:
        return Patch(
            f"{node.name}: a second {node.op}",
            remove=(node,),
            replace=((node.output, before.output),),
        )
    return None


def _joined(
    graph: Graph,
    before: Node,
    node: Node,
    op: str,
    inputs: list[Value | None],
    attrs: dict[str, object],
) -> Patch:
    out = Value(graph.fresh(node.output.name), node.output.type)
    made = Node(op, inputs, [out], attrs, name=node.name, origin=(*before.origin, *node.origin))
    return Patch(
        f"{before.name} and {node.name} joined",
        remove=(node,),
        add=(made,),
        replace=((node.output, out),),
    )


_RULES: dict[str, Callable[[Node], Value | None]] = {
    "Identity": _first,
    "Dropout": _first,
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
}

PASS = Pass("remove_noops", "no-ops removed", find)
