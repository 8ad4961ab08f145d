"""Why fusions that a reader would expect were not made: a line a node, for `explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from planish.graph.graph import Graph, Node, Value
from planish.graph.infer import is_pointwise, op_of
from planish.graph.layer import Layer
from planish.passes.fuse_integers import why_not
from planish.passes.match import first_input
from planish.passes.merge_siblings import siblings_of

Absorbs = Callable[[str, Node], bool]
Missed = tuple[str, str]  # (node name, reason)

_CONTRACTIONS = frozenset(("Conv", "ConvTranspose", "MatMul"))
_NOT_COMPUTED = frozenset(
    ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Identity", "Slice",
     "Split", "Concat")
)  # fmt: skip


def explain_missed(
    graph: Graph, layers: list[Layer], absorbs: Absorbs = lambda kind, node: True
) -> list[Missed]:
    """Fusions that were not made, each with its reason.

    Copies that a concat needs are not among them: lowering decides and notes those.

    Args:
        graph: The optimised graph.
        layers: Its layers, before or after merge_siblings.
        absorbs: What was given to fuse_layers.
    """
    alone = [part for layer in layers for part in layer.siblings or (layer,)]
    missed = [*_epilogues(graph, alone, absorbs), *_norms(graph), *_attentions(graph)]
    missed += _quantised(graph)
    for group in siblings_of(graph, alone):
        missed += [
            (layer.anchor.name, f"not merged with its siblings: {reason}")
            for layer, reason in group.refused
        ]
    return list(dict.fromkeys(missed))


# ---- epilogues ------------------------------------------------------------------------------


def _epilogues(graph: Graph, layers: list[Layer], absorbs: Absorbs) -> Iterator[Missed]:
    """Pointwise nodes that directly follow an anchor and form a layer of their own."""
    owner = {node: layer for layer in layers for node in layer.nodes}
    for layer in layers:
        if layer.kind != "loop" or layer.anchor.op in _NOT_COMPUTED:
            continue
        for node in layer.nodes:
            if not is_pointwise(node) or node.op == "DequantizeLinear":
                continue  # what reads bytes dequantises them
            for value in node.inputs:
                maker = None if value is None else value.producer
                before = None if maker is None else owner.get(maker)
                if value is None or before is None or before is layer:
                    continue
                if before.kind in ("view", "concat", "host") or not _takes_epilogues(before):
                    continue
                reason = _why_outside(graph, before, value, node, absorbs)
                yield node.name, f"not absorbed by {before.anchor.name}: {reason}"


def _takes_epilogues(layer: Layer) -> bool:
    """Whether a layer computes sums or more, not only elements at an index."""
    op = op_of(layer.anchor)
    return op is not None and op.element is None


def _why_outside(graph: Graph, before: Layer, value: Value, node: Node, absorbs: Absorbs) -> str:
    if graph.is_output(value):
        return f"{value.name} is an output of the graph"
    if len([v for v in before.anchor.outputs if v is not None]) > 1:
        return f"{before.anchor.op} has several results"
    if not absorbs(before.kind, node):
        return f"no kernel of kind {before.kind} takes {node.op}"
    if node.output.shape != value.shape:
        return f"it widens {value.type} to {node.output.type}"
    others = [user for user in graph.users(value) if user is not node]
    waits = _waits_for(graph, node, value)
    if waits is not None:
        return f"it also needs {waits.name}, which waits for {value.name} itself"
    if others:
        names = ", ".join(f"{user.name} ({user.op})" for user in others[:3])
        return f"{value.name} is also read by {names}"
    return "the group would get too large"


def _waits_for(graph: Graph, node: Node, value: Value) -> Value | None:
    """Another operand of a node that is computed from a value."""
    after = {value}
    steps = 0
    pending = [value]
    while pending and steps < 256:
        steps += 1
        for user in graph.users(pending.pop()):
            if user is node:
                continue
            new = [v for v in user.outputs if v is not None and v not in after]
            after.update(new)
            pending += new
    return next((v for v in node.inputs if v is not None and v is not value and v in after), None)


# ---- batch norms ----------------------------------------------------------------------------


def _norms(graph: Graph) -> Iterator[Missed]:
    """Batch norms that were not folded into weights."""
    batch_norms = {
        name
        for event in graph.history
        if event.step == "expand_operators" and "BatchNormalization" in event.note
        for name in event.origin
    }
    for node in graph.nodes:
        if node.op != "Mul" or not batch_norms.intersection(node.origin):
            continue
        value = next((v for v in node.inputs if v is not None and not v.is_const), None)
        if value is not None:
            names = ", ".join(batch_norms.intersection(node.origin))
            yield names, f"not folded into weights: {_why_not_folded(graph, value)}"


def _why_not_folded(graph: Graph, value: Value) -> str:
    maker = value.producer
    if maker is None:
        return "it stands at an input of the graph"
    if maker.op not in _CONTRACTIONS:
        return f"it follows {maker.name} ({maker.op}), which has no weights"
    if graph.only_user(value) is None:
        readers = [f"{user.name} ({user.op})" for user in graph.users(value)]
        return f"{value.name} is read by {', '.join(readers) or 'the caller'}"
    weight = maker.input(1)
    if weight is None or not weight.is_const:
        return f"the weights of {maker.name} are no constants"
    return f"the folded weights of {maker.name} would not be finite, or the axes differ"


# ---- attention ------------------------------------------------------------------------------


def _attentions(graph: Graph) -> Iterator[Missed]:
    """Softmaxes between products that are no attention."""
    for node in graph.nodes:
        users = graph.users(node.output) if node.op == "Softmax" else []
        if not any(user.op == "MatMul" and user.inputs[0] is node.output for user in users):
            continue
        scores = first_input(node)
        reason = "its scores are no scaled and masked product"
        if len(users) > 1 or graph.is_output(node.output):
            reason = f"{node.output.name} is read by others too"
        elif graph.only_user(scores) is None:
            reason = f"{scores.name} is read by others too"
        elif node.output.dtype.value != "f32":
            reason = f"the kernel does not compute in {node.output.dtype}"
        yield node.name, f"not fused to attention: {reason}"


# ---- integers -------------------------------------------------------------------------------


def _quantised(graph: Graph) -> Iterator[Missed]:
    """Contractions of quantised data that are computed in floats."""
    for node in graph.nodes:
        if node.op not in _CONTRACTIONS or not _is_dequantised(node.input(0)):
            continue
        weight = node.input(1)
        reason = why_not(node)
        if node.op in ("Conv", "MatMul") and weight is not None and weight.is_const:
            reason = "its weights are floats, or their scales vary within an output channel"
        elif node.op == "MatMul" and _is_dequantised(weight):
            reason = "both operands are computed"
        yield node.name, f"not computed in integers: {reason}"


def _is_dequantised(value: Value | None) -> bool:
    node = None if value is None else value.producer
    while node is not None and node.op in _NOT_COMPUTED and node.op != "Concat":
        node = first_input(node).producer
    return node is not None and node.op == "DequantizeLinear"
