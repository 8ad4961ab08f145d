"""Horizontal fusion: contractions over one input become one, whose results are channel slices.

    x ─┬ Conv 1×1 ─ Relu ─ a                         ┌ a
       ├ Conv 1×1 ─ Relu ─ b       becomes   x ─ Conv┼ b        (weights and biases side by side)
       └ Conv 1×1 ─ Relu ─ c                         └ c

    x ─ MatMul(Wq) ─ Add, MatMul(Wk) ─ Add, MatMul(Wv) ─ Add       likewise

The input is read once, and the wide product fills the registers better than three narrow ones. Each
result keeps its epilogue and its place: it may lie inside a concat.

Not handled, each with a reason that `explain` prints: other kernels, strides, pads or dilations;
groups; weights that are no constants; epilogues that read what is made after the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Value
from planish.graph.layer import Layer, sort_layers
from planish.passes.match import first_input


@dataclass(frozen=True)
class Siblings:
    """Contractions over one input.

    Attributes:
        merged: Layers that become one; fewer than two: none do.
        refused: The others, each with the reason.
    """

    merged: tuple[Layer, ...]
    refused: tuple[tuple[Layer, str], ...]


def merge_siblings(graph: Graph, layers: list[Layer]) -> list[Layer]:
    """Merge sibling layers.

    Args:
        graph: The graph.
        layers: Its layers in an order in which each reads only what earlier ones made.

    Returns:
        The layers in such an order, siblings as one layer each.
    """
    whole: dict[Layer, Layer] = {}
    gone: set[Layer] = set()
    position = {node: n for n, node in enumerate(graph.nodes)}
    for group in find_siblings(graph, layers):
        first, *rest = group.merged
        nodes = [node for layer in group.merged for node in layer.nodes]
        nodes.sort(key=position.__getitem__)
        whole[first] = Layer(first.kind, first.anchor, nodes, group.merged)
        gone |= set(rest)
    if not whole:
        return layers
    return sort_layers([whole.get(layer, layer) for layer in layers if layer not in gone])


def find_siblings(graph: Graph, layers: list[Layer]) -> Iterator[Siblings]:
    """Groups of two or more layers that can be merged, with those that stay out."""
    for group in siblings_of(graph, layers):
        if len(group.merged) > 1:
            yield group


def siblings_of(graph: Graph, layers: list[Layer]) -> Iterator[Siblings]:
    """Every set of contractions that read one value and could share its loads."""
    place = {node: n for n, layer in enumerate(layers) for node in layer.nodes}
    readers: dict[Value, list[Layer]] = {}
    for layer in layers:
        if layer.kind in _SIGNATURES and not layer.siblings:
            readers.setdefault(first_input(layer.anchor), []).append(layer)
    for group in readers.values():
        if len(group) > 1:
            yield from _alike(graph, group, place)


def _alike(graph: Graph, group: list[Layer], place: dict[Node, int]) -> Iterator[Siblings]:
    """The group, parted by what the contractions are like."""
    kinds: dict[tuple[object, ...], list[Layer]] = {}
    refused: list[tuple[Layer, str]] = []
    for layer in group:
        reason = _unfit(graph, layer)
        if reason:
            refused.append((layer, reason))
        else:
            kinds.setdefault((layer.kind, *_SIGNATURES[layer.kind](layer.anchor)), []).append(layer)
    if len(kinds) > 1:
        alone = [layers[0] for layers in kinds.values() if len(layers) == 1]
        refused += [(layer, _differs(layer, group)) for layer in alone]
    for layers in kinds.values():
        early = [layer for layer in layers if _ready(layer, layers[0], place)]
        late = [(layer, _late(layers[0])) for layer in layers if layer not in early]
        yield Siblings(tuple(early) if len(early) > 1 else (), (*refused, *late))
        refused = []
    if refused:
        yield Siblings((), tuple(refused))


# ---- what makes contractions alike ----------------------------------------------------------


def _conv_signature(node: Node) -> tuple[object, ...]:
    spatial = len(first_input(node).shape) - 2
    weight = node.inputs[1]
    return (
        () if weight is None else weight.shape[2:],
        tuple(node.attrs.get("strides") or (1,) * spatial),
        tuple(node.attrs.get("pads") or (0,) * (2 * spatial)),
        tuple(node.attrs.get("dilations") or (1,) * spatial),
        node.attrs.get("auto_pad", "NOTSET"),
    )


def _matmul_signature(node: Node) -> tuple[object, ...]:
    return ()


_SIGNATURES = {"conv": _conv_signature, "matmul": _matmul_signature}


def _unfit(graph: Graph, layer: Layer) -> str:
    """Why a contraction can have no siblings; "" when it can."""
    node = layer.anchor
    weight, bias = node.input(1), node.input(2)
    if weight is None or not weight.is_const or (bias is not None and not bias.is_const):
        return "its weights are no constants"
    if node.output.dtype is not DType.F32 and weight.dtype is not DType.I8:
        return f"it computes in {node.output.dtype}"
    if int(node.attrs.get("group", 1)) != 1:
        return "it has groups"
    if layer.kind == "matmul" and (len(weight.shape) != 2 or len(first_input(node).shape) < 2):
        return "its operands are no matrices"
    if len(layer.outputs(graph)) != 1:
        return "it has several results"
    return ""


def _differs(layer: Layer, group: list[Layer]) -> str:
    names = ", ".join(other.anchor.name for other in group if other is not layer)
    return f"its kernel, strides, pads or dilations differ from those of {names}"


def _ready(layer: Layer, first: Layer, place: dict[Node, int]) -> bool:
    """Whether all that a layer reads exists before the first of its siblings runs."""
    start = place[first.anchor]
    makers = (value.producer for value in layer.inputs())
    return all(maker is None or place[maker] < start for maker in makers)


def _late(first: Layer) -> str:
    return f"its epilogue reads what is made only after {first.anchor.name}"
