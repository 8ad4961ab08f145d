"""Drop nodes whose results nobody reads.

a ─ Exp ─ (nobody)          becomes        a
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.graph.graph import Graph, Patch
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Dead nodes, the last ones first, so that one sweep takes whole dead branches."""
    for node in reversed(list(graph.nodes)):
        used = (v for v in node.outputs if v is not None)
        if not any(graph.users(v) or graph.is_output(v) for v in used):
            yield Patch(f"{node.name}: nobody reads it", remove=(node,))


PASS = Pass("remove_dead", "dead layers removed", find)
