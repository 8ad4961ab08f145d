"""A float graph that imitates 8 bits, each edge at the flick of a switch.

    v ─ conv2      becomes      v ─ Where(switches[k], rounded(v), v) ─ conv2

    rounded(v) = (clip(round(v / step) + zero, 0, 255) − zero)·step

One plan of it runs the network with any set of layers in 8 bits and the others in floats, so that
trying a set costs a run, not a build. What is imitated is the rounding of activations; weights are
constants, and whoever runs the plan changes them: `Switched.weights` has both forms. Sums are those
of floats here and exact in the real plan, which therefore differs by about one rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import infer_types
from planish.quantize.apply import apply_biases
from planish.quantize.insert import bias_of, bias_place, channel_axis
from planish.quantize.observers import LEVELS
from planish.quantize.placement import Placement
from planish.quantize.rounding import Rounding, encode_weights
from planish.quantize.scales import Scale, dequantize_weights

SWITCHES = "planish.switches"  # name of the added input
_STEP = "switches"

Edge = tuple[str, str]  # (value, node that reads it)


@dataclass(frozen=True)
class Switched:
    """What was put into a graph.

    Attributes:
        graph: The graph, with one more input: bool [number of edges], True for 8 bits.
        edges: What each switch is for.
        weights: Node -> its weights as 8 bits have them.
        constants: Node -> (name of a constant, what 8 bits have in its place).
    """

    graph: Graph
    edges: tuple[Edge, ...]
    weights: dict[str, np.ndarray]
    constants: dict[str, list[tuple[str, np.ndarray]]]


def insert_switches(
    graph: Graph,
    placement: Placement,
    scales: Mapping[str, Scale],
    per_channel: bool = True,
    biases: Mapping[str, np.ndarray] | None = None,
    roundings: Mapping[str, Rounding] | None = None,
) -> Switched:
    """Change a float graph into one that imitates 8 bits.

    Args:
        graph: The optimised float graph; it is changed.
        placement: All that may be in 8 bits.
        scales: Group name -> scale.
        per_channel: A scale for each output channel of the weights.
        biases: Node -> what 8 bits add to its bias, one a channel.
        roundings: Node -> which codes of its weights are not the nearest.
    """
    edges = edges_of(placement)
    owner = {value: group for group in placement.groups for value in group.values}
    weights: dict[str, np.ndarray] = {}
    constants: dict[str, list[tuple[str, np.ndarray]]] = {}
    for node in placement.contractions:
        x, w = node.inputs[:2]
        assert x is not None and w is not None and w.data is not None
        mine = constant(graph.fresh(f"{node.name}.weights"), np.array(w.data))
        axis, data = channel_axis(node), np.asarray(w.data)
        step = scales[owner[x].name].step
        rounding = (roundings or {}).get(node.name)
        codes, steps = encode_weights(
            data, axis, per_channel, rounding, node.name, bias_of(graph, node), step
        )
        rounded = dequantize_weights(codes, steps, axis)
        weights[node.name] = rounded
        constants[node.name] = [(mine.name, rounded)]
        graph.reread(node, w, mine)
        added = (biases or {}).get(node.name)
        if added is not None:
            constants[node.name].append(_own_bias(graph, node, added))
    switches = Value(SWITCHES, TensorType(DType.BOOL, (len(edges),)))
    graph.inputs.append(switches)
    number = 0
    for value, readers in placement.readers.items():
        for reader in dict.fromkeys(readers):
            _insert(graph, value, reader, scales[owner[value].name], switches, number)
            number += 1
    infer_types(graph)
    return Switched(graph, edges, weights, constants)


def _own_bias(graph: Graph, node: Node, added: np.ndarray) -> tuple[str, np.ndarray]:
    """Give a contraction a bias constant of its own; its name, and what 8 bits have there."""
    if bias_place(graph, node) is None:
        apply_biases(graph, [node], {node.name: np.zeros_like(added)})
        holder = next(user for user in graph.users(node.output) if user.op == "Add")
        operand = next(n for n, v in enumerate(holder.inputs) if v is not None and v.is_const)
    else:
        holder, operand = bias_place(graph, node) or (node, 2)
    old = holder.inputs[operand]
    assert old is not None and old.data is not None
    mine = constant(graph.fresh(f"{node.name}.offset"), np.array(old.data))
    graph.reread(holder, old, mine)
    data = np.asarray(old.data)
    return mine.name, data + added.astype(data.dtype).reshape(data.shape)


def edges_of(placement: Placement) -> tuple[Edge, ...]:
    """Who reads what in 8 bits, in a fixed order."""
    return tuple(
        (value.name, reader.name)
        for value, readers in placement.readers.items()
        for reader in dict.fromkeys(readers)
    )


def _insert(
    graph: Graph, value: Value, reader: Node, scale: Scale, switches: Value, number: int
) -> None:
    made: list[Node] = []

    def step(op: str, *inputs: Value, dtype: DType = DType.F32, **attrs: object) -> Value:
        kind = TensorType(dtype, value.type.shape)
        out = Value(graph.fresh(f"{value.name}.{op.lower()}"), kind)
        made.append(Node(op, inputs, [out], attrs, name=f"{value.name}.{op.lower()}",
                         origin=reader.origin))  # fmt: skip
        return out

    def literal(number: float) -> Value:
        return constant(graph.fresh("literal"), np.array(number, np.float32))

    def index(number: int) -> Value:
        return constant(graph.fresh("index"), np.array([number], np.int64))

    zero, unit = literal(float(scale.zero)), literal(scale.step)
    codes = step("Clip", step("Add", step("Round", step("Div", value, unit)), zero),
                 literal(0.0), literal(float(LEVELS)))  # fmt: skip
    rounded = step("Mul", step("Sub", codes, zero), unit)
    switch = Value(graph.fresh("switch"), TensorType(DType.BOOL, (1,)))
    made.append(
        Node("Slice", [switches, index(number), index(number + 1), index(0)], [switch],
             name=f"{value.name}.switch", origin=reader.origin)
    )  # fmt: skip
    chosen = step("Where", switch, rounded, value)
    graph.apply(Patch(f"{value.name} as {reader.name} reads it", add=tuple(made)), _STEP)
    graph.reread(reader, value, chosen)
