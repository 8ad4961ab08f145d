"""Concat elimination: producers write straight to their final place.

    a ─┐                                   a ─▶ out[:, 0:64]
    b ─┴ Concat ─ out         becomes      b ─▶ out[:, 64:96]        and the concat is gone

Not handled (a copy stands in, and `explain` says so): an input that the graph gives or that is
constant, that another concat already holds, that stands twice in one concat, that is a graph output
itself, or that a view or a host step makes.
"""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.shapes import Dim
from planish.graph.graph import Graph, Value
from planish.graph.layer import Layer


@dataclass(frozen=True)
class Placement:
    """A value that lies inside a concat's result."""

    whole: Value
    axis: int
    start: Dim


def place_concats(
    graph: Graph, layers: list[Layer]
) -> tuple[dict[Value, Placement], dict[tuple[Value, int], str]]:
    """Where each concat input can be written directly.

    Returns:
        Placements, and for each (concat result, input number) left over the reason for its copy.
    """
    maker = {v: layer for layer in layers for n in layer.nodes for v in n.outputs if v is not None}
    placed: dict[Value, Placement] = {}
    copies: dict[tuple[Value, int], str] = {}
    for layer in reversed(layers):
        if layer.kind != "concat":
            continue
        node = layer.anchor
        whole = node.output
        axis = int(node.attrs.get("axis", 0)) % len(whole.shape)
        start: Dim = 0
        for number, value in enumerate(node.inputs):
            assert value is not None
            reason = _refusal(graph, value, node.inputs, placed, maker.get(value))
            if reason:
                copies[whole, number] = f"{value.name!r} {reason}"
            else:
                placed[value] = Placement(whole, axis, start)
            start = start + value.shape[axis]
    return placed, copies


def _refusal(
    graph: Graph,
    value: Value,
    siblings: list[Value | None],
    placed: dict[Value, Placement],
    maker: Layer | None,
) -> str:
    """Why a concat input needs a copy; "" when it does not."""
    if value.is_const:
        return "is a constant"
    if maker is None:
        return "is an input of the graph"
    if graph.is_output(value):
        return "is an output of the graph"
    if value in placed:
        return f"already lies in {placed[value].whole.name!r}"
    if sum(1 for v in siblings if v is value) > 1:
        return "stands in the concat more than once"
    if maker.kind in ("view", "host"):
        return f"is made by a {maker.kind} ({maker.anchor.op})"
    return ""
