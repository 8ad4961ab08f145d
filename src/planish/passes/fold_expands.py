"""Broadcasting left to those who read: an Expand in front of a pointwise node does nothing new.

    v ─ Expand ─┐                              v ─┐
    x ──────────┴ Add         becomes          x ─┴ Add
    ConstantOfShape(N, 4; 1.0) ─┐
    x ──────────────────────────┴ Mul          becomes          x ─ Mul(1.0)

Not handled: an Expand that alone gives the result its shape.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.base.errors import ModelError
from planish.graph.graph import Graph, Node, Patch, Value, constant
from planish.graph.infer import arg_of, args_of, is_pointwise, op_of
from planish.passes.match import first_input, known_rank, make, maker
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Pointwise nodes with an expanded operand."""
    for node in graph.nodes:
        if not graph.holds(node) or len(node.inputs) < 2:
            continue
        wide = [n for n, v in enumerate(node.inputs) if maker(v, "Expand", "ConstantOfShape")]
        if not wide or not known_rank(*node.inputs, *node.outputs) or not is_pointwise(node):
            continue
        patch = next((p for n in wide if (p := _narrow(graph, node, n)) is not None), None)
        if patch is not None:
            yield patch


def _narrow(graph: Graph, node: Node, position: int) -> Patch | None:
    value = node.inputs[position]
    before = maker(value)
    assert value is not None and before is not None
    if before.op == "Expand":
        source = first_input(before)
    else:
        filler = np.asarray(before.attrs.get("value", np.zeros(1, np.float32)))
        source = constant(graph.fresh(value.name), filler.reshape(()))
    op = op_of(node)
    assert op is not None
    args = args_of(node)
    args[position] = arg_of(source)
    try:
        (result,) = op.infer(args, node.attrs)
    except ModelError:
        return None
    if result.shape != node.output.shape or result.facts:
        return None
    inputs: list[Value | None] = [*node.inputs]
    inputs[position] = source
    made = make(graph, node.op, inputs, node.output, node.attrs, sources=[before, node])
    note = f"{node.name} reads what {before.name} widens"
    return Patch(note, (node,), (made,), ((node.output, made.output),))


PASS = Pass("fold_expands", "constants folded", find)
