"""Convolutions whose results are cut, as one convolution a piece.

    x ─ Conv(W) ─ Relu ─┬ Slice(0:29) ─ a          becomes    x ─┬ Conv(W[0:29]) ─ Relu ─ a
                        └ Slice(29:58) ─ b                       └ Conv(W[29:58]) ─ Relu ─ b

As siblings they run as one layer again (see merge_siblings), but each piece is written straight to
its place in a concat, where a slice would have to be copied.

Not handled: results that are read whole too; slices that overlap; pieces so small that the pieces
together would fill more vectors than the whole: those stay slices of a larger piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import args_of
from planish.ops.slicing import Cut, cuts_of
from planish.passes.match import first_input, is_unary, known_rank, origins
from planish.passes.rewrite import Pass
from planish.passes.simplify_concats import make_slice

_CHANNELS = 1  # the axis
_LANES = 16  # channels that fill the widest vector


def find(graph: Graph) -> Iterator[Patch]:
    """Convolutions, with pointwise nodes behind them, that only slices read."""
    for node in graph.nodes:
        if node.op != "Conv" or not graph.holds(node) or not _may_be_cut(node):
            continue
        chain = [node]
        user = graph.only_user(node.output)
        while user is not None and is_unary(user) and not graph.is_output(user.output):
            chain.append(user)
            user = graph.only_user(user.output)
        patch = _split(graph, chain)
        if patch is not None:
            yield patch


def _may_be_cut(node: Node) -> bool:
    weight, bias = node.input(1), node.input(2)
    if weight is None or not weight.is_const or not known_rank(*node.inputs, *node.outputs):
        return False
    return int(node.attrs.get("group", 1)) == 1 and (bias is None or bias.is_const)


def _split(graph: Graph, chain: list[Node]) -> Patch | None:
    value = chain[-1].output
    users = graph.users(value)
    cuts = [_cut(user) for user in users]
    if len(users) < 2 or graph.is_output(value) or any(cut is None for cut in cuts):
        return None
    ranges = sorted({(c[0], c[1]) for c in cuts if c is not None})
    if any(a[1] > b[0] for a, b in pairwise(ranges)):
        return None
    pieces = _pieces(ranges, int(str(value.shape[_CHANNELS])))
    if len(pieces) < 2:
        return None
    added: list[Node] = []
    made: dict[tuple[int, int], Value] = {}
    for piece in pieces:
        nodes = _piece(graph, chain, *piece)
        added += nodes
        made[piece] = nodes[-1].output
    pairs: list[tuple[Value, Value]] = []
    for user, cut in zip(users, cuts, strict=True):
        assert cut is not None
        piece = next(p for p in pieces if p[0] <= cut[0] and cut[1] <= p[1])
        if piece == cut and not graph.is_output(user.output):
            pairs.append((user.output, made[piece]))
            continue
        inner = {_CHANNELS: Cut(cut[0] - piece[0], 1, cut[1] - cut[0])}
        part = make_slice(graph, made[piece], inner, user.output, [user])
        assert part is not None
        added.append(part)
        pairs.append((user.output, part.output))
    sizes = ", ".join(str(end - start) for start, end in pieces)
    note = f"{chain[0].name} makes pieces of {sizes} channels"
    return Patch(note, tuple(users), tuple(added), tuple(pairs))


def _cut(node: Node) -> tuple[int, int] | None:
    """The channels that a slice takes, half-open; None for other nodes."""
    cuts = cuts_of(args_of(node)) if node.op == "Slice" else None
    if cuts is None or set(cuts) != {_CHANNELS}:
        return None
    cut = cuts[_CHANNELS]
    if cut.step != 1 or not isinstance(cut.start, int) or not isinstance(cut.count, int):
        return None
    return (cut.start, cut.start + cut.count) if cut.count > 0 else None


def _pieces(ranges: list[tuple[int, int]], total: int) -> list[tuple[int, int]]:
    """Pieces that cover the ranges, neighbours joined until no vectors are wasted."""
    pieces = list(ranges)
    most = -(-total // _LANES)
    while len(pieces) > 1 and sum(_vectors(p) for p in pieces) > most:
        pairs = list(pairwise(pieces))
        joined = [(a[0], b[1]) for a, b in pairs]
        saved = [
            _vectors(a) + _vectors(b) - _vectors(whole)
            for (a, b), whole in zip(pairs, joined, strict=True)
        ]
        best = max(range(len(joined)), key=lambda n: (saved[n], -_size(joined[n])))
        pieces[best : best + 2] = [joined[best]]
    return pieces


def _size(piece: tuple[int, int]) -> int:
    return piece[1] - piece[0]


def _vectors(piece: tuple[int, int]) -> int:
    return -(-_size(piece) // _LANES)


def _piece(graph: Graph, chain: list[Node], start: int, end: int) -> list[Node]:
    """The chain for some of its channels."""
    source: Value | None = first_input(chain[0])
    nodes: list[Node] = []
    for node in chain:
        others: list[Value | None] = list(node.inputs[1:])
        if not nodes:
            others = [None if v is None else _rows(graph, v, start, end) for v in others]
        shape = node.output.shape
        shape = (shape[0], end - start, *shape[2:])
        out = Value(graph.fresh(node.output.name), TensorType(node.output.dtype, shape))
        nodes.append(
            Node(node.op, [source, *others], [out], node.attrs, name=node.name,
                 origin=origins(node))
        )  # fmt: skip
        source = out
    return nodes


def _rows(graph: Graph, value: Value, start: int, end: int) -> Value:
    return constant(
        graph.fresh(value.name), np.ascontiguousarray(np.asarray(value.data)[start:end])
    )


PASS = Pass("split_outputs", "shuffles folded", find)
