"""Compute at build time what depends on constants only, and sizes that follow from shapes.

    w ─ Transpose ─┐                        w' ─┐
    x ─────────────┴ MatMul      becomes    x ──┴ MatMul

    x ─ Shape ─ Gather(1) ─ …    becomes    64 ─ …        where dim 1 of x is 64

Not handled: results that are larger than all they are made of, if they have more than 256 MiB, or
more than 1 MiB where the constants have 1 GiB together (an Expand or ConstantOfShape stays what it
is); random operators, a Dropout that trains and bodies with such among them; sequences and optional
values; the dequantising of weights, which a contraction in integers may want as they are (see
fold_weights).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from planish.base.errors import UnsupportedError
from planish.base.shapes import product
from planish.graph.graph import Graph, Node, Patch, Value, constant, read_values
from planish.graph.reference import evaluate_node
from planish.passes.match import is_random
from planish.passes.rewrite import Pass

# In bytes:
_SMALL = 1 << 20  # a result that may always grow
_LARGE = 256 << 20  # one that may grow while there is room
_ROOM = 1 << 30  # constants of a graph between which there is


def find(graph: Graph) -> Iterator[Patch]:
    """Nodes that can be computed now."""
    for node in graph.nodes:
        if not graph.holds(node):
            continue
        if _keeps_weights(node):
            continue
        patch = _from_sizes(graph, node) or computed(graph, node)
        if patch is not None:
            yield patch


def _from_sizes(graph: Graph, node: Node) -> Patch | None:
    """A result whose contents follow from static shapes."""
    if len(node.outputs) != 1 or node.outputs[0] is None:
        return None
    value = node.output
    if value.dims is None or value.type.shape is None or not value.dtype.llvm:
        return None
    sizes = [dim for dim in value.dims if isinstance(dim, int)]
    if len(sizes) < len(value.dims) or len(value.shape) > 1:
        return None
    data = np.array(sizes, dtype=value.dtype.numpy).reshape(() if not value.shape else (-1,))
    return _replaced(graph, node, [data], "a size known from shapes")


def _keeps_weights(node: Node) -> bool:
    """Whether a node dequantises what may be the weights of a contraction."""
    source = node.input(0)
    if node.op != "DequantizeLinear" or source is None or source.type.shape is None:
        return False
    return len(source.shape) > 1 and source.dtype.is_integer and source.dtype.bits <= 8


def computed(graph: Graph, node: Node) -> Patch | None:
    """A node that reads constants only, replaced by what it makes of them; None where it stays."""
    reads = read_values(node)
    if not all(v.is_const for v in reads) or is_random(node):
        return None
    size = _bytes(node.outputs)
    if size > _SMALL and size > _bytes(reads) and size > min(_LARGE, _ROOM - _taken(graph)):
        return None
    try:
        results = evaluate_node(node, {})
    except UnsupportedError:
        return None
    if not all(
        v is None or isinstance(r, np.ndarray) for v, r in zip(node.outputs, results, strict=True)
    ):
        return None
    return _replaced(graph, node, results, "computed at build time")


def _replaced(graph: Graph, node: Node, results: list[Any], note: str) -> Patch:
    pairs: list[tuple[Value, Value]] = []
    for value, result in zip(node.outputs, results, strict=True):
        if value is not None:
            pairs.append((value, constant(graph.fresh(value.name), result)))
    return Patch(f"{node.name}: {note}", remove=(node,), replace=tuple(pairs))


def _taken(graph: Graph) -> int:
    """Bytes of all constants of a graph."""
    return _bytes(value for value in graph.values() if value.is_const)


def _bytes(values: Iterable[Value | None]) -> int:
    """Bytes of some values, each counted once, as far as their sizes are known."""
    total = 0
    for value in dict.fromkeys(values):
        if value is not None and value.data is not None:
            total += int(value.data.nbytes)
        elif value is not None and value.type.shape is not None:
            count = product(value.shape)
            total += count * value.dtype.size if isinstance(count, int) else 0
    return total


PASS = Pass("fold_constants", "constants folded", find)
