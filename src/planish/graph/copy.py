"""A copy of a graph, to be changed while the original stays. Contents of constants are shared."""

from __future__ import annotations

from typing import Any

from planish.graph.graph import Graph, Node, Value


def copy_graph(graph: Graph) -> tuple[Graph, dict[Value, Value], dict[Node, Node]]:
    """Copy a graph.

    Returns:
        The copy, and for each value and node of the original its copy.
    """
    values: dict[Value, Value] = {}
    nodes: dict[Node, Node] = {}
    made = _copied(graph, values, nodes)
    return made, values, nodes


def _copied(graph: Graph, values: dict[Value, Value], nodes: dict[Node, Node]) -> Graph:
    inputs = [_value(v, values) for v in graph.inputs]
    listed = []
    for node in graph.nodes:
        made = Node(
            node.op,
            [None if v is None else _value(v, values) for v in node.inputs],
            [None if v is None else _value(v, values) for v in node.outputs],
            {name: _attr(attr, values, nodes) for name, attr in node.attrs.items()},
            name=node.name,
            origin=node.origin,
        )
        nodes[node] = made
        listed.append(made)
    outputs = [_value(v, values) for v in graph.outputs]
    history, symbols = list(graph.history), dict(graph.symbols)
    return Graph(graph.name, inputs, outputs, listed, history, symbols, graph.folded)


def _value(value: Value, values: dict[Value, Value]) -> Value:
    if value not in values:
        made = Value(value.name, value.type, value.data)
        made.dims = value.dims
        values[value] = made
    return values[value]


def _attr(attr: Any, values: dict[Value, Value], nodes: dict[Node, Node]) -> Any:
    return _copied(attr, values, nodes) if isinstance(attr, Graph) else attr
