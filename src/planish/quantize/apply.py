"""A calibration applied to a graph: its ranges as scales, its corrections in the biases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from planish.base.errors import BuildError
from planish.graph.graph import Graph, Node, Patch, Value, constant
from planish.graph.infer import infer_types
from planish.quantize.insert import bias_place, channel_axis
from planish.quantize.observers import Range
from planish.quantize.placement import Placement
from planish.quantize.record import Calibration
from planish.quantize.scales import Scale, activation_scale

STEP = "correct_biases"


def graph_digest(graph: Graph) -> str:
    """Digest of what a graph computes: nodes, attributes and the contents of its constants.

    Sizes of inputs do not count, so that a calibration serves builds for other batches.
    """
    hasher = hashlib.sha256()
    for line in _lines(graph):
        hasher.update(f"{line}\n".encode())
    return hasher.hexdigest()


def _lines(graph: Graph) -> list[str]:
    lines = [f"inputs {[value.name for value in graph.inputs]}"]
    for node in graph.nodes:
        reads = [_read_text(value) for value in node.inputs]
        made = ["" if value is None else value.name for value in node.outputs]
        lines.append(f"{node.name} {node.op} {reads} {made}")
        for name, attr in sorted(node.attrs.items()):
            if isinstance(attr, Graph):
                lines += [f"{name}:", *_lines(attr)]
            else:
                text = repr(attr.tolist()) if isinstance(attr, np.ndarray) else repr(attr)
                lines.append(f"{name}={text}")
    lines.append(f"outputs {[value.name for value in graph.outputs]}")
    return lines


def _read_text(value: Value | None) -> str:
    if value is None:
        return ""
    return f"={value.digest}" if value.is_const and value.dtype.is_float else value.name


def scales_of(
    placement: Placement, calibration: Calibration, symmetric: bool = False
) -> dict[str, Scale]:
    """The scale of each group of values.

    Args:
        placement: What is in 8 bits; it may be less than what was calibrated.
        calibration: The ranges.
        symmetric: Ranges lie even around zero.

    Raises:
        BuildError: A value is in 8 bits that was not calibrated.
    """
    rows = {row.value: row for row in calibration.rows}
    scales: dict[str, Scale] = {}
    for group in placement.groups:
        missing = [root.name for root in group.roots if root.name not in rows]
        if missing:
            raise BuildError(
                f"the calibration has no range of the value {missing[0]!r}",
                hint="it was made for other layers in 8 bits: calibrate again with data",
            )
        found = [rows[root.name] for root in group.roots]
        union = Range(min(row.low for row in found), max(row.high for row in found))
        scales[group.name] = activation_scale(union, symmetric)
    return scales


def apply_biases(graph: Graph, contractions: list[Node], biases: Mapping[str, np.ndarray]) -> None:
    """Add corrections to the biases of contractions, in place.

    Args:
        graph: The float graph.
        contractions: Those that run on 8 bits; corrections of others are left out.
        biases: Contraction's name -> what is added, one a channel.

    Raises:
        BuildError: A correction has another number of channels than its layer.
    """
    for node in contractions:
        added = biases.get(node.name)
        if added is None:
            continue
        weights = node.inputs[1]
        assert weights is not None
        channels = weights.shape[channel_axis(node)]
        if added.shape != (channels,):
            raise BuildError(
                f"the calibration corrects {added.size} channels of {node.name!r}, it has "
                f"{channels}"
            )
        add_bias(graph, node, added)
    infer_types(graph)


def add_bias(graph: Graph, node: Node, added: np.ndarray) -> None:
    """Add to the bias of a contraction, one number a channel; it gets one where it has none."""
    place = bias_place(graph, node)
    if place is not None:
        holder, operand = place
        old = holder.inputs[operand]
        assert old is not None and old.data is not None
        data = np.asarray(old.data)
        total = (data + added.reshape(data.shape)).astype(data.dtype)
        graph.reread(holder, old, constant(graph.fresh(old.name), total))
        return
    result = node.output
    shape = (1, -1) + (1,) * (len(result.shape) - 2) if node.op == "Conv" else (-1,)
    data = added.astype(result.dtype.numpy).reshape(shape)
    bias = constant(graph.fresh(f"{node.name}.bias"), data)
    corrected = Value(graph.fresh(f"{result.name}.corrected"), result.type)
    readers = graph.users(result)
    name = f"{node.name}.correction"
    plus = Node("Add", [result, bias], [corrected], name=name, origin=node.origin)
    graph.apply(Patch(f"{node.name} gets a bias", add=(plus,)), STEP)
    for reader in readers:
        graph.reread(reader, result, corrected)
    if graph.is_output(result):
        corrected.name, result.name = result.name, corrected.name
        graph.outputs = [corrected if v is result else v for v in graph.outputs]
