"""Write a quantised network down: QuantizeLinear and DequantizeLinear in the float graph.

    x ─ Conv(W) ─ Relu ─ …      becomes    x ─ Q ─ DQ ─ Conv(DQ(W₈)) ─ Relu ─ Q ─ DQ ─ …

A value gets one pair, which all its 8-bit readers share; its float readers and the network's
outputs keep the float. The numbers in the graph are those of the ONNX specification, so any runtime
can tell what the network computes; the integer passes make integer arithmetic of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import infer_types
from planish.quantize.placement import Group, Placement
from planish.quantize.rounding import Rounding, encode_weights
from planish.quantize.scales import Scale

STEP = "quantize"


def insert_pairs(
    graph: Graph,
    placement: Placement,
    scales: Mapping[str, Scale],
    per_channel: bool = True,
    roundings: Mapping[str, Rounding] | None = None,
) -> None:
    """Quantise a graph in place.

    Args:
        graph: The optimised float graph.
        placement: What `place` decided for it.
        scales: Group name -> scale.
        per_channel: A scale for each output channel of the weights.
        roundings: Contraction's name -> which codes of its weights are not the nearest.

    Raises:
        BuildError: A rounding is that of other weights.
    """
    owner = {value: group for group in placement.groups for value in group.values}
    for node in placement.contractions:
        x = node.inputs[0]
        assert x is not None
        rounding = (roundings or {}).get(node.name)
        _insert_weights(graph, node, scales[owner[x].name], per_channel, rounding)
    for group in placement.groups:
        for value in group.values:
            _insert_pair(graph, value, group, scales[group.name], placement.readers[value])
    infer_types(graph)


def _insert_pair(
    graph: Graph, value: Value, group: Group, scale: Scale, readers: list[Node]
) -> None:
    if not readers:
        return
    step = constant(graph.fresh(f"{value.name}.scale"), np.array(scale.step, np.float32))
    zero = constant(graph.fresh(f"{value.name}.zero"), np.array(scale.zero, np.uint8))
    origin = value.producer.origin if value.producer is not None else ()
    codes = Value(graph.fresh(f"{value.name}.codes"), TensorType(zero.dtype, value.type.shape))
    wide = Value(graph.fresh(f"{value.name}.rounded"), value.type)
    pair = (
        Node("QuantizeLinear", [value, step, zero], [codes], name=f"{value.name}.quantize",
             origin=origin),
        Node("DequantizeLinear", [codes, step, zero], [wide], name=f"{value.name}.dequantize",
             origin=origin),
    )  # fmt: skip
    shared = "" if value.name == group.name else f", as {group.name}"
    note = f"{value.name} in 8 bits: step {scale.step:.6g}, zero {scale.zero}{shared}"
    graph.apply(Patch(note, add=pair), STEP)
    for reader in dict.fromkeys(readers):
        graph.reread(reader, value, wide)


def _insert_weights(
    graph: Graph, node: Node, scale: Scale, per_channel: bool, rounding: Rounding | None
) -> None:
    """DequantizeLinear of constant codes in place of float weights."""
    weights = node.inputs[1]
    assert weights is not None and weights.data is not None
    axis = channel_axis(node)
    data, bias = np.asarray(weights.data), bias_of(graph, node)
    made, steps = encode_weights(data, axis, per_channel, rounding, node.name, bias, scale.step)
    codes = constant(graph.fresh(f"{weights.name}.codes"), made)
    shown = steps if per_channel else steps[:1].reshape(())
    step = constant(graph.fresh(f"{weights.name}.scale"), shown)
    wide = Value(graph.fresh(f"{weights.name}.rounded"), weights.type)
    attrs = {"axis": axis} if per_channel else {}
    wider = Node("DequantizeLinear", [codes, step], [wide], attrs,
                name=f"{weights.name}.dequantize", origin=node.origin)  # fmt: skip
    graph.apply(Patch(f"weights of {node.name} in 8 bits", add=(wider,)), STEP)
    graph.reread(node, weights, wide)


def channel_axis(node: Node) -> int:
    """The axis of the output channels in a contraction's weights."""
    return 0 if node.op == "Conv" else 1


def bias_of(graph: Graph, node: Node) -> np.ndarray | None:
    """What is added to each output channel of a contraction; None where nothing is."""
    place = bias_place(graph, node)
    if place is None:
        return None
    value = place[0].inputs[place[1]]
    assert value is not None and value.data is not None
    return np.asarray(value.data).reshape(-1)


def bias_place(graph: Graph, node: Node) -> tuple[Node, int] | None:
    """The node and the operand that hold a contraction's bias; None where it has none."""
    if node.op == "Conv":
        return (node, 2) if node.input(2) is not None else None
    user = graph.only_user(node.output)
    if user is None or user.op != "Add" or len(user.inputs) != 2:
        return None
    for place, value in enumerate(user.inputs):
        if value is None or not value.is_const or value.shape[-1:] != node.output.shape[-1:]:
            continue
        if np.asarray(value.data).size == value.shape[-1]:
            return user, place
    return None
