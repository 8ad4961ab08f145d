"""Attention layers → workloads."""

from __future__ import annotations

from planish.base.expr import Expr, Temp, Var, call
from planish.graph.graph import Node, Value
from planish.lower.contractions import (
    Attrs,
    Branch,
    Contraction,
    Place,
    accumulated,
    finish,
    input_of,
)
from planish.lower.expressions import broadcast_index, scalar
from planish.lower.operands import Operands, Source
from planish.lower.products import matrix_view


def attention_layer(branch: Branch, place: Place) -> Contraction:
    """Scaled dot-product attention over [*batch, length, width] operands."""
    node = branch.layer.anchor
    batch = node.output.shape[:-2]
    operands = Operands(place)
    for n in range(3):
        value = input_of(node, n)
        source = matrix_view(
            Source(place(value).storage, place(value).data),
            (*batch, *value.shape[-2:]),
            vector_axis=None,
        )
        operands.add(Source(source.storage, source.data))
    exprs = [accumulated(branch, operands, bias=None)]
    attrs: Attrs = (("scale", float(node.attrs["scale"])),)
    mask = _attention_mask(node, operands)
    return finish("attention", operands, [branch.target], exprs, 3, attrs, mask)


def _attention_mask(node: Node, operands: Operands) -> Expr | None:
    """The score that the softmax sees, given the scaled product: an addend, then a choice."""
    addend, keep, fill = (node.input(n) for n in (3, 4, 5))
    if addend is None and keep is None:
        return None
    at: tuple[Expr, ...] = tuple(Var(f"o{axis}") for axis in range(len(node.output.shape)))

    def read(value: Value) -> Expr:
        if value.data is not None and value.data.size == 1:
            return scalar(value)
        return operands.load(value, broadcast_index(value.shape, at))

    score: Expr = Temp(0, (), node.output.dtype)
    score = score if addend is None else call("add", score, read(addend))
    if keep is None or fill is None:
        return score
    return call("select", read(keep), score, read(fill))
