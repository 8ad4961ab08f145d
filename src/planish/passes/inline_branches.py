"""An If whose condition is known, replaced by the branch that is taken.

    If(true, then: x ─ Squeeze ─ y, else: x ─ z)        becomes        x ─ Squeeze ─ y

Not handled: Loop and Scan, whatever is known of their counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.graph.graph import Graph, Node, Patch, TensorType, Value
from planish.passes.match import scalar
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """If nodes with a constant condition."""
    for node in graph.nodes:
        if node.op != "If" or not graph.holds(node) or scalar(node.input(0)) is None:
            continue
        name = "then_branch" if scalar(node.input(0)) else "else_branch"
        body = node.attrs.get(name)
        if isinstance(body, Graph) and len(body.outputs) == len(node.outputs):
            yield _inlined(graph, node, body, name)


def _inlined(graph: Graph, node: Node, body: Graph, name: str) -> Patch:
    added = list(body.nodes)
    inner = {value for n in added for value in n.outputs if value is not None}
    for value in inner:
        value.name = graph.fresh(value.name)
    pairs: list[tuple[Value, Value]] = []
    for old, new in zip(node.outputs, body.outputs, strict=True):
        if old is None:
            continue
        if graph.is_output(old) and (new not in inner or any(new is v for _, v in pairs)):
            copy = Value(graph.fresh(old.name), TensorType(new.dtype, new.type.shape))
            added.append(Node("Identity", [new], [copy], name=node.name, origin=node.origin))
            new = copy
        pairs.append((old, new))
    note = (
        f"{node.name}: the condition is known, the {name.removesuffix('_branch')} branch is taken"
    )
    return Patch(note, (node,), tuple(added), tuple(pairs))


PASS = Pass("inline_branches", "constants folded", find)
