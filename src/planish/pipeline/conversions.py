"""Steps that only convert between floats and 8 bits: what quantising costs in the open."""

from __future__ import annotations

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


def is_conversion(step: NativeStep | HostStep) -> bool:
    """Whether a step of a plan only converts."""
    reasons = step.reason if isinstance(step, NativeStep) else ()
    return any(reason.startswith(_NOTE) for reason in reasons)
