"""Operators that move no data: where their result lies, given where their input lies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from planish.base.shapes import Dim
from planish.graph.graph import Node, Value
from planish.lower.storage import Storage, expanded, reshaped, sliced, transposed


def view_of(node: Node, value: Value, source: Storage) -> Storage | None:
    """Where a result of a view operator lies, as a view of its input.

    Args:
        node: The operator.
        value: Which of its results.
        source: Where its first input lies.

    Returns:
        The view; None where strides cannot express it, so that a copy is needed.
    """
    rule = _RULES.get(node.op)
    return None if rule is None else rule(node, value, source)


def source_of(node: Node, value: Value, result: Storage) -> Storage | None:
    """Where the input of an invertible view must lie for its result to lie where it is wanted."""
    if node.op == "Transpose":
        perm = node.attrs.get("perm") or tuple(reversed(range(len(result.shape))))
        return transposed(result, [perm.index(axis) for axis in range(len(perm))])
    return reshaped(result, value.shape)


def _reshape(node: Node, value: Value, source: Storage) -> Storage | None:
    return reshaped(source, value.shape)


def _transpose(node: Node, value: Value, source: Storage) -> Storage | None:
    perm = node.attrs.get("perm") or tuple(reversed(range(len(source.shape))))
    return transposed(source, perm)


def _expand(node: Node, value: Value, source: Storage) -> Storage | None:
    return expanded(source, value.shape)


def _identity(node: Node, value: Value, source: Storage) -> Storage | None:
    return source


def _split(node: Node, value: Value, source: Storage) -> Storage | None:
    axis = int(node.attrs.get("axis", 0)) % len(source.shape)
    start: Dim = 0
    for output in node.outputs:
        if output is None:
            return None
        if output is value:
            return sliced(source, axis, start, output.shape[axis])
        start = start + output.shape[axis]
    return None


def _slice(node: Node, value: Value, source: Storage) -> Storage | None:
    starts = _ints(node.input(1))
    rank = len(source.shape)
    if starts is None:
        return None
    axes = _ints(node.input(3)) if node.input(3) is not None else tuple(range(len(starts)))
    steps = _ints(node.input(4)) if node.input(4) is not None else (1,) * len(starts)
    if axes is None or steps is None:
        return None
    view = source
    for start, axis, step in zip(starts, axes, steps, strict=True):
        axis %= rank
        extent = source.shape[axis]
        begin = _begin(start, step, extent)
        if begin is None:
            return None
        view = sliced(view, axis, begin, value.shape[axis], step)
    return view


def _begin(start: int, step: int, extent: Dim) -> Dim | None:
    """First index of a slice, clamped as ONNX says; None where it hangs on a run-time size."""
    if isinstance(extent, int):
        first = start + extent if start < 0 else start
        return max(0, min(first, extent if step > 0 else extent - 1))
    if start == 0:
        return 0
    if step < 0 and start in (-1, np.iinfo(np.int64).max, np.iinfo(np.int32).max):
        return extent - 1
    return None


def _ints(value: Value | None) -> tuple[int, ...] | None:
    if value is None or value.data is None:
        return None
    return tuple(int(v) for v in value.data.reshape(-1))


# Views of all elements, each once: their source can be put where their result is wanted.
INVERTIBLE = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"))

_RULES: dict[str, Callable[[Node, Value, Storage], Storage | None]] = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Expand": _expand,
    "Identity": _identity,
    "Split": _split,
    "Slice": _slice,
}
