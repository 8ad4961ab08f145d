"""Contractions of dequantised operands computed in integers.

    x ─ DQ ─┐                         x ─┐
    w ─ DQ ─┴ Conv(b) ─ y   becomes   w ─┴ ConvInteger(zx) ─ Add(b') ─ Cast ─ Mul(sx · sw) ─ y

    x ─ DQ ─ MatMul(w ─ DQ)           likewise, as MatMulInteger

x has one scale; w is constant, with a scale for each output channel or one for all, and may reach
the contraction through views. b' is the bias in units of sx · sw, rounded to i32; a bias that is
too large for that is added behind.

Not handled: two operands that are computed; data of 16 bits; scales that vary within a channel, as
those of blocks do; transposed convolutions. Those stay what they are, on dequantised operands.
`why_not` tells the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.ops.integer import signed_weights
from planish.passes.match import first_input, known_rank, make, origins
from planish.passes.quantised import BYTES, Grid, Weights, along, grid_of, weights_of
from planish.passes.rewrite import Pass

_INTEGER = {"Conv": "ConvInteger", "MatMul": "MatMulInteger"}
_MOST = float(1 << 30)  # of a bias: the sum of products has room beside it


def find(graph: Graph) -> Iterator[Patch]:
    """Contractions of a dequantised value with dequantised weights."""
    for node in graph.nodes:
        if node.op not in _INTEGER or not graph.holds(node) or why_not(node):
            continue
        patch = _computed_in_integers(graph, node)
        if patch is not None:
            yield patch


def why_not(node: Node) -> str:
    """Why a contraction is not computed in integers; "" when it can be."""
    data, weight = first_input(node).producer, node.input(1)
    if node.op not in _INTEGER:
        return f"there is no integer form of {node.op}"
    if not known_rank(*node.inputs, *node.outputs):
        return "its rank is not known"
    if data is None or data.op != "DequantizeLinear" or weight is None:
        return "its data is not quantised"
    found = weights_of(weight)
    if found is None:
        return "its weights are no quantised constants"
    grid = grid_of(data, "DequantizeLinear")
    if grid is None and first_input(data).dtype not in BYTES:
        return f"its data is {first_input(data).dtype}: kernels take 8 bits"
    if grid is None:
        return "its data has several scales, or ones that are computed"
    if len(weight.shape) < 2:
        return "its weights are a vector"
    axis = _channel_axis(node)
    if along(found.scale, axis) is None or along(found.zero, axis) is None:
        return "its scales vary within an output channel"
    bias = node.input(2)
    return "" if bias is None or bias.is_const else "its bias is computed"


def _channel_axis(node: Node) -> int:
    return 0 if node.op == "Conv" else -1


def _computed_in_integers(graph: Graph, node: Node) -> Patch | None:
    before = first_input(node).producer
    assert before is not None
    grid, found = grid_of(before, "DequantizeLinear"), weights_of(node.input(1))
    if grid is None or found is None:
        return None
    axis = _channel_axis(node)
    scale = along(found.scale, axis)
    assert scale is not None
    multiplier = np.asarray(np.float32(grid.scale) * scale, np.float32)
    if not np.all(np.isfinite(multiplier)) or not np.all(multiplier > 0.0):
        return None
    total = _product(graph, node, first_input(before), grid, found)
    nodes = [total]
    shape = node.output.shape
    rank = len(shape) if node.op == "Conv" else 1

    def append(op: str, dtype: DType, operand: np.ndarray | None = None, **attrs: int) -> None:
        inputs: list[Value | None] = [nodes[-1].output]
        if operand is not None:
            column = operand.reshape(-1, *(1,) * max(0, rank - 2))
            column = column[0].reshape(()) if np.all(column == column.flat[0]) else column
            inputs.append(constant(graph.fresh(f"{node.name}.{op.lower()}"), column))
        made = Value(graph.fresh(node.output.name), TensorType(dtype, shape))
        nodes.append(Node(op, inputs, [made], attrs, name=f"{node.name}.{op}", origin=node.origin))

    bias = node.input(2)
    values = None if bias is None else np.asarray(bias.data, np.float64)
    whole = None if values is None else np.rint(values / multiplier.astype(np.float64))
    small = whole is not None and bool(np.all(np.abs(whole) < _MOST))
    if whole is not None and small:
        append("Add", DType.I32, whole.astype(np.int32))
    append("Cast", DType.F32, to=DType.F32.onnx)
    append("Mul", DType.F32, multiplier)
    if values is not None and not small:
        append("Add", DType.F32, values.astype(np.float32))
    note = f"{node.name} is computed in integers"
    return Patch(note, (node,), tuple(nodes), ((node.output, nodes[-1].output),))


def _product(graph: Graph, node: Node, x: Value, grid: Grid, found: Weights) -> Node:
    """The contraction of whole numbers, zero points and all."""
    weight = node.inputs[1]
    assert weight is not None
    q, zero = found.q, found.zero
    fits = signed_weights(q, zero)
    if fits is not None and not fits[1]:
        q = fits[0]
        points = np.zeros((), q.dtype)
    else:
        channels = along(zero, _channel_axis(node))
        assert channels is not None
        points = np.asarray(channels if np.unique(channels).size > 1 else channels[0], q.dtype)
    inputs: list[Value | None] = [x, constant(graph.fresh(weight.name), np.ascontiguousarray(q))]
    if grid.zero or points.any():
        inputs.append(
            constant(graph.fresh(f"{node.name}.zero"), np.array(grid.zero, grid.dtype.numpy))
        )
    if points.any():
        inputs.append(constant(graph.fresh(f"{node.name}.weight_zero"), points))
    like = Value(node.output.name, TensorType(DType.I32, node.output.shape))
    made = make(graph, _INTEGER[node.op], inputs, like, node.attrs, sources=[node])
    made.name = f"{node.name}.{made.op}"
    made.origin = origins(node)
    return made


PASS = Pass("fuse_integers", "contractions in integers", find)
