"""Softmax recognised from its primitive spellings.

    e = Exp(x - ReduceMax(x)), e / ReduceSum(e)        becomes   Softmax(x)
    e = Exp(x), e / ReduceSum(e)                       becomes   Softmax(x)
    Softmax(x) ─ Log                                   becomes   LogSoftmax(x)

Not handled: sums over more than one axis; products with the inverse of the sum.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.graph.graph import Graph, Node, Patch, Value
from planish.passes.match import between, first_input, ints, known_rank, make, maker
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Divisions by sums of exponentials, and logarithms of softmaxes."""
    for node in graph.nodes:
        if node.op not in ("Div", "Log") or not graph.holds(node):
            continue
        if known_rank(*node.inputs, *node.outputs):
            patch = _softmax(graph, node) if node.op == "Div" else _log_softmax(graph, node)
            if patch is not None:
                yield patch


def _softmax(graph: Graph, node: Node) -> Patch | None:
    exp, total = maker(node.inputs[0], "Exp"), maker(node.inputs[1], "ReduceSum")
    if exp is None or total is None or first_input(total) is not exp.output:
        return None
    axis = _only_axis(total)
    x = first_input(exp)
    if axis is None or x.type != node.output.type:
        return None
    shifted = maker(x, "Sub")
    top = maker(shifted.inputs[1], "ReduceMax") if shifted is not None else None
    if shifted is not None and top is not None and _only_axis(top) == axis:
        inner = first_input(shifted)
        x = inner if first_input(top) is inner and inner.type == x.type else x
    made = make(graph, "Softmax", [x], node.output, {"axis": axis}, sources=between(node, {x}))
    note = f"{node.name} and what leads to it is Softmax of {x.name}"
    return Patch(note, (node,), (made,), ((node.output, made.output),))


def _only_axis(node: Node) -> int | None:
    """The one axis of a reduction that keeps it."""
    axes = ints(node.input(1))
    x: Value = first_input(node)
    if axes is None or len(axes) != 1 or x.type.shape is None:
        return None
    return axes[0] % len(x.shape) if int(node.attrs.get("keepdims", 1)) else None


def _log_softmax(graph: Graph, node: Node) -> Patch | None:
    before = maker(node.inputs[0], "Softmax")
    if before is None or graph.only_user(before.output) is not node:
        return None
    attrs = {"axis": int(before.attrs.get("axis", -1))}
    made = make(graph, "LogSoftmax", before.inputs, node.output, attrs, sources=[before, node])
    note = f"{before.name} and {node.name} are LogSoftmax"
    return Patch(note, (node,), (made,), ((node.output, made.output),))


PASS = Pass("fuse_softmax", "norms, activations and attention recognised", find)
