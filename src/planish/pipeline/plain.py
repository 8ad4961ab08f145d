"""No optimisation at all: every node of the model runs by itself, in buffers of its own.

It is the yardstick that a plan's gains are told against. Only what is needed to run is done:
composite operators are expanded, and what depends on constants and shapes alone is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from planish.graph.graph import Graph, Node
from planish.graph.layer import Layer, sort_layers
from planish.passes import expand_operators, fold_constants, fold_weights
from planish.passes.fuse_layers import fuse_layers
from planish.passes.rewrite import Pass, PassRun

PLAIN_PASSES: tuple[Pass, ...] = (
    fold_constants.PASS,
    expand_operators.PASS,
    fold_weights.PASS,
    fold_constants.PASS,
)


def expand_graph(graph: Graph) -> None:
    """Run the passes of a plain build."""
    run = PassRun(graph)
    for work in PLAIN_PASSES:
        run.run(work)


def single_layers(graph: Graph, native: Callable[[Node], str | None]) -> list[Layer]:
    """A layer for each node of the model.

    What one ONNX node was expanded into stays one layer where it has one result: a batch norm is
    one step here, as it is in any runtime.

    Args:
        graph: A graph with types.
        native: Why a node must run on the host; None when it need not.
    """
    fused = fuse_layers(graph, native, lambda kind, node: True)
    return sort_layers([part for layer in fused for part in _split(graph, layer)])


def _split(graph: Graph, layer: Layer) -> Iterator[Layer]:
    """The layers that a fused layer falls apart into."""
    by_origin: dict[tuple[str, ...], list[Node]] = {}
    for node in layer.nodes:
        by_origin.setdefault(node.origin or (node.name,), []).append(node)
    for nodes in by_origin.values():
        whole = Layer(layer.kind, layer.anchor, nodes)
        if layer.anchor not in nodes:
            whole = Layer("loop", nodes[-1], nodes)
        if len(nodes) == 1 or len(whole.outputs(graph)) == 1:
            yield _copying(whole)
        else:
            for node in nodes:
                kind = layer.kind if node is layer.anchor else "loop"
                yield _copying(Layer(kind, node, [node]))


def _copying(layer: Layer) -> Layer:
    """Concats as loops: as layers of their own they would write nothing and cost nothing."""
    return Layer("loop", layer.anchor, layer.nodes) if layer.kind == "concat" else layer
