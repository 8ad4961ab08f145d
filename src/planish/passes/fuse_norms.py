"""Layer and RMS normalisation recognised from their primitive spellings.

    m = ReduceMean(x), d = x - m
    v = ReduceMean(d·d | d²)  or  ReduceMean(x·x | x²) - m·m
    y = d / √(v + ε)  or  d · (1 / √(v + ε))             becomes   y = LayerNormalization(x, 1, ε)

    i = γ / √(v + ε),  y = x·i + (β - m·i)               becomes   LayerNormalization(x, γ, β, ε)
    y = x / √(ReduceMean(x²) + ε)                        becomes   RMSNormalization(x, 1, ε)
    LayerNormalization(x, 1) · γ + β                     becomes   LayerNormalization(x, γ, β)

The means run over the last axes of x, and keep them.

Not handled: means over other axes than the last ones (instance and group norms spelled out); ε that
is no number; factors that vary along the other axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planish.base.shapes import is_static
from planish.graph.graph import Graph, Node, Patch, Value, constant
from planish.passes.match import (
    between,
    either_way,
    first_input,
    ints,
    known_rank,
    make,
    maker,
    scalar,
)
from planish.passes.rewrite import Pass

_NORMS = frozenset(("LayerNormalization", "RMSNormalization"))


@dataclass(frozen=True)
class _Spread:
    """1 / √(v + ε) or its inverse, seen at the root.

    Attributes:
        x: What is normalised.
        mean: Its mean; None for a root mean square.
        distance: x - mean where that was computed.
        epsilon: ε.
        axis: First of the normalised axes.
    """

    x: Value
    mean: Value | None
    distance: Value | None
    epsilon: float
    axis: int


def find(graph: Graph) -> Iterator[Patch]:
    """Roots of variances with what is made of them, then factors and addends of norms."""
    for node in graph.nodes:
        if not graph.holds(node) or not known_rank(*node.inputs, *node.outputs):
            continue
        patch = _affine(graph, node) if node.op in ("Mul", "Add") else None
        spread = _spread(node) if patch is None else None
        if spread is not None:
            patch = _normalised(graph, node, spread)
        if patch is not None:
            yield patch


# ---- the statistics -------------------------------------------------------------------------


def _spread(node: Node) -> _Spread | None:
    """The statistics below a square root."""
    if node.op != "Sqrt" and not (node.op == "Pow" and scalar(node.input(1)) == 0.5):
        return None
    total = maker(node.inputs[0], "Add")
    for variance, epsilon in either_way(total) if total is not None else ():
        number = scalar(epsilon)
        if number is not None:
            return _centred(variance, number) or _difference(variance, number)
    return None


def _centred(variance: Value, epsilon: float) -> _Spread | None:
    """The mean of squared distances, or of squares."""
    mean_of = maker(variance, "ReduceMean")
    squared = None if mean_of is None else _square_of(first_input(mean_of))
    if mean_of is None or squared is None:
        return None
    axis = _trailing_axis(mean_of)
    if axis is None:
        return None
    distance = maker(squared, "Sub")
    mean = None if distance is None else distance.inputs[1]
    inner = maker(mean, "ReduceMean")
    if distance is not None and inner is not None and _trailing_axis(inner) == axis:
        x = first_input(distance)
        if first_input(inner) is x:
            return _Spread(x, mean, squared, epsilon, axis)
    return _Spread(squared, None, None, epsilon, axis)


def _difference(variance: Value, epsilon: float) -> _Spread | None:
    """The mean of squares minus the square of the mean."""
    node = maker(variance, "Sub")
    squares = maker(node.inputs[0], "ReduceMean") if node is not None else None
    mean = _square_of(node.inputs[1]) if node is not None else None
    inner = maker(mean, "ReduceMean")
    if squares is None or inner is None:
        return None
    x, axis = first_input(inner), _trailing_axis(inner)
    if axis is None or _trailing_axis(squares) != axis or _square_of(first_input(squares)) is not x:
        return None
    return _Spread(x, mean, None, epsilon, axis)


def _square_of(value: Value | None) -> Value | None:
    """What a value is the square of."""
    node = maker(value, "Mul", "Pow")
    if node is None:
        return None
    if node.op == "Mul":
        return node.inputs[0] if node.inputs[0] is node.inputs[1] else None
    return node.inputs[0] if scalar(node.inputs[1]) == 2 else None


def _trailing_axis(node: Node) -> int | None:
    """The first axis of a mean over the last axes that keeps them."""
    axes = ints(node.input(1))
    x = first_input(node)
    if not axes or x.type.shape is None or not int(node.attrs.get("keepdims", 1)):
        return None
    rank = len(x.shape)
    found = sorted(axis % rank for axis in axes)
    return found[0] if found == list(range(found[0], rank)) else None


# ---- the result -----------------------------------------------------------------------------


def _normalised(graph: Graph, root: Node, spread: _Spread) -> Patch | None:
    """The norm whose root has been found: at the division or product by it."""
    for user in graph.users(root.output):
        if user.op == "Div" and user.inputs[1] is root.output:
            if _is_centred(user.inputs[0], spread):
                return _norm(graph, user, spread, None, None)
            if user.inputs[0] is not None and scalar(user.inputs[0]) == 1:
                return _inverted(graph, user, spread)
        if user.op == "Reciprocal":
            return _inverted(graph, user, spread)
    return None


def _is_centred(value: Value | None, spread: _Spread) -> bool:
    """Whether a value is x - mean (for a root mean square: x)."""
    if spread.mean is None:
        return value is spread.x
    if spread.distance is not None and value is spread.distance:
        return True
    node = maker(value, "Sub")
    return node is not None and node.inputs[0] is spread.x and node.inputs[1] is spread.mean


def _inverted(graph: Graph, inverse: Node, spread: _Spread) -> Patch | None:
    for user in graph.users(inverse.output):
        for other, value in either_way(user) if user.op == "Mul" else ():
            if value is not inverse.output:
                continue
            if _is_centred(other, spread):
                return _norm(graph, user, spread, None, None)
            patch = _spread_out(graph, user, other, spread)
            if patch is not None:
                return patch
    return None


def _spread_out(graph: Graph, factor: Node, scale: Value, spread: _Spread) -> Patch | None:
    """x·i + (β - m·i) with i = scale / root; without a mean, x·i."""
    if not _fits(scale, spread.x, spread.axis):
        return None
    for user in graph.users(factor.output):
        for x, i in either_way(user) if user.op == "Mul" else ():
            if x is not spread.x or i is not factor.output:
                continue
            if spread.mean is None:
                return _norm(graph, user, spread, scale, None)
            total = graph.only_user(user.output)
            for _, rest in either_way(total) if total is not None and total.op == "Add" else ():
                bias = _bias(rest, factor.output, spread)
                if bias is not None and total is not None:
                    return _norm(graph, total, spread, scale, bias)
    return None


def _bias(rest: Value, factor: Value, spread: _Spread) -> Value | None:
    """β of a value β - m·i."""
    node = maker(rest, "Sub")
    product = maker(node.inputs[1], "Mul") if node is not None else None
    if node is None or product is None or set(product.inputs) != {spread.mean, factor}:
        return None
    bias = node.inputs[0]
    return bias if bias is not None and _fits(bias, spread.x, spread.axis) else None


def _norm(
    graph: Graph, node: Node, spread: _Spread, scale: Value | None, bias: Value | None
) -> Patch | None:
    x = spread.x
    if not x.dtype.is_float or node.output.type != x.type:
        return None
    op = "RMSNormalization" if spread.mean is None else "LayerNormalization"
    scale = _ones(graph, node, spread) if scale is None else scale
    inputs = [x, scale] if bias is None else [x, scale, bias]
    attrs = {"axis": spread.axis - len(x.shape), "epsilon": spread.epsilon}
    sources = between(node, {x, *inputs})
    made = make(graph, op, inputs, node.output, attrs, sources=sources)
    note = f"{node.name} and what leads to it is {op} of {x.name}"
    return Patch(note, (node,), (made,), ((node.output, made.output),))


def _ones(graph: Graph, node: Node, spread: _Spread) -> Value:
    shape = spread.x.shape[spread.axis :]
    sizes = [d for d in shape if isinstance(d, int)] if is_static(shape) else [1]
    return constant(graph.fresh(f"{node.name}.scale"), np.ones(sizes, spread.x.dtype.numpy))


# ---- factor and addend ----------------------------------------------------------------------


def _affine(graph: Graph, node: Node) -> Patch | None:
    """A factor or an addend behind a norm that has none yet."""
    for value, other in either_way(node):
        norm = maker(value, *_NORMS)
        if norm is None or graph.only_user(value) is not node or len(norm.outputs) != 1:
            continue
        x = first_input(norm)
        if not known_rank(x) or node.output.type != x.type:
            continue
        axis = int(norm.attrs.get("axis", -1)) % len(x.shape)
        if not _fits(other, x, axis) or other.dtype is not x.dtype:
            continue
        scale = norm.inputs[1]
        if node.op == "Mul" and _is_one(scale) and norm.input(2) is None:
            inputs: list[Value | None] = [x, other]
        elif node.op == "Add" and norm.op == "LayerNormalization" and norm.input(2) is None:
            inputs = [x, scale, other]
        else:
            continue
        made = make(graph, norm.op, inputs, node.output, norm.attrs, sources=[node, norm])
        note = f"{node.name} is the {'scale' if node.op == 'Mul' else 'bias'} of {norm.name}"
        return Patch(note, (node,), (made,), ((node.output, made.output),))
    return None


def _is_one(value: Value | None) -> bool:
    return value is not None and value.data is not None and bool(np.all(value.data == 1))


def _fits(value: Value, x: Value, axis: int) -> bool:
    """Whether a scale or bias varies along the normalised axes only."""
    shape = value.type.shape
    return (
        shape is not None
        and shape == x.shape[len(x.shape) - len(shape) :]
        and (len(shape) <= len(x.shape) - axis)
    )


PASS = Pass("fuse_norms", "norms, activations and attention recognised", find)
