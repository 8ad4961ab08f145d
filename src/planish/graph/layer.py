"""A layer: a group of nodes that will run as one kernel."""

from __future__ import annotations

from dataclasses import dataclass, field

from planish.graph.graph import Graph, Node, Value, read_values


@dataclass(eq=False)
class Layer:
    """An anchor with what is fused before and after it. Compared by identity.

    Attributes:
        kind: How it is lowered: an anchor's workload op ("conv", "matmul", …), "loop" (pointwise,
            reductions and nests), "view" (moves no data where strides allow), "concat", "host".
        anchor: The node that decides the kernel.
        nodes: All nodes in topological order, the anchor among them.
        siblings: The layers merged into this one, which share its input; () for a layer alone.
    """

    kind: str
    anchor: Node
    nodes: list[Node]
    siblings: tuple[Layer, ...] = field(default=())

    @property
    def name(self) -> str:
        """The names of its nodes joined, as builders' logs print fused layers."""
        if self.siblings:
            return " || ".join(layer.name for layer in self.siblings)
        return " + ".join(node.name for node in self.nodes)

    @property
    def origin(self) -> tuple[str, ...]:
        """The ONNX nodes it stands for."""
        return tuple(dict.fromkeys(o for node in self.nodes for o in node.origin))

    def inputs(self) -> list[Value]:
        """Values read from outside, constants included, each once."""
        made = {id(v) for node in self.nodes for v in node.outputs if v is not None}
        read = [v for node in self.nodes for v in read_values(node) if id(v) not in made]
        return list(dict.fromkeys(read))

    def outputs(self, graph: Graph) -> list[Value]:
        """Values that are read outside or are graph outputs."""
        mine = set(map(id, self.nodes))
        made = [v for node in self.nodes for v in node.outputs if v is not None]
        return [
            v
            for v in made
            if graph.is_output(v) or any(id(user) not in mine for user in graph.users(v))
        ]


def sort_layers(layers: list[Layer]) -> list[Layer]:
    """Order layers so that each reads only what earlier ones made; stable.

    Raises:
        ValueError: Two layers need each other: a grouping was wrong.
    """
    owner = {id(v): layer for layer in layers for n in layer.nodes for v in n.outputs if v}
    ordered: list[Layer] = []
    state: dict[int, int] = {}
    for root in layers:
        stack = [(root, False)]
        while stack:
            layer, ready = stack.pop()
            if ready:
                state[id(layer)] = 2
                ordered.append(layer)
                continue
            if state.get(id(layer)) == 2:
                continue
            if state.get(id(layer)) == 1:
                raise ValueError(f"layers around {layer.name!r} need each other")
            state[id(layer)] = 1
            stack.append((layer, True))
            for value in reversed(layer.inputs()):
                maker = owner.get(id(value))
                if maker is not None and maker is not layer and state.get(id(maker)) != 2:
                    if state.get(id(maker)) == 1:
                        raise ValueError(
                            f"layers {layer.name!r} and {maker.name!r} need each other"
                        )
                    stack.append((maker, False))
    return ordered
