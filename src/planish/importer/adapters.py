"""Older operator versions brought to the canonical opset: one row an operator whose form changed.

An adapter edits a `Draft`: what the node would be, before it becomes one. It runs when the model's
version of the operator is older than the row's `until`. Rows of one operator run oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planish.base.errors import ModelError
from planish.graph.graph import Value

Emit = Callable[[str, list[Value | None], dict[str, Any]], Value]


@dataclass
class Draft:
    """A node on its way to the canonical opset.

    Attributes:
        op: Operator name; an adapter may change it.
        inputs: Values read, with their types as far as they are known.
        attrs: Attributes.
        outputs: Number of outputs asked for.
        constant: Makes a constant value from an array.
        emit: Makes a node of the canonical opset that stands before this one; gives its output.
    """

    op: str
    inputs: list[Value | None]
    attrs: dict[str, Any]
    outputs: int
    constant: Callable[[np.ndarray], Value]
    emit: Emit

    def input(self, position: int) -> Value | None:
        """The input at a position, None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def set_input(self, position: int, value: Value | None) -> None:
        """Put a value at a position, further inputs before it being left out."""
        while len(self.inputs) <= position:
            self.inputs.append(None)
        self.inputs[position] = value

    def rank(self, position: int) -> int | None:
        """The rank of an input, None where it is not known."""
        value = self.input(position)
        if value is None or value.type.shape is None:
            return None
        return len(value.type.shape)

    def first(self) -> Value:
        """The first input.

        Raises:
            ModelError: It is missing.
        """
        value = self.input(0)
        if value is None:
            raise ModelError("input 0 is missing")
        return value


Adapt = Callable[[Draft], None]


@dataclass(frozen=True)
class Adapter:
    """A change of form of one operator."""

    op: str
    until: int  # applies to operator versions below this opset
    adapt: Adapt


def attr_to_input(attr: str, position: int, default: Sequence[int] | None = None) -> Adapt:
    """An attribute of integers that became an input; the default where it is left out."""

    def adapt(draft: Draft) -> None:
        value = draft.attrs.pop(attr, default)
        if value is not None:
            draft.set_input(position, draft.constant(np.asarray(value, dtype=np.int64).reshape(-1)))

    return adapt


def drop_attrs(*names: str) -> Adapt:
    """Attributes that no longer mean anything."""

    def adapt(draft: Draft) -> None:
        for name in names:
            draft.attrs.pop(name, None)

    return adapt


def set_default(name: str, value: int | float | str) -> Adapt:
    """An attribute whose default changed, or that came with a default of another meaning."""

    def adapt(draft: Draft) -> None:
        draft.attrs.setdefault(name, value)

    return adapt


def rename_values(name: str, names: dict[str, str]) -> Adapt:
    """An attribute whose words changed."""

    def adapt(draft: Draft) -> None:
        value = draft.attrs.get(name)
        if value in names:
            draft.attrs[name] = names[value]

    return adapt


def rename_op(op: str) -> Adapt:
    """An operator that goes by another name now."""

    def adapt(draft: Draft) -> None:
        draft.op = op

    return adapt


def refuse(reason: str, when: Callable[[Draft], bool]) -> Adapt:
    """A form that has no equivalent any more.

    Raises (when it runs):
        ModelError: The node has that form.
    """

    def adapt(draft: Draft) -> None:
        if when(draft):
            raise ModelError(reason)

    return adapt
