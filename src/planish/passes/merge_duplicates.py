"""Common subexpressions: of nodes that compute the same, one stays.

    x ─┬ Shape ─ a                     x ─ Shape ─┬ a
       └ Shape ─ b        becomes                 └ b

Not handled: random operators, a Dropout that trains among them; nodes with bodies; results that are
graph outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from planish.graph.graph import Graph, Node, Patch, Value
from planish.passes.match import is_random
from planish.passes.rewrite import Pass

_SMALL = 1 << 16  # bytes; larger constants are the same only if they are the same object


def find(graph: Graph) -> Iterator[Patch]:
    """Later nodes that repeat an earlier one."""
    seen: dict[tuple[Any, ...], Node] = {}
    for node in graph.nodes:
        key = _key(node)
        if key is None or not graph.holds(node):
            continue
        if any(v is not None and graph.is_output(v) for v in node.outputs):
            continue
        first = seen.setdefault(key, node)
        if first is node or not graph.holds(first) or len(first.outputs) < len(node.outputs):
            continue
        pairs = []
        for old, new in zip(node.outputs, first.outputs, strict=False):
            if old is not None and new is not None:
                pairs.append((old, new))
        if len(pairs) == sum(v is not None for v in node.outputs):
            note = f"{node.name} repeats {first.name}"
            yield Patch(note, remove=(node,), replace=tuple(pairs))


def _key(node: Node) -> tuple[Any, ...] | None:
    if node.op == "DequantizeLinear" or is_random(node):
        return None
    attrs = []
    for name, value in sorted(node.attrs.items()):
        if isinstance(value, Graph):
            return None
        attrs.append((name, value.tobytes() if isinstance(value, np.ndarray) else value))
    return (node.op, tuple(_identity(v) for v in node.inputs), tuple(attrs))


def _identity(value: Value | None) -> Any:
    if value is None:
        return None
    if value.is_sizes:
        return (value.type, value.dims)
    small = value.data is not None and value.data.nbytes <= _SMALL
    return (value.digest,) if small else value


PASS = Pass("merge_duplicates", "common subexpressions merged", find)
