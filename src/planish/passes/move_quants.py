"""Quantising moved to the front and dequantising to the back of what only moves elements.

    x ─ DQ ─ MaxPool ─ y               becomes   x ─ MaxPool ─ DQ ─ y
    x ─ MaxPool ─ Q ─ y                becomes   x ─ Q ─ MaxPool ─ y
    a ─ DQ ─┐                                    a ─┐
    b ─ DQ ─┴ Concat ─ y               becomes   b ─┴ Concat ─ DQ ─ y         where the scales agree
    a ─┐                                         a ─ Q ─┐
    b ─┴ Concat ─ Q ─ y                becomes   b ─ Q ─┴ Concat ─ y
    x ─ Reshape | Transpose | Slice | Split | Gather | Pad | Resize(nearest) | …      likewise
    x ─ DQ ─ Q ─ y, on one grid        becomes   x ─ y
    x ─ Relu | Clip ─ Q ─ y            becomes   x ─ Q ─ y                  where Q saturates there

Bytes are moved instead of floats then, a contraction that quantises its result writes bytes, and
what stood between two layers in integers cancels.

Not handled: several scales in one tensor; padding by a number that is not on the grid; results
that others want as floats (they would be computed twice).
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.passes.join_pairs import bounds_of
from planish.passes.match import first_input, known_rank, scalar
from planish.passes.quantised import Grid, dequantize, grid_of, quantize
from planish.passes.rewrite import Pass
from planish.passes.view_map import VIEWS

# Operators that move elements of their first operand.
MOVES = VIEWS | {
    "Slice", "Split", "Gather", "GatherElements", "GatherND", "Expand", "Tile", "DepthToSpace",
    "SpaceToDepth", "ReverseSequence", "MaxPool", "Resize", "Pad", "Concat",
}  # fmt: skip


def find(graph: Graph) -> Iterator[Patch]:
    """Nodes that can move, pairs that cancel, bounds that saturation keeps."""
    for node in graph.nodes:
        if not graph.holds(node):
            continue
        if node.op == "QuantizeLinear":
            patch = _cancelled(graph, node) or _saturated(graph, node) or _earlier(graph, node)
        elif node.op in MOVES and only_moves(node):
            patch = _later(graph, node)
        else:
            continue
        if patch is not None:
            yield patch


def only_moves(node: Node) -> bool:
    """Whether each element of the results is one of the data, or padding."""
    if not known_rank(*node.inputs, *node.outputs):
        return False
    if node.op == "MaxPool":
        return all(value is None for value in node.outputs[1:])
    if node.op == "Resize":
        extrapolates = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
        return node.attrs.get("mode", "nearest") == "nearest" and not extrapolates
    return True


def moved_data(node: Node) -> list[Value]:
    """The operands whose elements are moved."""
    values = node.inputs if node.op == "Concat" else node.inputs[:1]
    return [value for value in values if value is not None]


# ---- quantising ---------------------------------------------------------------------------------


def _cancelled(graph: Graph, node: Node) -> Patch | None:
    """What is dequantised and quantised again on one grid."""
    before = first_input(node).producer
    grid = grid_of(node, "QuantizeLinear")
    if before is None or grid is None or grid != grid_of(before, "DequantizeLinear"):
        return None
    source = first_input(before)
    if graph.is_output(node.output) and (source.producer is None or graph.is_output(source)):
        return None
    note = f"{before.name} and {node.name} cancel"
    return Patch(note, (node,), (), ((node.output, source),))


def _saturated(graph: Graph, node: Node) -> Patch | None:
    """Bounds that quantising keeps anyhow."""
    before = first_input(node).producer
    grid = grid_of(node, "QuantizeLinear")
    bounds = None if before is None or grid is None else bounds_of(before)
    if before is None or grid is None or bounds is None or graph.is_output(before.output):
        return None
    source, low, high = bounds
    if source.type != before.output.type or low > high:
        return None
    if grid.quantised(low) != grid.limits[0] or grid.quantised(high) != grid.limits[1]:
        return None
    made = quantize(graph, source, grid, [before, node])
    return Patch(f"{node.name} saturates where {before.name} clips", (node,), (made,),
                 ((node.output, made.output),))  # fmt: skip


def _earlier(graph: Graph, node: Node) -> Patch | None:
    """Quantising moved in front of what only moves elements."""
    before = first_input(node).producer
    grid = grid_of(node, "QuantizeLinear")
    if before is None or grid is None or before.op not in MOVES or not only_moves(before):
        return None
    readers = [user for value in before.outputs if value is not None for user in graph.users(value)]
    if any(value is not None and graph.is_output(value) for value in before.outputs):
        return None
    if any(grid_of(user, "QuantizeLinear") != grid for user in readers):
        return None
    padding = _padding(graph, before, grid)
    if padding is None or (before.op == "Split" and len(readers) < len(before.outputs)):
        return None
    first = [quantize(graph, value, grid, [node]) for value in moved_data(before)]
    sources = [made.output for made in first]
    moved = _moved(graph, before, sources, padding, grid.dtype)
    number = {value: n for n, value in enumerate(before.outputs)}
    pairs = [(user.output, moved.outputs[number[first_input(user)]]) for user in readers]
    return Patch(
        f"{node.name} moved in front of {before.name}", (before, *readers), (*first, moved),
        tuple((old, new) for old, new in pairs if new is not None),
    )  # fmt: skip


# ---- dequantising -------------------------------------------------------------------------------


def _later(graph: Graph, node: Node) -> Patch | None:
    """Dequantising moved behind what only moves elements."""
    before = [value.producer for value in moved_data(node)]
    grids = {grid_of(maker, "DequantizeLinear") for maker in before}
    grid = grids.pop() if len(grids) == 1 else None
    if grid is None:
        return None
    if node.op != "Gather" and all(m is not None and first_input(m).is_const for m in before):
        return None  # weights on their way to a contraction
    padding = _padding(graph, node, grid)
    if padding is None:
        return None
    sources = [first_input(maker) for maker in before if maker is not None]
    moved = _moved(graph, node, sources, padding, grid.dtype)
    makers = [maker for maker in before if maker is not None]
    last = [dequantize(graph, value, grid, makers) for value in moved.outputs if value is not None]
    old = [value for value in node.outputs if value is not None]
    pairs = tuple((a, b.output) for a, b in zip(old, last, strict=True))
    names = " and ".join(dict.fromkeys(maker.name for maker in makers))
    return Patch(f"{names} moved behind {node.name}", (node,), (moved, *last), pairs)


def _padding(graph: Graph, node: Node, grid: Grid) -> tuple[Value, ...] | None:
    """The padding of a Pad as bytes: () for other operators, None where it is not on the grid."""
    if node.op != "Pad" or node.attrs.get("mode", "constant") != "constant":
        return ()
    real = 0.0 if node.input(2) is None else scalar(node.input(2))
    if real is None or not grid.holds(real):
        return None
    q = grid.dtype.numpy.type(grid.quantised(real))
    return (constant(graph.fresh(f"{node.name}.value"), q.reshape(())),)


def _moved(
    graph: Graph, node: Node, sources: list[Value], padding: tuple[Value, ...], dtype: DType
) -> Node:
    """A node over bytes."""
    inputs: list[Value | None] = [*sources, *node.inputs[len(sources) :]]
    if padding:
        inputs[2:3] = padding
    outputs = [
        None
        if value is None
        else Value(graph.fresh(value.name), TensorType(dtype, value.type.shape))
        for value in node.outputs
    ]
    return Node(node.op, inputs, outputs, node.attrs, name=node.name, origin=node.origin)


PASS = Pass("move_quants", "quantising moved", find)
