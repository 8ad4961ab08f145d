"""Activations recognised from their primitive spellings.

    x · 0.5 · (1 + Erf(x / √2))                                  becomes   Gelu(x)
    0.5 · x · (1 + Tanh(√(2/π) · (x + 0.044715 · x³)))           becomes   Gelu(x, tanh)
    x · Clip(x + 3, 0, 6) / 6,  x · HardSigmoid(x)               becomes   HardSwish(x)
    Clip(x + 3, 0, 6) / 6                                        becomes   HardSigmoid(x)

The order of factors, and how squares and cubes are spelled, does not matter: what a group of nodes
computes from x is evaluated at some hundred places and compared with the activation. Two of the
functions above differ by 5e-4 somewhere; a group matches within 3e-6.

Not handled: constants that vary over the tensor; groups that leave float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from planish.graph.graph import Graph, Node, Patch, Value
from planish.passes.match import between, known_rank, make, scalar
from planish.passes.rewrite import Pass

_POINTS = np.concatenate([np.linspace(-12.3, 12.7, 101), [0.0, -1e-3, 1e-3, 40.0, -40.0]])
_TOLERANCE = 3e-6
_DEPTH = 8  # nodes from an activation's input or output to its characteristic node
Curve = np.ndarray

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu_tanh(x: Curve) -> Curve:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _hard_sigmoid(x: Curve, alpha: float = 0.2, beta: float = 0.5) -> Curve:
    return np.asarray(np.clip(alpha * x + beta, 0, 1))


# (operator, attributes, what it computes, operators one of which every spelling has)
_TARGETS: tuple[tuple[str, dict[str, Any], Curve, frozenset[str]], ...] = (
    ("Gelu", {}, 0.5 * _POINTS * (1 + _erf(_POINTS / math.sqrt(2))), frozenset(("Erf",))),
    ("Gelu", {"approximate": "tanh"}, _gelu_tanh(_POINTS), frozenset(("Tanh",))),
    ("HardSwish", {}, _POINTS * _hard_sigmoid(_POINTS, 1 / 6), frozenset(("Clip", "HardSigmoid"))),
    (
        "HardSigmoid",
        {"alpha": 1 / 6, "beta": 0.5},
        _hard_sigmoid(_POINTS, 1 / 6),
        frozenset(("Clip",)),
    ),
)
_MARKS = frozenset().union(*(marks for *_, marks in _TARGETS))


def _power(a: Curve, b: Curve) -> Curve:
    return np.asarray(np.power(a, b))


def _clip(node: Node, args: list[Curve]) -> Curve:
    low, high = (np.asarray(-np.inf), np.asarray(np.inf))
    bounds = dict(zip((n for n, v in enumerate(node.inputs) if v is not None), args, strict=True))
    return np.asarray(np.clip(args[0], bounds.get(1, low), bounds.get(2, high)))


def _plain(function: Callable[..., Curve]) -> Callable[[Node, list[Curve]], Curve]:
    return lambda node, args: function(*args)


_FUNCTIONS: dict[str, Callable[[Node, list[Curve]], Curve]] = {
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Div": _plain(np.divide),
    "Pow": _plain(_power),
    "Neg": _plain(np.negative),
    "Erf": _plain(_erf),
    "Tanh": _plain(np.tanh),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Clip": _clip,
    "HardSigmoid": lambda node, args: _hard_sigmoid(
        args[0], node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)
    ),
}


def find(graph: Graph) -> Iterator[Patch]:
    """Groups of pointwise nodes that compute an activation, the largest first."""
    for node in graph.nodes:
        if node.op not in _MARKS or not graph.holds(node) or not known_rank(*node.outputs):
            continue
        patch = _recognised(graph, node)
        if patch is not None:
            yield patch


def _recognised(graph: Graph, mark: Node) -> Patch | None:
    sources = _below(mark)
    for end in reversed(_above(graph, mark)):
        for x in sources:
            if x.type != end.output.type or not x.dtype.is_float:
                continue
            curve = _evaluate(end.output, x, {})
            if curve is None:
                continue
            for op, attrs, wanted, marks in _TARGETS:
                if mark.op in marks and _equal(curve, wanted):
                    return _replaced(graph, end, x, op, attrs)
    return None


def _replaced(graph: Graph, end: Node, x: Value, op: str, attrs: dict[str, Any]) -> Patch | None:
    made = make(graph, op, [x], end.output, attrs, sources=between(end, {x}))
    note = f"{end.name} and what leads to it is {op} of {x.name}"
    return Patch(note, (end,), (made,), ((end.output, made.output),))


def _equal(curve: Curve, wanted: Curve) -> bool:
    return bool(np.all(np.abs(curve - wanted) <= _TOLERANCE * (1 + np.abs(wanted))))


def _above(graph: Graph, mark: Node) -> list[Node]:
    """The characteristic node's readers and theirs, nearest first; those that may end a group."""
    found: dict[Node, None] = {}
    nearest = [mark]
    for _ in range(_DEPTH):
        users = [user for node in nearest for user in graph.users(node.output)]
        nearest = [u for u in dict.fromkeys(users) if u.op in _FUNCTIONS and u not in found]
        if not nearest or len(found) > _DEPTH:
            break
        found.update(dict.fromkeys(nearest))
    return list(found)


def _below(mark: Node) -> list[Value]:
    """Values that the characteristic node is computed from, nearest first."""
    found: dict[Value, None] = {}
    pending = [v for v in mark.inputs if v is not None and not v.is_const]
    while pending and len(found) < _DEPTH:
        value = pending.pop(0)
        found[value] = None
        if value.producer is not None and value.producer.op in _FUNCTIONS:
            read = (v for v in value.producer.inputs if v is not None and not v.is_const)
            pending += [v for v in read if v not in found]
    return list(found)


def _evaluate(value: Value, x: Value, known: dict[Value, Curve | None]) -> Curve | None:
    """A value at the sample points, as a function of x; None if it depends on anything else."""
    if value is x:
        return _POINTS
    if value not in known:
        known[value] = None
        number = scalar(value)
        node = value.producer
        if number is not None:
            known[value] = np.asarray(number)
        elif node is not None and node.op in _FUNCTIONS and len(known) < 4 * _DEPTH:
            args = [_evaluate(v, x, known) for v in node.inputs if v is not None]
            there = [arg for arg in args if arg is not None]
            if len(there) == len(args):
                with np.errstate(all="ignore"):
                    known[value] = _FUNCTIONS[node.op](node, there)
    return known[value]


PASS = Pass("fuse_activations", "norms, activations and attention recognised", find)
