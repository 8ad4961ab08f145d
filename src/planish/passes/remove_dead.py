"""Drop nodes whose results nobody reads.

    a ─ Exp ─ Neg ─ (nobody)          becomes        a

Not handled: operators with results in bodies only; those are read by their node.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.graph.graph import Graph, Patch
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Dead nodes; what only they read goes with each."""
    for node in reversed(graph.nodes):
        if not graph.holds(node):
            continue
        used = (v for v in node.outputs if v is not None)
        if not any(graph.users(v) or graph.is_output(v) for v in used):
            yield Patch(f"{node.name}: nobody reads it", remove=(node,))


PASS = Pass("remove_dead", "dead layers removed", find)
