"""Signed activations as unsigned ones: kernels multiply u8 by s8.

    x ─ Q(zp: s8) ─ MaxPool ─┬ ConvInteger(zx: s8)
                             └ DQ(zp: s8) ─ y
                          becomes     x ─ Q(zp + 128: u8) ─ MaxPool ─┬ ConvInteger(zx + 128: u8)
                                                                     └ DQ(zp + 128: u8) ─ y

A set of values that nodes connect changes as a whole: Q and constants make them; DQ and the data of
integer contractions end them; in between are only nodes that move bytes. Where a set has another
member (a graph input, say), its contractions read a copy:

    x: s8 ─ ConvInteger(zx)    becomes    x ─ Cast ─ Add(128) ─ Cast(u8) ─ ConvInteger(zx + 128)

What is not negative keeps its numbers, so that padding stays 0:

    x ─ Relu ─ Q(s, 0: s8) ─ y      becomes      x ─ Relu ─ Clip(127 · s) ─ Q(s, 0: u8) ─ y

Not handled: the second operand of a product; contractions whose weights are computed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.passes.join_pairs import bounds_of
from planish.passes.match import first_input, known_rank, make, number
from planish.passes.move_quants import MOVES, moved_data, only_moves
from planish.passes.quantised import grid_of
from planish.passes.rewrite import Pass

_SHIFT = 128
_CONTRACTIONS = frozenset(("ConvInteger", "MatMulInteger"))


def find(graph: Graph) -> Iterator[Patch]:
    """Sets of signed values that can change, then contractions that need a copy."""
    for node in graph.nodes:
        if graph.holds(node) and node.op == "QuantizeLinear" and node.output.dtype is DType.I8:
            nodes = _connected(graph, node)
            if nodes and any(n.op in _CONTRACTIONS for n in nodes):
                yield _retyped(graph, nodes, 0 if _is_positive(nodes) else _SHIFT)
    for node in graph.nodes:
        if graph.holds(node) and node.op in _CONTRACTIONS and _reads_signed(node):
            yield _copied(graph, node)


def _reads_signed(node: Node) -> bool:
    weight = node.input(1)
    known = known_rank(*node.inputs) and weight is not None and weight.is_const
    return known and first_input(node).dtype is DType.I8 and _constant(node.input(2))


def _constant(value: Value | None) -> bool:
    return value is None or value.is_const


# ---- a set of values ----------------------------------------------------------------------------


def _connected(graph: Graph, start: Node) -> dict[Node, None]:
    """The nodes that make or read the signed values around a node; none where one cannot change."""
    nodes: dict[Node, None] = {}
    values = [start.output]
    seen: set[Value] = set()
    while values:
        value = values.pop()
        if value in seen or value.is_const:
            continue
        seen.add(value)
        maker = value.producer
        if maker is None or graph.is_output(value) or not _makes(maker):
            return {}
        readers = graph.users(value)
        if not all(_reads(reader, value) for reader in readers):
            return {}
        nodes.update(dict.fromkeys((maker, *readers)))
        for node in (maker, *readers):
            if node.op in MOVES:
                values += [v for v in (*moved_data(node), *node.outputs) if v is not None]
    return nodes


def _makes(node: Node) -> bool:
    if node.op == "QuantizeLinear":
        return _constant(node.input(2))
    return node.op in MOVES and only_moves(node)


def _reads(node: Node, value: Value) -> bool:
    """Whether a node can as well read a value as unsigned bytes."""
    if node.op in _CONTRACTIONS:
        others = node.inputs[1:]
        return _reads_signed(node) and not any(other is value for other in others)
    if node.op == "DequantizeLinear":
        return _constant(node.input(2)) and first_input(node) is value
    if node.op not in MOVES or not only_moves(node):
        return False
    data = moved_data(node)
    others = node.inputs[len(data) :]
    padded = node.op != "Pad" or _constant(node.input(2))
    return padded and not any(other is value for other in others)


def _is_positive(nodes: dict[Node, None]) -> bool:
    """Whether a set holds no number below 0 and has its zero points there."""
    for node in nodes:
        zero = node.input(2)
        if node.op == "QuantizeLinear":
            source = first_input(node).producer
            bounds = None if source is None else bounds_of(source)
            if bounds is None or bounds[1] < 0.0 or grid_of(node, "QuantizeLinear") is None:
                return False
        if node.op in MOVES:
            zero = zero if node.op == "Pad" else None
            if any(value.is_const for value in moved_data(node)):
                return False
        if zero is not None and np.any(np.asarray(zero.data) != 0):
            return False
    return True


def _retyped(graph: Graph, nodes: dict[Node, None], shift: int) -> Patch:
    new: dict[Value, Value] = {}
    added: list[Node] = []
    pairs: list[tuple[Value, Value]] = []
    for node in graph.nodes:
        if node not in nodes:
            continue
        made = _unsigned(graph, node, new, shift)
        if node.op == "QuantizeLinear" and not shift:
            added.append(_clipped(graph, node))
            made.inputs[0] = added[-1].output
        for old, value in zip(node.outputs, made.outputs, strict=True):
            if old is not None and value is not None and old.dtype is DType.I8:
                new[old] = value
            elif old is not None and value is not None:
                pairs.append((old, value))
        added.append(made)
    first = added[0].name
    note = f"{len(new)} signed values from {first} on are unsigned"
    return Patch(note, tuple(nodes), tuple(added), tuple(pairs))


def _clipped(graph: Graph, node: Node) -> Node:
    """The source of a node that quantises, held below what signed bytes can tell."""
    source, grid = first_input(node), grid_of(node, "QuantizeLinear")
    assert grid is not None
    most = number(graph, f"{node.name}.most", (_SHIFT - 1) * grid.scale, source)
    return make(graph, "Clip", [source, None, most], source, sources=[node])


def _unsigned(graph: Graph, node: Node, new: dict[Value, Value], shift: int = _SHIFT) -> Node:
    """A node as it makes or reads unsigned bytes."""
    inputs = list(node.inputs)
    attrs = dict(node.attrs)
    if node.op in MOVES:
        for n in range(len(moved_data(node))):
            value = inputs[n]
            inputs[n] = (
                _shifted(graph, value, shift) if value is None or value.is_const else new[value]
            )
        if node.op == "Pad" and node.attrs.get("mode", "constant") == "constant":
            inputs += [None] * (3 - len(inputs))
            inputs[2] = _shifted(graph, inputs[2], shift, node.name)
    else:
        if node.op != "QuantizeLinear":
            inputs[0] = new[first_input(node)]
        inputs += [None] * (3 - len(inputs))
        scale = None if node.op in _CONTRACTIONS else node.inputs[1]
        inputs[2] = _shifted(graph, inputs[2], shift, node.name, scale)
        if node.op == "QuantizeLinear":
            attrs.pop("output_dtype", None)
    outputs: list[Value | None] = []
    for value in node.outputs:
        dtype = None if value is None else value.dtype
        kind = DType.U8 if dtype is DType.I8 else dtype
        outputs.append(
            None
            if value is None or kind is None
            else Value(graph.fresh(value.name), TensorType(kind, value.type.shape))
        )
    return Node(node.op, inputs, outputs, attrs, name=node.name, origin=node.origin)


def _shifted(
    graph: Graph, value: Value | None, shift: int, name: str = "", like: Value | None = None
) -> Value:
    """A constant of signed bytes as unsigned ones; 0 where it is left out."""
    if value is None:
        shape = () if like is None or not isinstance(like.data, np.ndarray) else like.data.shape
        data, name = np.zeros(shape, np.int8), f"{name}.zero"
    else:
        data, name = np.asarray(value.data), value.name
    unsigned = np.asarray(data.astype(np.int16) + shift, np.uint8)
    return constant(graph.fresh(name), unsigned)


# ---- a copy -------------------------------------------------------------------------------------


def _copied(graph: Graph, node: Node) -> Patch:
    x = first_input(node)
    chain: list[Node] = []
    source = x
    for op, dtype in (("Cast", DType.I32), ("Add", DType.I32), ("Cast", DType.U8)):
        inputs: list[Value | None] = [source]
        if op == "Add":
            shift = np.array(_SHIFT, np.int32)
            inputs.append(constant(graph.fresh(f"{node.name}.shift"), shift))
        attrs = {"to": dtype.onnx} if op == "Cast" else {}
        source = Value(graph.fresh(x.name), TensorType(dtype, x.type.shape))
        chain.append(Node(op, inputs, [source], attrs, name=f"{node.name}.unsigned",
                          origin=node.origin))  # fmt: skip
    made = _unsigned(graph, node, {x: source})
    note = f"{node.name} reads {x.name} as unsigned bytes"
    return Patch(note, (node,), (*chain, made), ((node.output, made.output),))


PASS = Pass("retype_signed", "signed data made unsigned", find)
