"""A DequantizeLinear for each of its readers.

    x ─ DQ ─┬ Add                 becomes      x ─┬ DQ ─ Add
            └ Mul                                 └ DQ ─ Mul

Each then becomes part of the layer that reads it, which reads bytes; shared, the floats would have
to be written first.

Not handled: results of the graph; constants (they are folded).
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.graph.graph import Graph, Node, Patch, TensorType, Value
from planish.passes.match import first_input
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Further readers of what is dequantised."""
    for node in graph.nodes:
        if node.op != "DequantizeLinear" or first_input(node).is_const:
            continue
        for user in graph.users(node.output)[1:] if graph.holds(node) else ():
            if graph.holds(user) and user.op != "DequantizeLinear":
                yield _repeated(graph, node, user)


def _repeated(graph: Graph, node: Node, user: Node) -> Patch:
    own = Value(graph.fresh(node.output.name), node.output.type)
    copy = Node(node.op, node.inputs, [own], node.attrs, name=node.name, origin=node.origin)
    inputs = [own if value is node.output else value for value in user.inputs]
    outputs = [
        None if v is None else Value(graph.fresh(v.name), TensorType(v.dtype, v.type.shape))
        for v in user.outputs
    ]
    made = Node(user.op, inputs, outputs, user.attrs, name=user.name, origin=user.origin)
    pairs = tuple((old, new) for old, new in zip(user.outputs, outputs, strict=True) if old and new)
    note = f"{user.name} dequantises by itself what {node.name} gave it"
    return Patch(note, (user,), (copy, made), pairs)


PASS = Pass("repeat_dequants", "quantising moved", find)
