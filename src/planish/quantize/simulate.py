"""Graphs that show what quantisation does, their ranges and biases given at run time.

So many ranges can be tried on one compiled plan:

    v ─ …      becomes      v ─ Mul(inverse[g]) ─ Round ─ Clip(low[g], high[g]) ─ Mul(step[g]) ─ …

for each stored value v, g the number of its group; weights are rounded to their codes, and every
contraction's result gets an entry of `biases` added to each channel. The parameters are inputs of
the graph. Rounding is that of QuantizeLinear but for products with the inverse in place of
quotients, so a number may land one step aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.graph.copy import copy_graph
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import infer_types
from planish.quantize.insert import channel_axis
from planish.quantize.observers import LEVELS
from planish.quantize.placement import Placement
from planish.quantize.rounding import Rounding, encode_weights
from planish.quantize.scales import Scale, dequantize_weights

STEP = "simulate"
INVERSE, SCALE, LOW, HIGH = "planish.inverse", "planish.step", "planish.low", "planish.high"
BIASES = "planish.biases"
_FREE = 2.0**40  # inverse step at which rounding changes no f32 by more than its own precision


@dataclass(frozen=True)
class Simulation:
    """A graph whose quantisation is steered at run time.

    Attributes:
        graph: Inputs and outputs of the original first; then the parameters, and the means.
        groups: Names of the groups, in the order of the parameters.
        spans: Contraction's name -> where its channels lie in `biases`.
        means: Contraction's name -> output with the mean of each of its channels.
        channels: Length of `biases`.
    """

    graph: Graph
    groups: tuple[str, ...]
    spans: dict[str, slice]
    means: dict[str, str]
    channels: int

    def parameters(
        self, scales: Mapping[str, Scale], biases: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """The parameters as inputs of a run.

        Args:
            scales: Group name -> scale; groups that are not there stay in floats.
            biases: Contraction's name -> what is added to its channels.
        """
        rows = [_row(scales.get(name)) for name in self.groups]
        columns = np.array(rows, np.float32).reshape(-1, 4).T
        added = np.zeros(max(1, self.channels), np.float32)
        for name, values in (biases or {}).items():
            added[self.spans[name]] = values
        names = (INVERSE, SCALE, LOW, HIGH)
        made = {n: np.ascontiguousarray(c) for n, c in zip(names, columns, strict=True)}
        return {**(made if self.groups else {}), BIASES: added}


def _row(scale: Scale | None) -> tuple[float, float, float, float]:
    if scale is None:
        return _FREE, 1.0 / _FREE, -np.inf, np.inf
    return 1.0 / scale.step, scale.step, -float(scale.zero), float(LEVELS - scale.zero)


def simulate(
    graph: Graph,
    placement: Placement,
    per_channel: bool = True,
    roundings: Mapping[str, Rounding] | None = None,
) -> Simulation:
    """A graph with the rounding of a quantised one.

    Args:
        graph: The optimised float graph; it stays as it is.
        placement: What `place` decided for it.
        per_channel: A scale for each output channel of the weights.
        roundings: Contraction's name -> which codes of its weights are not the nearest.
    """
    made, values, nodes = copy_graph(graph)
    count = len(placement.groups)
    inputs = {n: Value(n, TensorType(DType.F32, (count,))) for n in (INVERSE, SCALE, LOW, HIGH)}
    spans = _spans(placement)
    channels = max((span.stop for span in spans.values()), default=0)
    biases = Value(BIASES, TensorType(DType.F32, (max(1, channels),)))
    made.inputs += [*(inputs.values() if count else ()), biases]
    for number, group in enumerate(placement.groups):
        row = {name: _piece(made, inputs[name], number, number + 1) for name in inputs}
        for value in group.values:
            readers = [nodes[reader] for reader in placement.readers[value]]
            if readers:
                _round(made, values[value], row, readers)
    means = {}
    for node in placement.contractions:
        twin = nodes[node]
        _round_weights(made, twin, per_channel, (roundings or {}).get(node.name))
        total = _add_bias(made, twin, biases, spans[node.name])
        means[node.name] = _mean(made, total, twin)
    infer_types(made)
    return Simulation(made, tuple(group.name for group in placement.groups), spans, means, channels)


def observed_graph(
    graph: Graph, placement: Placement
) -> tuple[Graph, dict[str, str], dict[str, str], dict[str, str]]:
    """The float graph with everything that calibration looks at as an output.

    Returns:
        The graph; root value's name -> output; contraction's name -> output with the means of its
        channels; contraction's name -> output, or input, that it reads.
    """
    made, values, nodes = copy_graph(graph)
    roots: dict[str, str] = {}
    reads = {n.name: values[n.inputs[0]] for n in placement.contractions if n.inputs[0] is not None}
    for group in placement.groups:
        for root in group.roots:
            roots[root.name] = values[root].name
    seen = [values[root] for group in placement.groups for root in group.roots]
    for value in dict.fromkeys((*seen, *reads.values())):
        if not made.is_output(value) and value not in made.inputs:
            made.outputs.append(value)
    means = {n.name: _mean(made, nodes[n].output, nodes[n]) for n in placement.contractions}
    infer_types(made)
    return made, roots, means, {name: value.name for name, value in reads.items()}


def _spans(placement: Placement) -> dict[str, slice]:
    spans: dict[str, slice] = {}
    start = 0
    for node in placement.contractions:
        weights = node.inputs[1]
        assert weights is not None and weights.data is not None
        stop = start + int(weights.data.shape[channel_axis(node)])
        spans[node.name] = slice(start, stop)
        start = stop
    return spans


# ---- pieces of graphs ---------------------------------------------------------------------------


def _new(
    graph: Graph, op: str, inputs: Sequence[Value | None], hint: str, attrs: Mapping[str, object]
) -> Value:
    """A node at the end of a graph; its result."""
    made = Value(graph.fresh(hint), TensorType(DType.F32, None))
    node = Node(op, inputs, [made], attrs, name=graph.fresh(f"{hint}.{op}"))
    graph.apply(Patch(f"{op} for {hint}", add=(node,)), STEP)
    infer_types(graph, [node])
    return made


def _list(graph: Graph, numbers: Sequence[int]) -> Value:
    return constant(graph.fresh("planish.list"), np.array(numbers, np.int64))


def _piece(graph: Graph, vector: Value, start: int, stop: int) -> Value:
    """Some entries of a vector."""
    ends = [_list(graph, [n]) for n in (start, stop, 0)]
    return _new(graph, "Slice", [vector, *ends], f"{vector.name}.{start}", {})


def _round(graph: Graph, value: Value, row: Mapping[str, Value], readers: list[Node]) -> None:
    """Rounds a value as its readers see it."""
    hint = value.name
    scaled = _new(graph, "Mul", [value, row[INVERSE]], f"{hint}.scaled", {})
    whole = _new(graph, "Round", [scaled], f"{hint}.whole", {})
    above = _new(graph, "Max", [whole, row[LOW]], f"{hint}.above", {})
    code = _new(graph, "Min", [above, row[HIGH]], f"{hint}.code", {})
    rounded = _new(graph, "Mul", [code, row[SCALE]], f"{hint}.rounded", {})
    for reader in dict.fromkeys(readers):
        graph.reread(reader, value, rounded)


def _round_weights(graph: Graph, node: Node, per_channel: bool, rounding: Rounding | None) -> None:
    weights = node.inputs[1]
    assert weights is not None
    rounded = rounded_weights(node, per_channel, rounding)
    graph.reread(node, weights, constant(graph.fresh(f"{weights.name}.rounded"), rounded))


def rounded_weights(node: Node, per_channel: bool, rounding: Rounding | None = None) -> np.ndarray:
    """A contraction's weights as 8 bits have them."""
    weights = node.inputs[1]
    assert weights is not None and weights.data is not None
    data, axis = np.asarray(weights.data), channel_axis(node)
    codes, steps = encode_weights(data, axis, per_channel, rounding, node.name)
    return dequantize_weights(codes, steps, axis)


def _add_bias(graph: Graph, node: Node, biases: Value, span: slice) -> Value:
    """Adds an entry of the biases to each channel of a contraction's result."""
    result = node.output
    readers = graph.users(result)
    piece = _piece(graph, biases, span.start, span.stop)
    if node.op == "Conv":
        shape = [1, span.stop - span.start, *[1] * (len(result.shape) - 2)]
        piece = _new(graph, "Reshape", [piece, _list(graph, shape)], f"{node.name}.bias", {})
    total = _new(graph, "Add", [result, piece], f"{result.name}.corrected", {})
    for reader in readers:
        graph.reread(reader, result, total)
    if graph.is_output(result):
        total.name, result.name = result.name, total.name
        graph.outputs = [total if output is result else output for output in graph.outputs]
    return total


def _mean(graph: Graph, value: Value, node: Node) -> str:
    """An output with the mean of each channel of a contraction's result."""
    rank = len(value.shape)
    channel = 1 if node.op == "Conv" else rank - 1
    axes = [axis for axis in range(rank) if axis != channel]
    hint = f"{node.name}.mean"
    mean = _new(graph, "ReduceMean", [value, _list(graph, axes)], hint, {"keepdims": 0})
    graph.outputs.append(mean)
    return mean.name
