"""Older operator versions brought to the canonical opset: one row an operator whose form changed.

An adapter edits a `Draft`: what the node would be, before it becomes one. It runs when the model's
version of the operator is older than the row's `until`. Rows of one operator run oldest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from planish.graph.graph import Node, Value


@dataclass
class Draft:
    """A node on its way to the canonical opset.

    Attributes:
        op: Operator name; an adapter may change it.
        inputs: Values read.
        attrs: Attributes.
        name: Name of the ONNX node.
        constant: Makes a constant value from an array.
        outputs: Number of outputs asked for.
        before: Nodes that must stand before this one; an adapter may add some.
    """

    op: str
    inputs: list[Value | None]
    attrs: dict[str, Any]
    name: str
    constant: Callable[[np.ndarray], Value]
    outputs: int
    before: list[Node]


Adapt = Callable[[Draft], None]


@dataclass(frozen=True)
class Adapter:
    """A change of form of one operator."""

    op: str
    until: int  # applies to operator versions below this opset
    adapt: Adapt


def attr_to_input(attr: str, position: int, dtype: type = np.int64) -> Adapt:
    """An attribute that became an input."""

    def adapt(draft: Draft) -> None:
        if attr not in draft.attrs:
            return
        value = np.asarray(draft.attrs.pop(attr), dtype=dtype)
        while len(draft.inputs) <= position:
            draft.inputs.append(None)
        draft.inputs[position] = draft.constant(value)

    return adapt


def drop_attrs(*names: str) -> Adapt:
    """Attributes that no longer mean anything."""

    def adapt(draft: Draft) -> None:
        for name in names:
            draft.attrs.pop(name, None)

    return adapt
