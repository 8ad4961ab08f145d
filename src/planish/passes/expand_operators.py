"""Replace composite operators by the primitive ones that they are defined by.

    x ─ BatchNormalization        becomes    x ─ Mul(scale / √(var + ε)) ─ Add(…)
    x ─ Gemm                      becomes    x ─ MatMul ─ Add

So one rewrite of Mul and Add serves them all. Operators with a kernel of their own stay.

Not handled: nodes whose ranks are unknown, and whatever the operator's own expansion refuses.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import args_of, op_of
from planish.ops.op import Primitive
from planish.passes.match import known_rank
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Composite nodes whose expansion is known."""
    for node in graph.nodes:
        op = op_of(node)
        if op is None or op.expand is None or not graph.holds(node):
            continue
        if not known_rank(*node.inputs):
            continue
        patch = _expansion(graph, node)
        if patch is not None:
            yield patch


def _expansion(graph: Graph, node: Node) -> Patch | None:
    op = op_of(node)
    assert op is not None and op.expand is not None
    found = op.expand(args_of(node), node.attrs)
    if found is None:
        return None
    primitives = _needed(found, {f"out{n}" for n, v in enumerate(node.outputs) if v is not None})
    known: dict[str, Value | None] = {str(n): v for n, v in enumerate(node.inputs)}
    nodes: list[Node] = []
    for primitive in primitives:
        inputs: list[Value | None] = []
        for source in primitive.inputs:
            if isinstance(source, np.ndarray):
                inputs.append(constant(graph.fresh(f"{node.name}.const"), source))
            else:
                inputs.append(None if source is None else known[source])
        outputs = [
            Value(graph.fresh(f"{node.name}.{name}"), TensorType(DType.F32, None))
            for name in primitive.outputs
        ]
        known |= dict(zip(primitive.outputs, outputs, strict=True))
        nodes.append(
            Node(primitive.op, inputs, outputs, dict(primitive.attrs),
                 name=f"{node.name}.{primitive.op}", origin=node.origin)
        )  # fmt: skip
    pairs = []
    for number, value in enumerate(node.outputs):
        if value is not None:
            made = known[f"out{number}"]
            assert made is not None
            pairs.append((value, made))
    note = f"{node.name}: {node.op} as {' + '.join(n.op for n in nodes)}"
    return Patch(note, remove=(node,), add=tuple(nodes), replace=tuple(pairs))


def _needed(primitives: list[Primitive], wanted: set[str]) -> list[Primitive]:
    """The primitives that lead to the results that somebody wants."""
    needed: list[Primitive] = []
    for primitive in reversed(primitives):
        if not wanted.isdisjoint(primitive.outputs):
            needed.insert(0, primitive)
            wanted |= {name for name in primitive.inputs if isinstance(name, str)}
    return needed


PASS = Pass("expand_operators", "composite operators expanded", find)
