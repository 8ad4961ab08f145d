"""Reshapes and transposes moved behind what computes, so that computations follow each other.

    Conv ─ Transpose ─ Add(c) ─ Relu         becomes   Conv ─ Add(c') ─ Relu ─ Transpose
    x ─ T ─┐                                           x ─┐
    z ─ T ─┴ Add                             becomes   z ─┴ Add ─ T
    x[N,12,197,64] ─ Transpose(2,0,1,3) ─ Reshape[197*N,768] ─ MatMul(w)
                                             becomes   x ─ Transpose(0,2,1,3) ─ Reshape[N,197,768]
                                                         ─ MatMul(w) ─ Transpose(1,0,2) ─ Reshape

T is any chain of views that is the same for all operands. An epilogue can only absorb what follows
directly; and views that have sunk to each other cancel (join_views): the transposes around each
convolution of a channels-last export vanish so, and those around the layers of a transformer.

Products with constant weights, and normalisations of the last axis, let the order of all other axes
through: the rows of a product may come in any order, and come in memory order afterwards.

Not handled: constants that vary along an axis which the views cut or merge; operands that only some
views lead to; views that move data and that others read too (the data would be moved twice).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from planish.base.shapes import Dim
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import is_pointwise
from planish.passes.match import first_input, known_rank
from planish.passes.rewrite import Pass
from planish.passes.view_map import VIEWS, ViewMap, chain_above, emit, map_of, steps_of

# Pointwise in form, but with an axis of their own or with nothing to compute.
_NOT_SUNK = VIEWS | {"Expand", "Identity", "QuantizeLinear", "DequantizeLinear", "Concat"}
_LAST_AXIS = frozenset(("LayerNormalization", "RMSNormalization"))


def find(graph: Graph) -> Iterator[Patch]:
    """Nodes that views can be moved behind."""
    for node in graph.nodes:
        if not graph.holds(node) or node.op in _NOT_SUNK or not node.inputs:
            continue
        if not any(v is not None and v.producer is not None and v.producer.op in VIEWS
                   for v in node.inputs):  # fmt: skip
            continue
        if not known_rank(*node.inputs, *node.outputs):
            continue
        patch = _rows(graph, node) if _keeps_rows(node) else None
        if patch is None and is_pointwise(node):
            patch = _pointwise(graph, node)
        if patch is not None:
            yield patch


def movable_chain(graph: Graph, value: Value) -> list[Node]:
    """The views above a value that may be moved: read by nobody else, or one free transpose."""
    nodes = chain_above(value)
    if not nodes:
        return []
    if graph.only_user(value) is None:
        return nodes[-1:] if nodes[-1].op == "Transpose" else []
    start = len(nodes) - 1
    while start > 0 and graph.only_user(nodes[start - 1].output) is not None:
        start -= 1
    return nodes[start:]


# ---- pointwise ------------------------------------------------------------------------------


def _pointwise(graph: Graph, node: Node) -> Patch | None:
    data = list(dict.fromkeys(v for v in node.inputs if v is not None and not v.is_const))
    if not data or any(v.shape != node.output.shape for v in data):
        return None
    chains = [movable_chain(graph, value) for value in data]
    if not all(chains):
        return None
    for count in range(max(map(len, chains)), 0, -1):
        nodes = [chain[-count:] for chain in chains]
        maps = [map_of(views, first_input(views[0]).shape) for views in nodes]
        first = maps[0]
        if first is None or any(m != first for m in maps) or not steps_of(first):
            continue
        bases = {v: first_input(views[0]) for v, views in zip(data, nodes, strict=True)}
        patch = _moved(graph, node, first, bases, list(chain.from_iterable(nodes)))
        if patch is not None:
            return patch
    return None


def _moved(
    graph: Graph, node: Node, view: ViewMap, bases: dict[Value, Value], views: list[Node]
) -> Patch | None:
    """The node on the sources of its operands, with the views behind it."""
    inputs: list[Value | None] = []
    for value in node.inputs:
        if value is None or value in bases:
            inputs.append(None if value is None else bases[value])
            continue
        moved = _before_views(graph, view, value)
        if moved is None:
            return None
        inputs.append(moved)
    out = Value(graph.fresh(node.output.name), TensorType(node.output.dtype, view.source))
    made = Node(node.op, inputs, [out], node.attrs, name=node.name, origin=node.origin)
    after = emit(graph, view, out, node.output.name, views)
    note = f"{' and '.join(n.name for n in dict.fromkeys(views))} moved behind {node.name}"
    return Patch(note, (node,), (made, *after), ((node.output, after[-1].output),))


def _before_views(graph: Graph, view: ViewMap, value: Value) -> Value | None:
    """A constant operand as it broadcasts against the source; None where the views cut it."""
    data = np.asarray(value.data)
    if data.size == 1:
        return value if data.ndim == 0 else constant(graph.fresh(value.name), data.reshape(()))
    rank = len(view.axes)
    shape = (1,) * (rank - data.ndim) + data.shape
    varying = [axis for axis in range(rank) if shape[axis] != 1]
    places = [view.axis_from(axis) for axis in varying]
    if any(place is None for place in places):
        return None
    new = [1] * len(view.source)
    for axis, place in zip(varying, places, strict=True):
        new[place or 0] = shape[axis]
    order = sorted(range(len(varying)), key=lambda n: places[n] or 0)
    packed = data.reshape([shape[axis] for axis in varying]).transpose(order)
    while len(new) > 1 and new[0] == 1:
        new.pop(0)
    return constant(graph.fresh(value.name), np.ascontiguousarray(packed.reshape(new)))


# ---- products and norms of the last axis ----------------------------------------------------


def _keeps_rows(node: Node) -> bool:
    """Whether a node treats each row along its first operand's last axis alike."""
    rank = len(first_input(node).shape)
    others = [v for v in node.inputs[1:] if v is not None]
    if rank < 2 or any(v is not None for v in node.outputs[1:]):
        return False
    if node.op in ("MatMul", "MatMulInteger"):
        return len(others) == 1 and others[0].is_const and len(others[0].shape) == 2
    if node.op not in _LAST_AXIS or any(len(v.shape) > 1 for v in others):
        return False
    return int(node.attrs.get("axis", -1)) in (-1, rank - 1)


def _rows(graph: Graph, node: Node) -> Patch | None:
    nodes = movable_chain(graph, first_input(node))
    for start in range(len(nodes)):
        view = map_of(nodes[start:], first_input(nodes[start]).shape)
        inner = None if view is None else _rows_in_order(view)
        if view is not None and inner is not None:
            same = inner.axes == view.axes
            return None if same else _reordered(graph, node, view, inner, nodes[start:])
    return None


def _rows_in_order(view: ViewMap) -> ViewMap | None:
    """The map to the same last axis with all other axes in source order; None if there are none."""
    last = view.axes[-1]
    if not last:
        return None
    if view.source_axes[-1] == last:
        return ViewMap(view.source, view.atoms, view.source_axes)
    rows: list[tuple[int, ...]] = []
    met = False  # the axis has begun: axes of 1 behind it are dropped
    for axis in view.source_axes:
        rest = tuple(atom for atom in axis if atom not in last)
        rows += [rest] if rest or not (axis or met) else []
        met = met or rest != axis
    return ViewMap(view.source, view.atoms, (*rows, last)) if rows else None


def _reordered(graph: Graph, node: Node, view: ViewMap, inner: ViewMap, views: list[Node]) -> Patch:
    before = emit(graph, inner, first_input(views[0]), first_input(node).name, views)
    source = before[-1].output if before else first_input(views[0])
    width = node.output.shape[-1]
    rows = inner.shape[:-1]
    out = Value(graph.fresh(node.output.name), TensorType(node.output.dtype, (*rows, width)))
    attrs = {**node.attrs, "axis": -1} if node.op in _LAST_AXIS else node.attrs
    inputs = [source, *node.inputs[1:]]
    made = Node(node.op, inputs, [out], attrs, name=node.name, origin=node.origin)
    after = emit(graph, _outer(view, inner, width), out, node.output.name, views)
    result = after[-1].output if after else out
    note = f"{' and '.join(n.name for n in views)} moved behind {node.name}"
    return Patch(note, (node,), (*before, made, *after), ((node.output, result),))


def _outer(view: ViewMap, inner: ViewMap, width: Dim) -> ViewMap:
    """The map from rows in source order to rows as they were, over a last axis of a new width."""
    rows = list(chain.from_iterable(inner.axes[:-1]))
    number = {atom: n for n, atom in enumerate(rows)}
    axes = tuple(tuple(number[a] for a in axis) for axis in view.axes[:-1])
    atoms = tuple(view.atoms[a] for a in rows)
    last = () if width == 1 else (len(atoms),)
    source = (*inner.shape[:-1], width)
    return ViewMap(source, atoms if width == 1 else (*atoms, width), (*axes, last))


PASS = Pass("sink_views", "views moved out of the way", find)
