"""Types of every value, from the operators' own declarations. Symbolic dims stay exact."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import ModelError, PlanishError
from planish.base.expr import Const, Expr, Var, index, loads_of
from planish.base.shapes import Shape, Sym, symbols_of
from planish.graph.graph import Graph, Node, TensorType, Value, unknown_sizes
from planish.ops.op import Arg, Fact, Op, Result, is_unknown, name_unknowns
from planish.ops.table import OPS

MOST_ELEMENTS = 1 << 40  # of a tensor
_SMALL = 64  # elements of an integer tensor that may stand for sizes


def arg_of(value: Value | None) -> Arg | None:
    """What an operator may know of a value."""
    if value is None:
        return None
    dims = value.dims
    if dims is None and value.data is not None and value.dtype.is_integer:
        data = np.asarray(value.data)
        if data.ndim <= 1 and data.size <= _SMALL:
            dims = tuple(int(v) for v in data.reshape(-1))
    return Arg(value.dtype, value.type.shape, value.data, dims)


def args_of(node: Node) -> list[Arg | None]:
    """What an operator may know of its inputs."""
    return [arg_of(value) for value in node.inputs]


def op_of(node: Node) -> Op | None:
    """The declaration of a node's operator; None for one that planish does not know."""
    return OPS.get(node.op)


def infer_types(graph: Graph, nodes: Iterable[Node] | None = None) -> None:
    """Set the types (and carried sizes) of what the nodes make.

    Args:
        graph: The graph.
        nodes: Which nodes, in topological order; None: all.

    Raises:
        ModelError: Operators that do not accept their inputs; lists all of them.
    """
    problems: list[str] = []
    for node in graph.nodes if nodes is None else nodes:
        try:
            results = results_of(node)
        except PlanishError as error:
            problems.append(f"node {node.name!r} ({node.op}): {error.message}")
            continue
        for value, result in zip(node.outputs, results, strict=False):
            if value is not None:
                settle(value, result)
    if problems:
        raise ModelError("operators do not accept their inputs:", problems)


def settle(value: Value, result: Result) -> None:
    """Give a value its type and contents."""
    value.type = settled_type(value.type, result)
    value.dims = result.dims


def settled_type(known: TensorType, result: Result) -> TensorType:
    """The type of a result; what the operator cannot tell, the model may have stated before."""
    stated, shape = known.shape, result.shape
    if shape is None:
        shape = stated
    elif stated is not None and len(stated) == len(shape):
        shape = tuple(
            s if isinstance(s, int) and isinstance(d, Sym) and any(map(is_unknown, symbols_of(d)))
            else d
            for d, s in zip(shape, stated, strict=True)
        )  # fmt: skip
    return TensorType(result.dtype, shape)


def infer_from(graph: Graph, nodes: Iterable[Node]) -> None:
    """Infer anew what some nodes make, and what that changes for the nodes behind them.

    Args:
        graph: The graph.
        nodes: Where to start, in topological order.

    Raises:
        ModelError: An operator does not accept its inputs.
    """
    pending = deque(nodes)
    waiting = set(pending)
    while pending:
        node = pending.popleft()
        waiting.discard(node)
        before = [(v.type, v.dims) for v in node.outputs if v is not None]
        infer_types(graph, [node])
        made = [v for v in node.outputs if v is not None]
        for value, old in zip(made, before, strict=True):
            if (value.type, value.dims) != old:
                pending += [user for user in graph.users(value) if user not in waiting]
                waiting.update(graph.users(value))


def results_of(node: Node) -> list[Result]:
    """What is known of a node's outputs before running; [] for an operator that planish lacks.

    Raises:
        ModelError: The operator does not accept its inputs, or has fewer outputs than the node.
    """
    op = op_of(node)
    if op is None:
        return []
    if not op.opaque and any(v is not None and v.dtype is DType.OBJECT for v in node.inputs):
        return []
    first = next((value.name for value in node.outputs if value is not None), node.name)
    results = name_unknowns(op.infer(args_of(node), node.attrs), first)
    if results and len(results) < len(node.outputs):
        raise ModelError(f"{node.op} gives {len(results)} outputs here, not {len(node.outputs)}")
    for result in results:
        _check_size(result.shape or ())
    return results


def _check_size(shape: Shape) -> None:
    """Refuse what no memory holds, before anything counts to it."""
    static = [dim for dim in shape if isinstance(dim, int)]
    if min(static, default=0) < 0 or math.prod(static) > MOST_ELEMENTS:
        raise ModelError(
            f"a result of shape {list(shape)}, expected sizes from 0 and {MOST_ELEMENTS} elements "
            "at most"
        )


def facts_of(graph: Graph) -> tuple[Fact, ...]:
    """What must hold between sizes for the graph's results to be right, each fact once.

    So must the sizes that the model states where only data tell them.
    """
    facts: dict[Fact, None] = {}
    told = {name for node in graph.nodes for v in node.outputs for name in unknown_sizes(v)}
    for node in graph.nodes:
        for value, result in zip(node.outputs, results_of(node), strict=False):
            facts |= dict.fromkeys(result.facts)
            stated_shape = None if value is None else value.type.shape
            for dim, stated in zip(result.shape or (), stated_shape or (), strict=False):
                if isinstance(dim, Sym) and isinstance(stated, int) and symbols_of(dim) <= told:
                    facts[Fact("equal", dim, stated)] = None  # the model says so
    return tuple(facts)


def element_of(node: Node, output: int, at: tuple[Expr, ...]) -> Expr:
    """The output element of an `element` operator at an index."""
    op = op_of(node)
    if op is None or op.element is None:
        raise ValueError(f"{node!r} declares no element")
    return op.element(args_of(node), node.attrs, output, at)


def is_pointwise(node: Node) -> bool:
    """True when each output element depends on its inputs at the same (broadcast) index only."""
    op = op_of(node)
    if op is None or op.element is None or len(node.outputs) != 1:
        return False
    if any(v is not None and v.type.shape is None for v in (*node.inputs, *node.outputs)):
        return False
    if op.refuse is not None and op.refuse(args_of(node), node.attrs):
        return False
    shape = node.output.shape
    at = tuple(Var(f"o{axis}") for axis in range(len(shape)))
    expr = op.element(args_of(node), node.attrs, 0, at)
    for load in loads_of(expr):
        operand = node.inputs[load.tensor]
        if operand is None:
            return False
        missing = len(shape) - len(operand.shape)
        if missing < 0:
            return False
        for axis, (extent, where) in enumerate(zip(operand.shape, load.index, strict=True)):
            same = where == at[axis + missing]
            if not same and not (extent == 1 and where in (index(0), Const(0, where.dtype))):
                return False
    return True
