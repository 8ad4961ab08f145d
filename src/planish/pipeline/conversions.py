"""Steps that only convert between floats and 8 bits: what quantising costs in the open."""

from __future__ import annotations

import re

from planish.base.dtypes import DType
from planish.graph.layer import Layer
from planish.lower.lowering import Lowered
from planish.plan import HostStep, NativeStep

_NOTE = "converts "  # how the note of such a step begins
_BYTES = frozenset((DType.U8, DType.I8))
# What a scale, a rounding and a zero point are made of.
_OPS = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "Cast", "Mul", "Div", "Add", "Sub", "Round", "Clip")
)


def note_conversions(layers: list[Layer], lowered: Lowered) -> None:
    """Note at each step that only converts what it converts."""
    kinds = {layer.name: kind for layer in layers if (kind := conversion(layer))}
    for step in lowered.steps:
        if step.name in kinds and not step.note:
            step.note = _NOTE + kinds[step.name]


def conversion(layer: Layer) -> str:
    """What a layer converts, as "f32 to u8", if that is all it does; else an empty text."""
    if layer.kind != "loop" or any(node.op not in _OPS for node in layer.nodes):
        return ""
    read = [v for v in layer.inputs() if not v.is_const]
    made = layer.nodes[-1].output.dtype
    if len(read) != 1 or (read[0].dtype in _BYTES) == (made in _BYTES):
        return ""
    floats = made if read[0].dtype in _BYTES else read[0].dtype
    return f"{read[0].dtype} to {made}" if floats.is_float else ""


def noted_conversion(note: str) -> str:
    """What a step's note says that it converts; "" for a step that does more."""
    return note.removeprefix(_NOTE) if note.startswith(_NOTE) else ""


def is_conversion(step: NativeStep | HostStep) -> bool:
    """Whether a step of a plan only converts."""
    reasons = step.reason if isinstance(step, NativeStep) else ()
    return any(reason.startswith(_NOTE) for reason in reasons)


_OPERAND = re.compile(r"\b(\w+)\[")


def step_precision(workload: str) -> str:
    """What a step computes on and what it writes, from its workload's text: "u8 to f32", "f32".

    Args:
        workload: Operator, operands, an arrow, results, as `Workload` prints itself.
    """
    read, _, made = workload.partition(" -> ")
    first, last = _OPERAND.search(read), _OPERAND.search(made)
    if first is None or last is None:
        return last.group(1) if last else ""
    kinds = (first.group(1), last.group(1))
    return kinds[0] if kinds[0] == kinds[1] else f"{kinds[0]} to {kinds[1]}"
