"""The graph's plain twin: everything that must hold of one, checked from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import PlanishError, VerifyError
from planish.graph.graph import Graph, Node, TensorType, Value, read_values
from planish.graph.infer import results_of, settled_type


def verify(graph: Graph, *, types: bool = True) -> None:
    """Check a graph.

    - Each value has one producer, which stands before all its readers.
    - No two values, and no two nodes, have one name.
    - Constants fit their types; types of results are what the operators give (with `types`).
    - The index of readers is complete and has nothing else in it.
    - Graph outputs are made by a node, constant, or graph inputs.

    Args:
        graph: The graph. Graphs in attributes are checked with it, but for their types, which
            may change from one run of the body to the next.
        types: Infer every type anew and compare.

    Raises:
        VerifyError: Something does not hold; the message lists all of it.
    """
    problems = list(_problems(graph, set(), types))
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise VerifyError(f"graph {graph.name!r} is malformed:{lines}")


def _problems(graph: Graph, outer: set[Value], types: bool) -> Iterator[str]:
    known = outer | set(graph.inputs)
    for value in graph.inputs:
        if value.producer is not None:
            yield f"graph input {value.name!r} is made by {value.producer!r}"
    for node in graph.nodes:
        yield from _reads(node, known)
        yield from _bodies(node, known)
        yield from _results(node, known)
        if types:
            yield from _types(node)
        known |= {value for value in node.outputs if value is not None}
    for value in graph.outputs:
        if value not in known and not value.is_const:
            yield f"graph output {value.name!r} is made by no node of the graph"
    yield from _names(graph)
    yield from _users(graph)


def _reads(node: Node, known: set[Value]) -> Iterator[str]:
    for value in node.inputs:
        if value is None or value in known:
            continue
        if value.is_const:
            yield from _constant(value)
        elif not value.is_sizes:
            maker = f"made by {value.producer!r} behind it" if value.producer else "made by nothing"
            yield f"{node!r} reads {value.name!r}, which is {maker}"


def _constant(value: Value) -> Iterator[str]:
    data = np.asarray(value.data)
    found = TensorType(DType.from_numpy(data.dtype), tuple(data.shape))
    if found != value.type:
        yield f"constant {value.name!r} has type {value.type}, its contents are {found}"


def _bodies(node: Node, known: set[Value]) -> Iterator[str]:
    for name, body in node.attrs.items():
        if isinstance(body, Graph):
            for problem in _problems(body, known, False):
                yield f"{name} of {node!r}: {problem}"


def _results(node: Node, known: set[Value]) -> Iterator[str]:
    for value in node.outputs:
        if value is None:
            continue
        if value in known:
            yield f"{node!r} makes {value.name!r}, which exists already"
        if value.producer is not node:
            yield f"{node!r} makes {value.name!r}, whose producer is {value.producer!r}"
        if value.is_const:
            yield f"{node!r} makes {value.name!r}, which is a constant"


def _types(node: Node) -> Iterator[str]:
    try:
        results = results_of(node)
    except PlanishError as error:
        yield f"{node!r}: {error.message}"
        return
    for value, result in zip(node.outputs, results, strict=False):
        if value is None:
            continue
        kind = settled_type(value.type, result)
        if kind != value.type:
            yield f"{value.name!r} has type {value.type}, {node!r} gives {kind}"
        elif value.dims != result.dims:
            yield f"{value.name!r} has the contents {value.dims}, {node!r} gives {result.dims}"


def _names(graph: Graph) -> Iterator[str]:
    values = _repeated(value.name for value in graph.values())
    yield from (f"two values are called {name!r}" for name in values)
    yield from (f"two nodes are called {n!r}" for n in _repeated(node.name for node in graph.nodes))


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def _users(graph: Graph) -> Iterator[str]:
    readers: dict[Value, dict[Node, None]] = {}
    for node in graph.nodes:
        for value in read_values(node):
            readers.setdefault(value, {})[node] = None
    for value in {**dict.fromkeys(graph.values()), **dict.fromkeys(readers)}:
        found, expected = set(graph.users(value)), set(readers.get(value, ()))
        if found != expected:
            yield (
                f"readers of {value.name!r} are {sorted(n.name for n in expected)}, the index has "
                f"{sorted(n.name for n in found)}"
            )
