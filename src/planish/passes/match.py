"""What finders ask of values and nodes, and how they make new ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from planish.graph.graph import Graph, Node, TensorType, Value, constant
from planish.graph.infer import is_pointwise

_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
     "Bernoulli")
)  # fmt: skip


def maker(value: Value | None, *ops: str) -> Node | None:
    """The node that makes a value, if it is one of some operators (of any, where none is named)."""
    node = None if value is None else value.producer
    return node if node is not None and (not ops or node.op in ops) else None


def scalar(value: Value | None) -> float | None:
    """The number that a constant of one element holds."""
    if value is None or value.data is None or value.data.size != 1:
        return None
    if value.data.dtype.kind not in "biuf" and not value.dtype.is_float:
        return None
    return float(np.asarray(value.data).reshape(-1)[0])


def ints(value: Value | None) -> tuple[int, ...] | None:
    """The integers that a constant holds."""
    if value is None or value.data is None or not value.dtype.is_integer:
        return None
    return tuple(int(v) for v in np.asarray(value.data).reshape(-1))


def either_way(node: Node) -> Iterator[tuple[Value, Value]]:
    """The operands of a node with two of them, in both orders."""
    if len(node.inputs) == 2:
        left, right = node.inputs
        if left is not None and right is not None:
            yield left, right
            yield right, left


def with_constant(node: Node) -> tuple[Value, Value] | None:
    """The operand and the constant of a node with two operands of which one is constant."""
    for value, other in either_way(node):
        if other.is_const and not value.is_const:
            return value, other
    return None


def first_input(node: Node) -> Value:
    """The first operand, for operators that need one.

    Raises:
        ValueError: It is left out.
    """
    value = node.input(0)
    if value is None:
        raise ValueError(f"{node!r} lacks its first input")
    return value


def known_rank(*values: Value | None) -> bool:
    """True when the shapes of all values that are there have a known rank."""
    return all(value is None or value.type.shape is not None for value in values)


def is_random(node: Node) -> bool:
    """Whether a node, or one of its bodies, gives something else each time."""
    training = node.input(2) if node.op == "Dropout" else None
    if node.op in _RANDOM or (training is not None and scalar(training) != 0):
        return True
    bodies = (attr for attr in node.attrs.values() if isinstance(attr, Graph))
    return any(is_random(inner) for body in bodies for inner in body.nodes)


def is_unary(node: Node) -> bool:
    """Whether a node computes each element from that of its first operand and from numbers."""
    others = [v for v in node.inputs[1:] if v is not None]
    if len(node.outputs) != 1 or any(v.data is None or v.data.size != 1 for v in others):
        return False
    if "axis" in node.attrs or node.op == "Identity" or not is_pointwise(node):
        return False
    return node.output.shape == first_input(node).shape


def between(node: Node, sources: Collection[Value]) -> list[Node]:
    """The nodes that lead from some values to a node, that node last."""
    found: dict[Node, None] = {}
    pending = [node]
    while pending:
        current = pending.pop()
        if current in found:
            continue
        found[current] = None
        read = (v for v in current.inputs if v is not None and v not in sources)
        pending += [v.producer for v in read if v.producer is not None]
    return [*(n for n in found if n is not node), node]


def origins(*nodes: Node) -> tuple[str, ...]:
    """The ONNX nodes that some nodes came from."""
    return tuple(dict.fromkeys(name for node in nodes for name in node.origin))


def make(
    graph: Graph,
    op: str,
    inputs: Sequence[Value | None],
    like: Value,
    attrs: Mapping[str, Any] | None = None,
    *,
    sources: Iterable[Node],
    name: str = "",
) -> Node:
    """A new node with one output of a value's type.

    Args:
        graph: The graph it is for.
        op: Operator name.
        inputs: Its inputs.
        like: A value whose type, and name where that gets free, the output has.
        attrs: Attributes.
        sources: Nodes whose origins it inherits.
        name: Its name; that of the last of `sources` where none is given.
    """
    nodes = list(sources)
    out = Value(graph.fresh(like.name), TensorType(like.dtype, like.type.shape))
    return Node(op, inputs, [out], attrs, name=name or nodes[-1].name, origin=origins(*nodes))


def number(graph: Graph, hint: str, value: Any, like: Value) -> Value:
    """A new constant of a value's dtype."""
    return constant(graph.fresh(hint), np.asarray(value, dtype=like.dtype.numpy))


def indices(graph: Graph, hint: str, values: Iterable[int]) -> Value:
    """A new constant of i64 numbers."""
    return constant(graph.fresh(hint), np.array(list(values), dtype=np.int64))
