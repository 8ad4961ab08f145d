"""Sizes that follow from shapes: what computes them goes.

    x[N,768,14,14] ─ Shape ─ Gather ─ Mul ─ Concat ─┐
    x ──────────────────────────────────────────────┴ Reshape   becomes   x ─ Reshape([0, 768, -1])

    x[N,4] ─ Shape ─ Concat ─┐
    token ───────────────────┴ Expand             becomes   token ─ Expand(sizes [N,1,4])

Sizes that are plain numbers are constants (fold_constants). Those with symbols become operands
that no node computes, wherever the native form of an operator does not read them: its result's
shape says it all. A Reshape gets a constant if 0 and one -1 can say it.

Not handled: sizes read as data, and sizes of nodes that run on the host; they stay computed.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.base.expr import Expr, Var, loads_of
from planish.base.nest import Nest
from planish.graph.graph import Graph, Node, Patch, Value, known_sizes
from planish.graph.infer import args_of, op_of
from planish.passes.fuse_layers import native_reason
from planish.passes.match import first_input, make
from planish.passes.rewrite import Pass
from planish.passes.view_map import reshape_target


def find(graph: Graph) -> Iterator[Patch]:
    """Nodes that get sizes from other nodes and do not read them."""
    for node in graph.nodes:
        computed = [n for n, v in enumerate(node.inputs) if _is_computed(v)]
        if not computed or len(node.outputs) != 1 or native_reason(node) is not None:
            continue
        folded = [n for n in computed if n not in _positions_read(node)]
        if not folded:
            continue
        inputs = list(node.inputs)
        for position in folded:
            inputs[position] = _sizes(graph, node, position)
        made = make(graph, node.op, inputs, node.output, node.attrs, sources=[node])
        made.output.dims = node.output.dims
        note = f"{node.name}: its sizes are known"
        yield Patch(note, (node,), (made,), ((node.output, made.output),))


def _is_computed(value: Value | None) -> bool:
    """Whether a node makes this value although its contents are known as sizes."""
    return value is not None and value.producer is not None and value.dims is not None


def _sizes(graph: Graph, node: Node, position: int) -> Value:
    value = node.inputs[position]
    assert value is not None and value.dims is not None
    if node.op == "Reshape" and not node.attrs.get("allowzero"):
        return reshape_target(graph, first_input(node).shape, node.output.shape, node.name)
    return known_sizes(graph.fresh(value.name), value.dims, value.type)


def _positions_read(node: Node) -> set[int]:
    """The operands that the native form of a node loads from."""
    op = op_of(node)
    assert op is not None
    args = args_of(node)
    if op.nest is not None:
        return {
            load.tensor for expr in _exprs(op.nest(args, node.attrs)) for load in loads_of(expr)
        }
    at = tuple(Var(f"o{axis}") for axis in range(len(node.output.shape)))
    if op.element is not None:
        return {load.tensor for load in loads_of(op.element(args, node.attrs, 0, at))}
    if op.reduce is not None:
        made = op.reduce(args, node.attrs, 0, at)
        loads = [*loads_of(made.body), *(loads_of(made.finish) if made.finish else ())]
        return {load.tensor for load in loads}
    return set(range(len(node.inputs)))


def _exprs(nest: Nest) -> list[Expr]:
    exprs = [stage.expr for stage in nest.stages]
    return exprs + [e for stage in nest.stages if stage.store for e in stage.store.index]


PASS = Pass("fold_sizes", "constants folded", find)
