"""Gathers of neighbouring elements, as slices: a slice is a view and costs nothing.

    x ─ Gather(3, axis=1)              becomes   x ─ Slice(3:4, axis=1) ─ Squeeze(1)
    x ─ Gather([2, 4, 6], axis=0)      becomes   x ─ Slice(2:7:2, axis=0)

Not handled: indices that are not evenly spaced, or go backwards; axes whose size is not a number;
lists of sizes (see fold_sizes).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from planish.graph.graph import Graph, Node, Patch, TensorType, Value
from planish.ops.slicing import Cut
from planish.passes.match import indices, known_rank, origins
from planish.passes.rewrite import Pass
from planish.passes.simplify_concats import make_slice


def find(graph: Graph) -> Iterator[Patch]:
    """Gathers with constant, evenly spaced indices."""
    for node in graph.nodes:
        if node.op == "Gather" and graph.holds(node) and known_rank(*node.inputs):
            patch = _as_slice(graph, node)
            if patch is not None:
                yield patch


def _as_slice(graph: Graph, node: Node) -> Patch | None:
    source, where = node.inputs[0], node.inputs[1]
    if source is None or source.is_const or where is None or where.data is None:
        return None
    if source.dims is not None:
        return None
    axis = int(node.attrs.get("axis", 0)) % len(source.shape)
    cut = _even(np.asarray(where.data), source, axis)
    if cut is None:
        return None
    kept = Value(
        graph.fresh(f"{node.name}.slice"),
        TensorType(source.dtype, (*source.shape[:axis], cut.count, *source.shape[axis + 1 :])),
    )
    made = make_slice(graph, source, {axis: cut}, kept, [node])
    if made is None:
        return None
    added = [made]
    if not where.shape:
        gone = indices(graph, f"{node.name}.axes", [axis])
        out = Value(graph.fresh(node.output.name), node.output.type)
        added.append(
            Node("Squeeze", [made.output, gone], [out], name=node.name, origin=origins(node))
        )
    note = f"{node.name}: neighbours, so a slice"
    return Patch(note, (node,), tuple(added), ((node.output, added[-1].output),))


def _even(where: np.ndarray, source: Value, axis: int) -> Cut | None:
    if where.ndim > 1 or not where.size:
        return None
    size = source.shape[axis]
    if not isinstance(size, int) or where.max() >= size or where.min() < -size:
        return None
    numbers = [int(n) % size for n in where.reshape(-1)]
    steps = {b - a for a, b in pairwise(numbers)} or {1}
    step = steps.pop()
    return None if steps or step < 1 else Cut(numbers[0], step, len(numbers))


PASS = Pass("slice_gathers", "no-ops removed", find)
