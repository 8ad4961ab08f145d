"""What QuantizeLinear and DequantizeLinear nodes say, and how new ones are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import UnsupportedError
from planish.graph.graph import Graph, Node, TensorType, Value, constant
from planish.graph.reference import evaluate_node
from planish.passes.match import first_input, known_rank, origins, scalar
from planish.passes.view_map import VIEWS

BYTES = frozenset((DType.U8, DType.I8))


@dataclass(frozen=True)
class Grid:
    """The numbers that a tensor with one scale can hold: (q - zero) · scale.

    Attributes:
        scale: Distance between two of them, as an f32 holds it.
        zero: The q of 0.0.
        dtype: Of q.
    """

    scale: float
    zero: int
    dtype: DType

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest q."""
        info = np.iinfo(self.dtype.numpy)
        return int(info.min), int(info.max)

    def quantised(self, number: float) -> int:
        """The q that a number is rounded to, as QuantizeLinear does."""
        low, high = self.limits
        with np.errstate(over="ignore"):
            scaled = np.float32(number) / np.float32(self.scale)
        return int(np.clip(np.rint(scaled) + self.zero, low, high))

    def holds(self, number: float) -> bool:
        """Whether a number is on the grid."""
        real = np.float32(self.quantised(number) - self.zero) * np.float32(self.scale)
        return bool(real == np.float32(number))


def grid_of(node: Node | None, op: str) -> Grid | None:
    """The grid of a node of an operator; None where it has several scales, or computed ones."""
    if node is None or node.op != op or not known_rank(*node.inputs, *node.outputs):
        return None
    scale, zero = scalar(node.input(1)), node.input(2)
    whole = first_input(node) if op == "DequantizeLinear" else node.output
    real = node.output if op == "DequantizeLinear" else first_input(node)
    if scale is None or real.dtype is not DType.F32 or not scale > 0.0:
        return None
    if node.inputs[1] is None or node.inputs[1].dtype is not DType.F32:
        return None
    if whole.dtype not in BYTES:
        return None
    if zero is None:
        return Grid(scale, 0, whole.dtype)
    number = scalar(zero)
    return None if number is None else Grid(scale, int(number), whole.dtype)


def quantize(graph: Graph, source: Value, grid: Grid, sources: Sequence[Node]) -> Node:
    """A QuantizeLinear of a value."""
    out = TensorType(grid.dtype, source.type.shape)
    return _node(graph, "QuantizeLinear", source, grid, out, sources)


def dequantize(graph: Graph, source: Value, grid: Grid, sources: Sequence[Node]) -> Node:
    """A DequantizeLinear of a value."""
    out = TensorType(DType.F32, source.type.shape)
    return _node(graph, "DequantizeLinear", source, grid, out, sources)


def _node(
    graph: Graph, op: str, source: Value, grid: Grid, out: TensorType, sources: Sequence[Node]
) -> Node:
    name = sources[-1].name
    scale = constant(graph.fresh(f"{name}.scale"), np.array(grid.scale, np.float32))
    zero = constant(graph.fresh(f"{name}.zero"), np.array(grid.zero, grid.dtype.numpy))
    made = Value(graph.fresh(source.name), out)
    return Node(op, [source, scale, zero], [made], name=name, origin=origins(*sources))


# ---- constants ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """A quantised constant: (q - zero) · scale, each an array of one shape (zero-stride or not).

    Attributes:
        q: Its whole numbers.
        scale: Their scales, f32.
        zero: Their zero points.
    """

    q: np.ndarray
    scale: np.ndarray
    zero: np.ndarray


def weights_of(value: Value | None) -> Weights | None:
    """The quantised constant that leads to a value through views; None if there is none."""
    views: list[Node] = []
    node = None if value is None else value.producer
    while node is not None and node.op in VIEWS:
        views.insert(0, node)
        node = first_input(node).producer
    if node is None or node.op != "DequantizeLinear":
        return None
    data, scale, zero = first_input(node).data, node.input(1), node.input(2)
    if data is None or scale is None or scale.data is None or (zero and zero.data is None):
        return None
    if not first_input(node).dtype.is_integer or first_input(node).dtype.bits > 8:
        return None
    q = np.asarray(data)
    kind = np.dtype(np.uint8 if q.dtype == np.uint8 else np.int8)
    parts = [q.astype(kind), spread(node, np.asarray(scale.data, np.float32), q.shape)]
    point = np.zeros((), np.int32) if zero is None else np.asarray(zero.data)
    parts.append(spread(node, point.astype(np.int32), q.shape))
    try:
        for view in views:
            parts = [evaluate_node(view, {first_input(view).name: part})[0] for part in parts]
    except UnsupportedError:
        return None
    return Weights(*parts)


def spread(node: Node, parameter: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A scale or zero point of a Quantize or Dequantize in the shape of its data."""
    if parameter.size == 1:
        return np.broadcast_to(parameter.reshape(()), shape)
    axis = int(node.attrs.get("axis", 1)) % len(shape)
    if parameter.ndim == 1:
        column = [-1 if n == axis else 1 for n in range(len(shape))]
        return np.broadcast_to(parameter.reshape(column), shape)
    block = int(node.attrs.get("block_size", 0)) or -(-shape[axis] // parameter.shape[axis])
    wide = np.repeat(parameter, block, axis)
    return wide.take(np.arange(shape[axis]), axis)


def along(array: np.ndarray, axis: int) -> np.ndarray | None:
    """One number a slice of an axis; None where an array varies within a slice."""
    index = tuple(slice(None) if n == axis % array.ndim else slice(1) for n in range(array.ndim))
    first = array[index]
    return first.reshape(-1) if bool(np.all(array == first)) else None
