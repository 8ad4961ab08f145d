"""Drop nodes whose results nobody reads.

    a ─ Exp ─ Neg ─ (nobody)          becomes        a

A node whose results tell a size that another node goes by stays: NonZero, of which only the count
matters, for instance.

Not handled: operators with results in bodies only; those are read by their node.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.graph.graph import Graph, Node, Patch, told_sizes, unknown_sizes
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Dead nodes; what only they read goes with each."""
    for node in reversed(graph.nodes):
        if not graph.holds(node):
            continue
        used = (v for v in node.outputs if v is not None)
        if any(graph.users(v) or graph.is_output(v) for v in used) or _tells_size(graph, node):
            continue
        yield Patch(f"{node.name}: nobody reads it", remove=(node,))


def _tells_size(graph: Graph, node: Node) -> bool:
    """Whether sizes that only the node's results tell are part of other values' types."""
    told = told_sizes(node)
    others = (v for v in graph.values() if v.producer is not node)
    return bool(told) and any(not told.isdisjoint(unknown_sizes(v)) for v in others)


PASS = Pass("remove_dead", "dead layers removed", find)
