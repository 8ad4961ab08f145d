"""Transposes moved behind what works along named axes, by renaming the axes.

    x ─ T ─ ReduceMean(1, 2)           becomes   x ─ ReduceMean(2, 3)
    x ─ T ─┐                                     x ─┐
    z ─ T ─┴ Concat(axis=3)            becomes   z ─┴ Concat(axis=1) ─ T
    x ─ T ─ Pad | Slice | Split | Softmax        likewise
    x ─ T ─┐                                     x ─┐
    s ─ T ─┴ Mul (s broadcast)         becomes   s ─┴ Mul ─ T
    MatMul ─ T ─┐                                MatMul ─┐
              z ─┴ Add                 becomes   z ─ T⁻¹ ─┴ Add ─ T

T are transposes by one permutation. With sink_views and join_views, the transposes of a network
that was exported channels last sink until they meet their inverses. The last line lets a product
take a residual sum into its epilogue: the transpose of z is a view.

Not handled: axes that are computed; pools and resizes, which have their channels first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from planish.base.shapes import Shape
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import is_pointwise
from planish.passes.match import first_input, indices, ints, known_rank, origins
from planish.passes.rewrite import Pass
from planish.passes.sink_views import movable_chain

Perm = tuple[int, ...]
_DEPTH = 16  # pointwise nodes looked through to find a product


def find(graph: Graph) -> Iterator[Patch]:
    """Nodes that transposes can be moved behind."""
    for node in graph.nodes:
        if not graph.holds(node) or not known_rank(*node.inputs, *node.outputs):
            continue
        rule = _RULES.get(node.op) or (_reduce if node.op.startswith("Reduce") else None)
        if rule is not None:
            patch = _one_input(graph, node, rule)
        else:
            patch = _broadcast(graph, node) or _residual(graph, node)
        if patch is not None:
            yield patch


def _perm_above(graph: Graph, value: Value | None) -> Perm | None:
    """The permutation of the transpose that makes a value, where it may be moved."""
    nodes = [] if value is None else movable_chain(graph, value)
    if not nodes or nodes[-1].op != "Transpose":
        return None
    rank = len(nodes[-1].output.shape)
    return tuple(int(a) for a in nodes[-1].attrs.get("perm") or reversed(range(rank)))


def _source(value: Value) -> Value:
    assert value.producer is not None
    return first_input(value.producer)


# ---- one operand ----------------------------------------------------------------------------


class Moved:
    """A node as it is on the source of its transposed operand.

    Attributes:
        inputs: Its operands behind the first.
        attrs: Its attributes.
        perms: For each output the transpose that belongs behind it.
    """

    def __init__(self, inputs: Sequence[Value | None], attrs: dict[str, Any], perms: list[Perm]):
        self.inputs = inputs
        self.attrs = attrs
        self.perms = perms


Rule = Callable[[Graph, Node, Perm], Moved | None]


def _one_input(graph: Graph, node: Node, rule: Rule) -> Patch | None:
    if node.op == "Concat":
        return _concat(graph, node)
    first = node.input(0)
    perm = _perm_above(graph, first)
    moved = None if perm is None else rule(graph, node, perm)
    if first is None or first.producer is None or moved is None:
        return None
    return _patch(graph, node, [_source(first), *moved.inputs], moved, [first.producer])


def _patch(
    graph: Graph, node: Node, inputs: list[Value | None], moved: Moved, views: list[Node]
) -> Patch:
    outputs: list[Value | None] = []
    after: list[Node] = []
    pairs: list[tuple[Value, Value]] = []
    for value, perm in zip(node.outputs, moved.perms, strict=True):
        if value is None:
            outputs.append(None)
            continue
        shape: Shape = tuple(value.shape[perm.index(axis)] for axis in range(len(perm)))
        out = Value(graph.fresh(value.name), TensorType(value.dtype, shape))
        outputs.append(out)
        if perm == tuple(range(len(perm))):
            pairs.append((value, out))
            continue
        turned = Value(graph.fresh(value.name), value.type)
        after.append(
            Node("Transpose", [out], [turned], {"perm": perm}, name=views[0].name,
                 origin=origins(*views))
        )  # fmt: skip
        pairs.append((value, turned))
    made = Node(node.op, inputs, outputs, moved.attrs, name=node.name, origin=node.origin)
    names = " and ".join(dict.fromkeys(view.name for view in views))
    note = f"{names} moved behind {node.name}"
    return Patch(note, (node,), (made, *after), tuple(pairs))


def _axis(graph: Graph, node: Node, perm: Perm) -> Moved | None:
    axis = perm[int(node.attrs.get("axis", -1)) % len(perm)]
    return Moved(node.inputs[1:], {**node.attrs, "axis": axis}, [perm])


def _split(graph: Graph, node: Node, perm: Perm) -> Moved | None:
    axis = perm[int(node.attrs.get("axis", 0)) % len(perm)]
    return Moved(node.inputs[1:], {**node.attrs, "axis": axis}, [perm] * len(node.outputs))


def _reduce(graph: Graph, node: Node, perm: Perm) -> Moved | None:
    axes = tuple(range(len(perm)))
    if node.input(1) is not None or int(node.attrs.get("noop_with_empty_axes", 0)):
        known = ints(node.input(1))
        if not known:
            return None
        axes = tuple(axis % len(perm) for axis in known)
    there = [perm[axis] for axis in axes]
    kept = [perm[axis] for axis in range(len(perm)) if axis not in axes]
    after = perm
    if not int(node.attrs.get("keepdims", 1)):
        order = sorted(kept)
        after = tuple(order.index(axis) for axis in kept)
    places = indices(graph, f"{node.name}.axes", sorted(there))
    return Moved([places], dict(node.attrs), [after])


def _pad(graph: Graph, node: Node, perm: Perm) -> Moved | None:
    pads = node.input(1)
    axes = ints(node.input(3)) if node.input(3) is not None else tuple(range(len(perm)))
    if pads is None or axes is None:
        return None
    places = indices(graph, f"{node.name}.axes", [perm[axis % len(perm)] for axis in axes])
    return Moved([pads, node.input(2), places], dict(node.attrs), [perm])


def _slice(graph: Graph, node: Node, perm: Perm) -> Moved | None:
    starts = node.input(1)
    if starts is None or not starts.shape or not isinstance(starts.shape[0], int):
        return None
    axes = ints(node.input(3)) if node.input(3) is not None else tuple(range(starts.shape[0]))
    if axes is None:
        return None
    places = indices(graph, f"{node.name}.axes", [perm[axis % len(perm)] for axis in axes])
    inputs = [starts, node.input(2), places]
    return Moved([*inputs, *node.inputs[4:5]], dict(node.attrs), [perm])


# ---- several operands -----------------------------------------------------------------------


def _concat(graph: Graph, node: Node) -> Patch | None:
    values = [v for v in node.inputs if v is not None]
    perms = {_perm_above(graph, v) for v in values if not v.is_const}
    perm = perms.pop() if len(perms) == 1 else None
    if perm is None:
        return None
    axis = perm[int(node.attrs["axis"]) % len(perm)]
    inputs: list[Value | None] = [_turned_back(graph, v, perm) for v in values]
    views = [v.producer for v in values if v.producer is not None]
    return _patch(graph, node, inputs, Moved((), {"axis": axis}, [perm]), views)


def _broadcast(graph: Graph, node: Node) -> Patch | None:
    """A pointwise node over operands that are transposed alike and broadcast."""
    data = [v for v in node.inputs if v is not None and not v.is_const]
    if len(data) < 2 or len(node.outputs) != 1 or "axis" in node.attrs:
        return None
    perms = {_perm_above(graph, v) for v in data}
    perm = perms.pop() if len(perms) == 1 else None
    if perm is None or len(perm) != len(node.output.shape) or not is_pointwise(node):
        return None
    inputs = [None if v is None else _turned_back(graph, v, perm) for v in node.inputs]
    views = [v.producer for v in data if v.producer is not None]
    return _patch(graph, node, inputs, Moved((), dict(node.attrs), [perm]), views)


def _residual(graph: Graph, node: Node) -> Patch | None:
    """A sum of a transposed product with something else."""
    data = [v for v in node.inputs if v is not None]
    if len(data) != 2 or any(v.is_const or v.shape != node.output.shape for v in data):
        return None
    for turned, other in (data, reversed(data)):
        perm = _perm_above(graph, turned)
        if perm is None or graph.only_user(turned) is not node or not is_pointwise(node):
            continue
        if not _is_product(graph, _source(turned)) or _is_product(graph, other):
            continue
        back = tuple(int(axis) for axis in np.argsort(perm))
        shape = tuple(other.shape[axis] for axis in back)
        view = Value(graph.fresh(other.name), TensorType(other.dtype, shape))
        first = turned.producer
        assert first is not None
        inverse = Node("Transpose", [other], [view], {"perm": back}, name=f"{first.name}.back",
                       origin=origins(first))  # fmt: skip
        inputs: list[Value | None] = [_source(turned), view]
        inputs = inputs if node.inputs[0] is turned else inputs[::-1]
        patch = _patch(graph, node, inputs, Moved((), dict(node.attrs), [perm]), [first])
        return replace(patch, add=(inverse, *patch.add))
    return None


def _is_product(graph: Graph, value: Value) -> bool:
    """Whether a value is a matrix product with pointwise nodes behind it."""
    for _ in range(_DEPTH):
        node = value.producer
        if node is None or node.op in ("MatMul", "MatMulInteger"):
            return node is not None
        data = [v for v in node.inputs if v is not None and not v.is_const]
        if len(data) != 1 or not is_pointwise(node):
            return False
        value = data[0]
    return False


def _turned_back(graph: Graph, value: Value, perm: Perm) -> Value:
    """An operand before its transpose; a constant, transposed back."""
    if value.data is None:
        return _source(value)
    data = np.asarray(value.data)
    if data.ndim == 0:
        return value
    full = data.reshape((1,) * (len(perm) - data.ndim) + data.shape)
    return constant(graph.fresh(value.name), np.ascontiguousarray(full.transpose(np.argsort(perm))))


_RULES: dict[str, Rule] = {
    "Concat": _axis,
    "Softmax": _axis,
    "LogSoftmax": _axis,
    "Split": _split,
    "Pad": _pad,
    "Slice": _slice,
}

PASS = Pass("sink_transposes", "views moved out of the way", find)
