"""Quantised constants that no integer kernel took, dequantised at build time.

    w ─ DequantizeLinear ─ ConvTranspose          becomes          w' ─ ConvTranspose

The other passes leave the dequantising of weights alone (see fold_constants), for a contraction may
yet be computed in integers; what is left then is a float that might as well be computed now.

Not handled: what the reference implementation cannot compute.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.graph.graph import Graph, Patch
from planish.passes.fold_constants import computed
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Dequantising of constants."""
    for node in graph.nodes:
        if node.op == "DequantizeLinear" and graph.holds(node):
            patch = computed(graph, node)
            if patch is not None:
                yield patch


PASS = Pass("fold_weights", "constants folded", find)
