"""What contraction layers have in common: their operands, and what they store of what they sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import VerifyError
from planish.base.expr import Expr, Load, Temp, Var, call, loads_of
from planish.base.shapes import Dim, Shape, evaluate
from planish.graph.graph import Node, Value
from planish.graph.layer import Layer
from planish.kernels.workload import Attr
from planish.lower.expressions import LayerExpressions
from planish.lower.operands import Loop, Operands, Source, renumber, used_sources, walk_strides
from planish.lower.storage import Storage

Attrs = tuple[tuple[str, Attr], ...]
Place = Callable[[Value], Source]


@dataclass
class Contraction:
    """A contraction with its operands, ready to become a workload."""

    op: str
    inputs: list[Source]
    outputs: list[Storage]
    attrs: Attrs
    epilogue: tuple[Expr, ...]
    mask: Expr | None = None  # of an attention


@dataclass
class Branch:
    """One of the layers that a contraction computes: alone, or merged with its siblings."""

    layer: Layer
    value: Value
    target: Storage


def input_of(node: Node, position: int) -> Value:
    """An operand that must be there."""
    value = node.input(position)
    if value is None:
        raise VerifyError(f"{node!r} lacks its input {position}")
    return value


def common_dtype(weights: list[Value], place: Place) -> DType:
    """The type that siblings' weights are stored in together: their own where not all narrowed."""
    stored = {place(w).storage.dtype for w in weights}
    return stored.pop() if len(stored) == 1 else weights[0].dtype


def accumulated(branch: Branch, operands: Operands, bias: int | None) -> Expr:
    """What is stored, given the accumulator: bias, then the epilogue."""
    layer, value = branch.layer, branch.value
    result = layer.anchor.output
    expr: Expr = Temp(0, (), result.dtype)
    at: tuple[Expr, ...] = tuple(Var(f"o{axis}") for axis in range(len(result.shape)))
    addend = layer.anchor.input(bias) if bias is not None else None
    if addend is not None:
        expr = call("add", expr, operands.load(addend, (Var("o1"),)))
    if value is result:
        return expr

    def leaf(read: Value, where: tuple[Expr, ...]) -> Expr:
        return expr if read is result else operands.load(read, where)

    expressions = LayerExpressions(layer, leaf)
    expressions.stop_at(result)
    return expressions.at(value, at)


def addend_walks(
    operands: Operands, exprs: list[Expr], axes: list[int], rank: int
) -> dict[Load, tuple[Dim, ...]] | None:
    """Strides of the epilogues' operands along some output axes; None if one is not simple."""
    all_loops = [Loop(f"o{n}", 0) for n in range(rank)]
    walks: dict[Load, tuple[Dim, ...]] = {}
    for expr in exprs:
        for load in loads_of(expr):
            walk = walk_strides(load, operands.sources[load.tensor], all_loops)
            if walk is None:
                return None
            walks[load] = tuple(walk[a] for a in axes)
        if _reads_position(expr):
            return None
    return walks


def _reads_position(expr: Expr) -> bool:
    """True when the expression uses a loop variable as a number, not only in operand indices."""
    return any(isinstance(e, Var) for e in _outside_loads(expr))


def _outside_loads(expr: Expr) -> list[Expr]:
    found: list[Expr] = [expr]
    args = getattr(expr, "args", ())
    for arg in args:
        found += _outside_loads(arg)
    return found


def reshaped(data: np.ndarray | None, shape: Shape) -> np.ndarray | None:
    """A constant under another shape; constants have static shapes."""
    return None if data is None else np.asarray(data).reshape([evaluate(e, {}) for e in shape])


def finish(
    op: str,
    operands: Operands,
    outputs: list[Storage],
    exprs: list[Expr],
    own: int,
    attrs: Attrs,
    mask: Expr | None = None,
) -> Contraction:
    """Drop operands that nothing reads; an epilogue that stores the accumulator is none."""
    plain = all(
        isinstance(e, Temp) and e.dtype is o.dtype for e, o in zip(exprs, outputs, strict=True)
    )
    masks = [] if mask is None else [mask]
    used, numbers = used_sources([*exprs, *masks], operands.sources, own)
    epilogue = () if plain else tuple(renumber(e, numbers) for e in exprs)
    masks = [renumber(e, numbers) for e in masks]
    return Contraction(op, used, outputs, attrs, epilogue, *masks)
