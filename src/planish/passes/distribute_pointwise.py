"""Pointwise nodes behind a concat, moved into its branches.

    a ─┐                                        a ─ Relu ─┐
    b ─┴ Concat ─ Relu          becomes         b ─ Relu ─┴ Concat

A branch absorbs the node into its kernel's epilogue and writes straight to its place in the concat;
behind the concat, the node is a pass over memory of its own. A constant that varies along the
concat's axis is cut into pieces.

Not handled: concats, and branches, that others read too (a dense block's): both results are needed
then; branches that end in a view or another concat; nodes with several operands that are not
constant.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import is_pointwise
from planish.passes.match import first_input, known_rank, origins
from planish.passes.rewrite import Pass
from planish.passes.simplify_concats import concat_axis
from planish.passes.view_map import VIEWS


def find(graph: Graph) -> Iterator[Patch]:
    """Pointwise nodes that alone read a concat."""
    for node in graph.nodes:
        if not graph.holds(node) or not known_rank(*node.inputs, *node.outputs):
            continue
        data = [v for v in node.inputs if v is not None and not v.is_const]
        before = data[0].producer if len(data) == 1 else None
        if before is None or before.op != "Concat" or graph.only_user(before.output) is not node:
            continue
        if node.op == "Identity" or "axis" in node.attrs or not is_pointwise(node):
            continue
        if not known_rank(*before.inputs) or node.output.shape != before.output.shape:
            continue
        if all(_may_absorb(graph, value, before) for value in before.inputs):
            patch = _distributed(graph, before, node)
            if patch is not None:
                yield patch


def _may_absorb(graph: Graph, value: Value | None, concat: Node) -> bool:
    maker = None if value is None else value.producer
    if value is None or maker is None or graph.only_user(value) is not concat:
        return False
    if maker.op == "Expand":
        return first_input(maker).is_const
    return maker.op not in VIEWS and maker.op not in ("Concat", "Slice", "Split")


def _distributed(graph: Graph, concat: Node, node: Node) -> Patch | None:
    axis = concat_axis(concat)
    parts: list[Value | None] = []
    added: list[Node] = []
    start = 0
    for value in concat.inputs:
        assert value is not None
        size = value.shape[axis]
        if not isinstance(size, int) or value.is_const:
            return None
        inputs: list[Value | None] = []
        for operand in node.inputs:
            if operand is None or operand is concat.output:
                inputs.append(value if operand is not None else None)
            else:
                inputs.append(_piece(graph, operand, axis, start, size, concat))
        out = Value(graph.fresh(value.name), TensorType(node.output.dtype, value.shape))
        added.append(Node(node.op, inputs, [out], node.attrs, name=node.name, origin=node.origin))
        parts.append(out)
        start += size
    whole = Value(graph.fresh(node.output.name), node.output.type)
    attrs = {"axis": axis}
    joined = Node("Concat", parts, [whole], attrs, name=concat.name, origin=origins(concat))
    note = f"{node.name} moved into the branches of {concat.name}"
    return Patch(note, (node,), (*added, joined), ((node.output, whole),))


def _piece(graph: Graph, operand: Value, axis: int, start: int, size: int, concat: Node) -> Value:
    """What of a constant operand belongs to one input of the concat."""
    data = np.asarray(operand.data)
    place = axis - (len(first_input(concat).shape) - data.ndim)
    if place < 0 or data.shape[place] == 1:
        return operand
    cut = np.take(data, range(start, start + size), axis=place)
    return constant(graph.fresh(operand.name), np.ascontiguousarray(cut))


PASS = Pass("distribute_pointwise", "views moved out of the way", find)
