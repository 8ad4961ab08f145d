"""Compute at build time what depends on constants only, and sizes that follow from shapes.

    w ─ Transpose ─┐                        w' ─┐
    x ─────────────┴ MatMul      becomes    x ──┴ MatMul

    x ─ Shape ─ Gather(1) ─ …    becomes    64 ─ …        where dim 1 of x is 64

Not handled: results of more than 256 MiB that are larger than all they are made of (an Expand or
ConstantOfShape stays what it is); random operators; sequences and optional values; the dequantising
of weights, which a contraction in integers may want as they are (see fold_weights).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from planish.base.errors import UnsupportedError
from planish.base.shapes import product
from planish.graph.graph import Graph, Node, Patch, Value, constant, read_values
from planish.graph.reference import evaluate_node
from planish.passes.rewrite import Pass

RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
     "Bernoulli")
)  # fmt: skip
_LARGE = 256 << 20  # bytes


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
    if node.op in RANDOM or not all(v.is_const for v in reads):
        return None
    made = [v for v in node.outputs if v is not None]
    size = sum(_bytes(v) for v in made)
    if size > _LARGE and size > sum(_bytes(v) for v in reads):
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


def _bytes(value: Value) -> int:
    if value.data is not None:
        return int(value.data.nbytes)
    count = product(value.shape) if value.type.shape is not None else 0
    return count * value.dtype.size if isinstance(count, int) else 0


PASS = Pass("fold_constants", "constants folded", find)
