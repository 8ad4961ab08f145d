"""Chains of Reshape, Transpose, Squeeze and Unsqueeze, written with the fewest nodes.

    x ─ Transpose(p) ─ Transpose(q)                       becomes   x ─ Transpose(p∘q), or x
    x ─ Reshape(a) ─ Unsqueeze ─ Reshape(b)               becomes   x ─ Reshape(b)
    x[197,N,768] ─ Reshape[197,12*N,64] ─ Transpose(1,0,2) ─ Reshape[N,12,197,64]
                                                          becomes   x ─ Reshape[197,N,12,64]
                                                                      ─ Transpose(1,2,0,3)

The last line matters: the left side has to merge N with 12, which strides cannot express once N and
the heads are not neighbours in memory; the right side never merges anything.

Not handled: cuts across axes whose sizes do not divide each other; the rest of a chain whose middle
somebody else reads, unless what remains has fewer nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.graph.graph import Graph, Node, Patch, Value
from planish.passes.match import first_input
from planish.passes.rewrite import Pass
from planish.passes.view_map import VIEWS, chain_above, emit, map_of, steps_of


def find(graph: Graph) -> Iterator[Patch]:
    """Chains that fewer nodes can replace, each found at its last node."""
    for node in graph.nodes:
        if not graph.holds(node) or node.op not in VIEWS:
            continue
        patch = _shorter(graph, node)
        if patch is not None:
            yield patch


def _shorter(graph: Graph, node: Node) -> Patch | None:
    chain = chain_above(node.output)
    for start in range(len(chain) - 1):
        nodes = chain[start:]
        source = first_input(nodes[0])
        view = map_of(nodes, source.shape)
        if view is None or view.shape != node.output.shape:
            continue
        if len(steps_of(view)) >= _dying(graph, nodes):
            continue
        made = emit(graph, view, source, node.output.name, nodes)
        result = made[-1].output if made else source
        if not made and not _may_replace(graph, node.output, source):
            continue
        names = ", ".join(n.name for n in nodes)
        note = f"{names} joined into {' + '.join(n.op for n in made) or 'nothing'}"
        return Patch(note, (node,), tuple(made), ((node.output, result),))
    return None


def _dying(graph: Graph, nodes: list[Node]) -> int:
    """How many nodes go when the last of a chain is replaced."""
    count = 1
    for node in reversed(nodes[:-1]):
        if graph.only_user(node.output) is None:
            break
        count += 1
    return count


def _may_replace(graph: Graph, value: Value, source: Value) -> bool:
    """Whether a value's readers can read the source instead: a graph output must be written."""
    if not graph.is_output(value):
        return True
    return source.producer is not None and not graph.is_output(source)


PASS = Pass("join_views", "no-ops removed", find)
