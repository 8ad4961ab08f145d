"""Two nodes of one kind in a row, where one would do.

    x ─ Cast(f64) ─ Cast(i32)                becomes   x ─ Cast(i32), where f64 holds every x
    x ─ Relu ─ Clip(-1, 6)                   becomes   x ─ Clip(0, 6)
    x ─ Max(0) ─ Min(6)                      becomes   x ─ Clip(0, 6)
    x ─ Pad(a) ─ Pad(b)                      becomes   x ─ Pad(a + b), with one constant value
    x ─ Add(a) ─ Add(b), x ─ Mul(a) ─ Mul(b) becomes   x ─ Add(a + b), x ─ Mul(a · b)
    x ─ Relu ─ Relu, Abs ─ Abs, Floor ─ …    becomes   x ─ Relu, …
    x ─ Neg ─ Neg, Not ─ Not                 becomes   x

Sums of i32 wrap around alike, joined or not. Not handled: a first node that others read too; Clip
with bounds that are computed; pads that cut; constants that widen each other, or whose sum or
product is too large or too small for a number; sums of other integers. Reshape and Transpose: see
join_views. Concat: see simplify_concats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, Value
from planish.passes.match import first_input, indices, ints, make, number, scalar, with_constant
from planish.passes.rewrite import Pass

_IDEMPOTENT = frozenset(("Relu", "Abs", "Floor", "Ceil", "Round", "Sign"))
_INVOLUTIONS = frozenset(("Neg", "Not"))
_WHOLE = 2.0**53  # whole numbers beyond it do not survive as floats
_BOUNDS = frozenset(("Relu", "Clip", "Max", "Min"))


def find(graph: Graph) -> Iterator[Patch]:
    """Pairs, each found at its second node."""
    for node in graph.nodes:
        if not graph.holds(node):
            continue
        before = _before(graph, node)
        if before is None:
            continue
        patches = (rule(graph, before, node) for rule in _RULES.get(node.op, ()))
        patch = next((patch for patch in patches if patch is not None), None)
        if patch is not None:
            yield patch


def _before(graph: Graph, node: Node) -> Node | None:
    """The node whose result only this one reads; one that is no constant operand."""
    alone = (v.producer for v in node.inputs if v is not None and graph.only_user(v) is node)
    return next((maker for maker in alone if maker is not None), None)


def _joined(graph: Graph, before: Node, node: Node, made: Node) -> Patch:
    note = f"{before.name} and {node.name} joined into {made.op}"
    return Patch(note, (node,), (made,), ((node.output, made.output),))


# ---- casts --------------------------------------------------------------------------------------


def _casts(graph: Graph, before: Node, node: Node) -> Patch | None:
    if before.op != "Cast":
        return None
    source = first_input(before)
    if not holds_all(first_input(node).dtype, source.dtype):
        return None
    attrs = dict(node.attrs)
    made = make(graph, "Cast", [source], node.output, attrs, sources=[before, node])
    return _joined(graph, before, node, made)


def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether every number of one dtype has the same value in another."""
    if wide is narrow or narrow is DType.BOOL:
        return wide is narrow or wide.is_float or wide.is_integer
    if not (wide.is_float or wide.is_integer) or not (narrow.is_float or narrow.is_integer):
        return False
    if narrow.is_float:
        return (wide, narrow) in _FLOAT_PAIRS
    whole = narrow.bits - narrow.is_signed  # bits of the magnitude
    if wide.is_float:
        return whole <= _MANTISSA.get(wide, 0)
    return whole <= wide.bits - wide.is_signed and (wide.is_signed or not narrow.is_signed)


_MANTISSA = {DType.F64: 53, DType.F32: 24, DType.F16: 11, DType.BF16: 8}
_FLOAT_PAIRS = {
    (DType.F64, DType.F32),
    (DType.F64, DType.F16),
    (DType.F64, DType.BF16),
    (DType.F32, DType.F16),
    (DType.F32, DType.BF16),
}

# ---- bounds -------------------------------------------------------------------------------------


def _clips(graph: Graph, before: Node, node: Node) -> Patch | None:
    inner, outer = bounds_of(before), bounds_of(node)
    if inner is None or outer is None or inner[0].dtype is not node.output.dtype:
        return None
    source, low, high = inner
    if not low <= high or not outer[1] <= outer[2]:
        return None
    low, high = (min(max(bound, outer[1]), outer[2]) for bound in (low, high))
    inputs: list[Value | None] = [source, None, None]
    if low != -np.inf:
        inputs[1] = number(graph, f"{node.name}.min", low, node.output)
    if high != np.inf:
        inputs[2] = number(graph, f"{node.name}.max", high, node.output)
    made = make(graph, "Clip", inputs, node.output, sources=[before, node])
    return _joined(graph, before, node, made)


def bounds_of(node: Node) -> tuple[Value, float, float] | None:
    """What a node bounds and by which constants: for Relu, Clip, and Max and Min with a number."""
    if node.output.type.shape is None:
        return None
    if node.op == "Relu":
        return first_input(node), 0.0, np.inf
    if node.op == "Clip":
        low, high = node.input(1), node.input(2)
        bottom = -np.inf if low is None else scalar(low)
        top = np.inf if high is None else scalar(high)
        if bottom is None or top is None:
            return None
        if node.output.dtype.is_integer and any(_WHOLE < abs(b) < np.inf for b in (bottom, top)):
            return None
        return first_input(node), bottom, top
    operands = with_constant(node) if node.op in ("Max", "Min") else None
    bound = None if operands is None else scalar(operands[1])
    if operands is None or bound is None or operands[0].type != node.output.type:
        return None
    if abs(bound) > _WHOLE and node.output.dtype.is_integer:
        return None
    return (operands[0], bound, np.inf) if node.op == "Max" else (operands[0], -np.inf, bound)


# ---- the rest -----------------------------------------------------------------------------------


def _repeated(graph: Graph, before: Node, node: Node) -> Patch | None:
    if before.op != node.op:
        return None
    note = f"{node.name}: a second {node.op}"
    if node.op in _IDEMPOTENT:
        return Patch(note, (node,), (), ((node.output, before.output),))
    if graph.is_output(node.output):
        return None
    return Patch(note, (node,), (), ((node.output, first_input(before)),))


def _pads(graph: Graph, before: Node, node: Node) -> Patch | None:
    if before.op != "Pad":
        return None
    totals = [_plain_pads(before), _plain_pads(node)]
    value, other = _pad_value(before), _pad_value(node)
    if totals[0] is None or totals[1] is None or value is None or value != other:
        return None
    pads = indices(graph, f"{node.name}.pads", map(sum, zip(*totals, strict=True)))
    inputs = [first_input(before), pads, before.input(2)]
    made = make(graph, "Pad", inputs, node.output, node.attrs, sources=[before, node])
    return _joined(graph, before, node, made)


def _plain_pads(node: Node) -> tuple[int, ...] | None:
    """The pads of all axes, begins before ends, where they are constant and none cuts."""
    if node.attrs.get("mode", "constant") != "constant" or first_input(node).type.shape is None:
        return None
    pads, rank = ints(node.input(1)), len(first_input(node).shape)
    axes = tuple(range(rank)) if node.input(3) is None else ints(node.input(3))
    if pads is None or axes is None or min(pads, default=0) < 0:
        return None
    full = [0] * (2 * rank)
    for n, axis in enumerate(axes):
        full[axis % rank] = pads[n]
        full[rank + axis % rank] = pads[n + len(axes)]
    return tuple(full)


def _pad_value(node: Node) -> float | None:
    return 0.0 if node.input(2) is None else scalar(node.input(2))


def _numbers(graph: Graph, before: Node, node: Node) -> Patch | None:
    """Two sums with, or two products by, constants."""
    inner, outer = with_constant(before), with_constant(node)
    if inner is None or outer is None or before.op != node.op:
        return None
    a, b = (np.asarray(pair[1].data) for pair in (inner, outer))
    if any(value.type != node.output.type for value in (inner[0], before.output)):
        return None
    if not (node.output.dtype.is_float or node.output.dtype is DType.I32):
        return None
    wide = np.int32 if node.output.dtype is DType.I32 else np.float64
    joined = a.astype(wide) + b if node.op == "Add" else a.astype(wide) * b
    if joined.size > max(a.size, b.size):
        return None
    if a.size == 1 and b.size == 1:
        joined = joined.reshape(())
    with np.errstate(over="ignore"):
        value = number(graph, f"{node.name}.const", joined, node.output)
    rounded = np.asarray(value.data, dtype=np.float64)
    if not np.all(np.isfinite(rounded)) or not np.array_equal(rounded == 0, joined == 0):
        return None
    made = make(graph, node.op, [inner[0], value], node.output, sources=[before, node])
    return _joined(graph, before, node, made)


_Rule = Callable[[Graph, Node, Node], Patch | None]
_RULES: dict[str, tuple[_Rule, ...]] = {
    "Cast": (_casts,),
    "Pad": (_pads,),
    "Add": (_numbers,),
    "Mul": (_numbers,),
    **dict.fromkeys(_BOUNDS, (_clips,)),
    **dict.fromkeys(_IDEMPOTENT | _INVOLUTIONS, (_repeated,)),
    "Relu": (_repeated, _clips),
}

PASS = Pass("join_pairs", "no-ops removed", find)
