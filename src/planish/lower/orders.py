"""In which order the axes of each value are stored: channels last inside, row-major at the edges.

An order lists the logical axes from the outermost in memory to the innermost. It is a wish: a value
that is written into a concat's buffer takes that buffer's strides, a view takes its source's.
"""

from __future__ import annotations

from collections.abc import Callable

from planish.base.shapes import Dim, product
from planish.graph.graph import Graph, Node, Value
from planish.graph.layer import Layer
from planish.lower.storage import Buffer, Storage, ordered_strides
from planish.lower.views import view_of

Order = tuple[int, ...]
Hint = Callable[[Dim], int]
# Anchors whose result lies channels last whatever their input does.
_CHANNELS_LAST = frozenset(("conv", "conv_transpose"))
# Anchors whose result lies as its only reader, a Transpose of all but the last axis, wants it.
_AS_READ = frozenset(("attention", "matmul"))
# Loop anchors that follow their first input although it has another shape.
_FOLLOW = frozenset(
    ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool",
     "LRN", "Resize", "DepthToSpace", "SpaceToDepth", "InstanceNormalization", "Pad",
     "GroupNormalization", "BatchNormalization", "MeanVarianceNormalization", "Tile", "GridSample",
     "Softmax", "LogSoftmax")
)  # fmt: skip


def choose_orders(graph: Graph, layers: list[Layer], hint: Hint) -> dict[Value, Order]:
    """The wished order of every value that a layer makes or the graph gets.

    Args:
        graph: The graph.
        layers: Its layers in order.
        hint: A likely value of a size.
    """
    orders: dict[Value, Order] = {v: identity(v) for v in graph.inputs if v.type.shape is not None}
    for layer in layers:
        for value in layer.outputs(graph):
            if value.type.shape is None:
                continue
            if layer.kind == "view":
                orders[value] = _view_order(layer.anchor, value, orders, hint)
            elif layer.kind in _AS_READ:
                orders[value] = _as_read(graph, value)
            else:
                orders[value] = _order(layer, value, orders)
    return orders


def _as_read(graph: Graph, value: Value) -> Order:
    """The order in which the only reader wants a value: heads are merged behind the tokens."""
    user, rank = graph.only_user(value), len(value.shape)
    perm = tuple(user.attrs.get("perm") or ()) if user is not None else ()
    if user is None or user.op != "Transpose" or len(perm) != rank:
        return identity(value)
    moved = [axis for axis in perm if value.shape[axis] != 1]
    return perm if moved and moved[-1] == rank - 1 else identity(value)


def identity(value: Value) -> Order:
    """Row-major."""
    return tuple(range(len(value.shape)))


def channels_last(rank: int) -> Order:
    """N, spatial…, C."""
    return (0, *range(2, rank), 1) if rank >= 3 else tuple(range(rank))


def _order(layer: Layer, value: Value, orders: dict[Value, Order]) -> Order:
    rank = len(value.shape)
    if layer.kind in _CHANNELS_LAST:
        return channels_last(rank)
    anchor = layer.anchor
    if layer.kind == "concat":
        known = [orders[v] for v in anchor.inputs if v is not None and v in orders]
        wished = [order for order in known if order != tuple(range(rank))]
        return (wished or known or [identity(value)])[0]
    if layer.kind != "loop":
        return identity(value)
    return _loop_order(layer, value, orders)


def _loop_order(layer: Layer, value: Value, orders: dict[Value, Order]) -> Order:
    rank = len(value.shape)
    anchor = layer.anchor
    first = anchor.inputs[0] if anchor.inputs else None
    if anchor.op in _FOLLOW and first is not None and len(orders.get(first, ())) == rank:
        return orders[first]
    if anchor.op.startswith(("Reduce", "Arg")) and first is not None and first in orders:
        return _reduced(layer, first, orders[first], value)
    same = [v for v in layer.inputs() if v in orders and len(v.shape) == rank and not v.is_const]
    full = [v for v in same if product(v.shape) == product(value.shape)] or same
    wished = [orders[v] for v in full]
    special = [order for order in wished if order != tuple(range(rank))]
    return (special or wished or [identity(value)])[0]


def _reduced(layer: Layer, source: Value, order: Order, value: Value) -> Order:
    """A reduction keeps its input's order, with the reduced axes dropped."""
    if len(source.shape) == len(value.shape):
        return order
    axes_input = layer.anchor.input(1)
    axes = layer.anchor.attrs.get("axes", layer.anchor.attrs.get("axis"))
    if axes_input is not None and axes_input.data is not None:
        axes = tuple(int(a) for a in axes_input.data.reshape(-1))
    if axes is None:
        return identity(value)
    rank = len(source.shape)
    gone = {a % rank for a in ((axes,) if isinstance(axes, int) else axes)}
    kept = [a for a in range(rank) if a not in gone]
    if len(kept) != len(value.shape):
        return identity(value)
    return tuple(kept.index(a) for a in order if a not in gone)


def _view_order(node: Node, value: Value, orders: dict[Value, Order], hint: Hint) -> Order:
    """The order that a view inherits from where its source lies; of a copy, the one that fits.

    A copy keeps the channels of an image last if its source does not lie row-major either.
    """
    source = node.inputs[0]
    if source is None or source not in orders:
        return identity(value)
    order = orders[source]
    buffer = Buffer("arena", source.dtype, product(source.shape), source.name)
    lies = Storage(buffer, source.shape, ordered_strides(source.shape, order))
    view = view_of(node, value, lies)
    if view is None:
        image = len(value.shape) >= 4 and order != identity(source)
        return channels_last(len(value.shape)) if image else identity(value)
    axes = [axis for axis in identity(value) if value.shape[axis] != 1]
    if any(view.strides[axis] == 0 for axis in axes):
        return identity(value)
    axes.sort(key=lambda axis: -abs(hint(view.strides[axis])))
    if axes == sorted(axes):
        return identity(value)
    free = [axis for axis in identity(value) if value.shape[axis] == 1]
    return (*free, *axes)
