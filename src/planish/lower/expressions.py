"""The nodes of a layer as one expression over what it reads from outside."""

from __future__ import annotations

from collections.abc import Callable

from planish.base.expr import Const, Expr, Load, Temp, const, index, replace_loads
from planish.base.shapes import Shape
from planish.graph.graph import Value
from planish.graph.infer import element_of
from planish.graph.layer import Layer

At = tuple[Expr, ...]
Leaf = Callable[[Value, At], Expr]


class LayerExpressions:
    """Builds expressions of the values inside a layer.

    Args:
        layer: The layer.
        leaf: The expression of a value from outside, or of the anchor's accumulator, at an index.
    """

    def __init__(self, layer: Layer, leaf: Leaf) -> None:
        self._inside = {id(v): n for n in layer.nodes for v in n.outputs if v is not None}
        self._leaf = leaf
        self._done: dict[tuple[int, At], Expr] = {}
        self._stop: set[int] = set()

    def stop_at(self, value: Value) -> None:
        """Treat a value made inside the layer as a leaf."""
        self._stop.add(id(value))

    def at(self, value: Value, where: At) -> Expr:
        """The element of a value at an index."""
        key = (id(value), where)
        if key not in self._done:
            self._done[key] = self._build(value, where)
        return self._done[key]

    def _build(self, value: Value, where: At) -> Expr:
        if value.data is not None and value.data.size == 1:
            return scalar(value)
        node = self._inside.get(id(value))
        if node is None or id(value) in self._stop:
            return self._leaf(value, where)
        number = next(i for i, v in enumerate(node.outputs) if v is value)
        expr = element_of(node, number, where)
        return self.inline(expr, node.inputs)

    def inline(self, expr: Expr, inputs: list[Value | None]) -> Expr:
        """Replace an operator's own operand numbers by what those inputs are."""

        def visit(load: Load) -> Expr:
            source = inputs[load.tensor]
            if source is None:
                raise ValueError(f"an operator loads input {load.tensor}, which is left out")
            return self.at(source, load.index)

        return replace_loads(expr, visit)


def scalar(value: Value) -> Const:
    """A one-element constant as a literal."""
    assert value.data is not None
    return const(value.data.reshape(-1)[0], value.dtype)


def accumulator(value: Value) -> Temp:
    """The anchor's result inside an epilogue."""
    return Temp(0, (), value.dtype)


def broadcast_index(shape: Shape, at: At) -> At:
    """The index of a broadcast operand of this shape for an output index."""
    missing = len(at) - len(shape)
    zero = index(0)
    return tuple(zero if e == 1 else at[missing + axis] for axis, e in enumerate(shape))
