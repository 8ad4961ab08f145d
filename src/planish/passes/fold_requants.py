"""The scale that a result is quantised by, folded into the factors that it was computed with.

    c ─ Mul(m) ─ Relu ─ Q(s, z)            becomes   c ─ Mul(m / s) ─ Relu ─ Q(1, z)
    c ─ Mul(m) ─┐                                    c ─ Mul(m / s) ─┐
    x ─ DQ(t) ──┴ Add ─ Relu ─ Q(s, z)     becomes   x ─ DQ(t / s) ──┴ Add ─ Relu ─ Q(1, z)
    c ─ Sigmoid ─ Q(s, z)                  becomes   c ─ Sigmoid ─ Mul(1 / s) ─ Q(1, z)
    c ─ Cast ─ Mul(m) ─ Add(b)             becomes   c ─ Add(b / m) ─ Cast ─ Mul(m),   c an i32

The division is gone, and mostly a multiplication too. The way from Q up goes through what a
positive factor passes unchanged: Relu, LeakyRelu, PRelu, Abs, Neg, Clip with its bounds divided,
Add, Sub, Max and Min of two such operands. Results differ from the division where it comes to lie
on the border of two numbers: by one of them.

Not handled: scales for each slice of an axis; values on the way that others read too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, Value, constant
from planish.passes.match import first_input, known_rank, make, with_constant
from planish.passes.quantised import Grid, dequantize, grid_of, quantize
from planish.passes.rewrite import Pass

_DEPTH = 24  # nodes on a way up
_MOST = float(1 << 30)  # of a bias in i32


def find(graph: Graph) -> Iterator[Patch]:
    """Quantising by another scale than 1, and biases behind the factors of a product."""
    for node in graph.nodes:
        if not graph.holds(node) or not known_rank(*node.inputs, *node.outputs):
            continue
        if node.op == "QuantizeLinear":
            patch = _folded(graph, node)
        else:
            patch = _bias(graph, node) if node.op == "Add" else None
        if patch is not None:
            yield patch


# ---- biases -------------------------------------------------------------------------------------


def _bias(graph: Graph, node: Node) -> Patch | None:
    """A bias that is added before the conversion to floats, as a whole number of units."""
    split = with_constant(node)
    scaled = None if split is None else split[0].producer
    product = None if scaled is None or scaled.op != "Mul" else with_constant(scaled)
    cast = None if product is None else product[0].producer
    if split is None or scaled is None or product is None or cast is None or cast.op != "Cast":
        return None
    total = first_input(cast)
    if total.dtype is not DType.I32 or not _is_integer_product(total):
        return None
    if graph.only_user(scaled.output) is not node or graph.only_user(cast.output) is not scaled:
        return None
    if node.output.type != scaled.output.type:
        return None
    factor = np.asarray(product[1].data, np.float64)
    bias = np.asarray(split[1].data, np.float64)
    with np.errstate(all="ignore"):
        units = np.rint(bias / factor)
    if units.size > max(bias.size, factor.size) or not np.all(np.abs(units) < _MOST):
        return None
    whole = constant(graph.fresh(f"{node.name}.bias"), np.asarray(units, np.int32))
    like = Value(total.name, total.type)
    added = make(graph, "Add", [total, whole], like, sources=[node])
    turned = make(graph, "Cast", [added.output], cast.output, cast.attrs, sources=[cast])
    made = make(graph, "Mul", [turned.output, product[1]], node.output, sources=[scaled, node])
    note = f"{node.name} adds whole numbers"
    return Patch(note, (node,), (added, turned, made), ((node.output, made.output),))


def _is_integer_product(value: Value) -> bool:
    """Whether a value is an integer contraction, with sums behind it or none."""
    node = value.producer
    while node is not None and node.op == "Add":
        split = with_constant(node)
        node = None if split is None else split[0].producer
    return node is not None and node.op in ("ConvInteger", "MatMulInteger")


# ---- scales -------------------------------------------------------------------------------------


def _folded(graph: Graph, node: Node) -> Patch | None:
    grid = grid_of(node, "QuantizeLinear")
    if grid is None or grid.scale == 1.0 or first_input(node).is_const:
        return None
    with np.errstate(over="ignore"):
        factor = float(np.float32(1.0) / np.float32(grid.scale))
    if not np.isfinite(factor):
        return None
    way = _Way(graph, 1.0 / grid.scale)
    source = first_input(node)
    scaled = way.scaled(source, node, _DEPTH)
    if scaled is None:
        way.added = []
        number = constant(graph.fresh(f"{node.name}.factor"), np.array(factor, np.float32))
        product = make(graph, "Mul", [source, number], source, sources=[node])
        way.added.append(product)
        scaled = product.output
    made = quantize(graph, scaled, replace(grid, scale=1.0), [node])
    note = f"{node.name}: its scale is folded into what it reads"
    return Patch(note, (node,), (*way.added, made), ((node.output, made.output),))


class _Way:
    """The way up from a result that is to be multiplied by a number."""

    def __init__(self, graph: Graph, factor: float) -> None:
        self.graph = graph
        self.factor = factor
        self.added: list[Node] = []

    def scaled(self, value: Value, reader: Node, depth: int) -> Value | None:
        """A value times the factor, at no cost; None where there is none."""
        if value.data is not None:
            return self._constant(value)
        node = value.producer
        if node is None or depth == 0 or not known_rank(*node.inputs, *node.outputs):
            return None
        grid = grid_of(node, "DequantizeLinear")
        if grid is not None:
            return self._grid(node, grid)
        rule = _RULES.get(node.op)
        if rule is None or value.dtype is not DType.F32:
            return None
        if self.graph.only_user(value) is not reader:
            return None
        inputs = rule(self, node, depth - 1)
        if inputs is None:
            return None
        made = make(self.graph, node.op, inputs, node.output, node.attrs, sources=[node])
        self.added.append(made)
        return made.output

    def _constant(self, value: Value) -> Value | None:
        data = np.asarray(value.data)
        if data.dtype != np.float32:
            return None
        with np.errstate(over="ignore"):
            scaled = np.asarray(data.astype(np.float64) * self.factor, np.float32)
        finite = bool(np.all(np.isfinite(scaled) == np.isfinite(data)))
        return constant(self.graph.fresh(value.name), scaled) if finite else None

    def _grid(self, node: Node, grid: Grid) -> Value | None:
        scale = float(np.float32(grid.scale * self.factor))
        if not np.isfinite(scale) or scale <= 0.0:
            return None
        made = dequantize(self.graph, first_input(node), replace(grid, scale=scale), [node])
        self.added.append(made)
        return made.output


def _first(way: _Way, node: Node, depth: int) -> list[Value | None] | None:
    """Operators that a positive factor passes: the first operand is scaled."""
    source = way.scaled(first_input(node), node, depth)
    return None if source is None else [source, *node.inputs[1:]]


def _all(way: _Way, node: Node, depth: int) -> list[Value | None] | None:
    """Operators that need every operand scaled."""
    inputs: list[Value | None] = []
    before = len(way.added)
    for value in node.inputs:
        scaled = None if value is None else way.scaled(value, node, depth)
        if value is not None and scaled is None:
            del way.added[before:]
            return None
        inputs.append(scaled)
    return inputs


def _one(way: _Way, node: Node, depth: int) -> list[Value | None] | None:
    """A product, of which one factor is scaled: a constant rather than another."""
    order = sorted(range(len(node.inputs)), key=lambda n: not _is_constant(node.inputs[n]))
    for n in order:
        value = node.inputs[n]
        scaled = None if value is None else way.scaled(value, node, depth)
        if scaled is not None:
            return [scaled if n == m else other for m, other in enumerate(node.inputs)]
    return None


def _is_constant(value: Value | None) -> bool:
    return value is not None and value.is_const


_Rule = Callable[[_Way, Node, int], "list[Value | None] | None"]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "Identity"), _first),
    **dict.fromkeys(("Add", "Sub", "Max", "Min", "Clip", "Sum"), _all),
    "Mul": _one,
}

PASS = Pass("fold_requants", "requantising folded", find)
