"""Attention recognised from products and a softmax.

    q ─ Mul(a) ─┐
    k ─ Mul(b) ─ Transpose ─┴ MatMul ─ Mul | Div ─ Add(mask) ─ Where(keep, ·, fill)
                                       ─ Softmax ─┐
                                          v ──────┴ MatMul

                       becomes   planish::ScaledAttention(q, k, v, mask, keep, fill; scale)

Everything but the two products and the softmax may be missing; the scale may stand on q, on k, on
both, or on the scores. The keys come as [*batch, K, D]: the transpose that turned them is undone by
another, and the two cancel (join_views). ONNX's own Attention arrives here as primitives.

Not handled: scores that others read too; a mask added behind a Where; scores capped by Tanh; heads
that the kernel has no room for; other types than float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from planish.base.errors import ModelError
from planish.graph.graph import Graph, Node, Patch, TensorType, Value
from planish.graph.infer import arg_of, op_of
from planish.passes.match import between, either_way, first_input, known_rank, make, maker, scalar
from planish.passes.rewrite import Pass

OP = "planish::ScaledAttention"


_ORDER = {"Mul": 0, "Div": 0, "Add": 1, "Where": 2}  # from the product down to the softmax


@dataclass(frozen=True)
class _Scores:
    """What stands between the product of queries and keys and the softmax."""

    product: Node
    scale: float = 1.0
    mask: Value | None = None
    keep: Value | None = None
    fill: Value | None = None
    inverted: bool = False  # `keep` says where the fill goes


def find(graph: Graph) -> Iterator[Patch]:
    """Softmaxes between two products."""
    for node in graph.nodes:
        if node.op != "Softmax" or not graph.holds(node) or not known_rank(*node.inputs):
            continue
        patch = _attention(graph, node)
        if patch is not None:
            yield patch


def _attention(graph: Graph, softmax: Node) -> Patch | None:
    rank = len(softmax.output.shape)
    last = graph.only_user(softmax.output)
    if int(softmax.attrs.get("axis", -1)) not in (-1, rank - 1) or rank < 2:
        return None
    if last is None or last.op != "MatMul" or last.inputs[0] is not softmax.output:
        return None
    scores = _scores(graph, first_input(softmax), softmax, max(_ORDER.values()) + 1)
    values = last.inputs[1]
    if scores is None or values is None or not known_rank(values, last.output):
        return None
    queries, q_scale = _unscaled(scores.product.inputs[0])
    turned, k_scale = _unscaled(scores.product.inputs[1])
    if min(len(v.shape) for v in (queries, turned, values)) < 2:
        return None
    sources = between(last, {queries, turned, values})
    added: list[Node] = []
    axes = tuple(range(len(turned.shape) - 2))
    shape = (*turned.shape[:-2], turned.shape[-1], turned.shape[-2])
    keys = Value(graph.fresh(f"{turned.name}.keys"), TensorType(turned.dtype, shape))
    perm = (*axes, len(axes) + 1, len(axes))
    added.append(
        Node(
            "Transpose",
            [turned],
            [keys],
            {"perm": perm},
            name=f"{softmax.name}.keys",
            origin=last.origin,
        )
    )
    keep = scores.keep
    if keep is not None and scores.inverted:
        inverse = make(graph, "Not", [keep], keep, sources=[last], name=f"{softmax.name}.keep")
        added.append(inverse)
        keep = inverse.output
    inputs = [queries, keys, values, scores.mask, keep, scores.fill]
    while inputs[-1] is None:
        inputs.pop()
    attrs = {"scale": scores.scale * q_scale * k_scale}
    made = make(graph, OP, inputs, last.output, attrs, sources=sources)
    if not _is_accepted(made, last.output):
        return None
    note = f"{softmax.name} between {scores.product.name} and {last.name} is attention"
    return Patch(note, (last,), (*added, made), ((last.output, made.output),))


def _is_accepted(node: Node, out: Value) -> bool:
    """Whether the operator takes these operands, natively, and gives the same type."""
    op = op_of(node)
    assert op is not None and op.refuse is not None
    args = [arg_of(value) for value in node.inputs]
    try:
        (result,) = op.infer(args, node.attrs)
    except ModelError:
        return False
    return result.shape == out.shape and op.refuse(args, node.attrs) is None


def _scores(graph: Graph, value: Value, reader: Node, above: int) -> _Scores | None:
    """The way from the softmax up to the product; None where it is another.

    Args:
        graph: The graph.
        value: Where to start.
        reader: The node that alone may read it.
        above: Rank in `_ORDER` of the last node passed; nodes may only come in that order.
    """
    node = value.producer if graph.only_user(value) is reader else None
    if node is None or not known_rank(*node.inputs):
        return None
    if node.op == "MatMul":
        return _Scores(node)
    rank = _ORDER.get(node.op, above + 1)
    if rank > above or (rank == above and rank != 0):
        return None
    if rank == 0:
        inner, factor = _factor(node)
        found = None if inner is value else _scores(graph, inner, node, rank)
        return None if found is None else replace(found, scale=found.scale * factor)
    for inner, change in _masked(node):
        found = _scores(graph, inner, node, rank) if inner.shape == value.shape else None
        if found is not None:
            return replace(found, **change)
    return None


def _masked(node: Node) -> Iterator[tuple[Value, dict[str, Any]]]:
    """What may be the scores in an Add or Where, and what the rest of it then is."""
    if node.op == "Add":
        yield from ((value, {"mask": mask}) for value, mask in either_way(node))
        return
    keep, yes, no = node.inputs
    if yes is not None and no is not None:
        yield yes, {"keep": keep, "fill": no, "inverted": False}
        yield no, {"keep": keep, "fill": yes, "inverted": True}


def _unscaled(value: Value | None) -> tuple[Value, float]:
    """An operand without a scale of one number, and that number."""
    assert value is not None
    node = maker(value, "Mul", "Div")
    return (value, 1.0) if node is None else _factor(node)


def _factor(node: Node) -> tuple[Value, float]:
    """What a node multiplies or divides by a number, and the factor; else its result and 1."""
    if node.op == "Div":
        divisor, value = scalar(node.inputs[1]), node.inputs[0]
        if divisor and value is not None and value.type == node.output.type:
            return value, 1.0 / divisor
        return node.output, 1.0
    for value, other in either_way(node):
        factor = scalar(other)
        if factor is not None and value.type == node.output.type:
            return value, factor
    return node.output, 1.0


PASS = Pass("fuse_attention", "norms, activations and attention recognised", find)
