"""Which operands the register-tile templates take."""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.shapes import is_static
from planish.kernels.cpu.epilogue import accumulator_dtype
from planish.kernels.workload import Workload


def refuse_floats(w: Workload) -> str | None:
    """Why the f32 templates cannot take the operands; None when they can.

    Any strides are taken. Symbolic sizes may stand in the batch and pixel axes. Weights may be
    stored as f16 or as whole numbers of a byte.
    """
    x, weights = (operand.dtype for operand in w.inputs[:2])
    if x is not DType.F32 or weights not in (DType.F32, DType.F16, DType.I8):
        return "an operand is not f32"
    if any(accumulator_dtype(w, n) is not DType.F32 for n in range(len(w.outputs))):
        return "the sums are not f32"
    return _refuse_layout(w)


def refuse_bytes(w: Workload) -> str | None:
    """Why the integer templates cannot take the operands; None when they can."""
    x, weights = (operand.dtype for operand in w.inputs[:2])
    if x not in (DType.U8, DType.I8) or weights is not DType.I8:
        return "the operands are not u8 or i8 times i8"
    if any(accumulator_dtype(w, n) is not DType.I32 for n in range(len(w.outputs))):
        return "the sums are not i32"
    return _refuse_layout(w)


def _refuse_layout(w: Workload) -> str | None:
    if not w.inputs[1].const:
        return "the weights are not constant, so they cannot be packed"
    if any(extent == 0 for o in (*w.inputs[:2], *w.outputs) for extent in o.shape):
        return "an extent is 0, so there is nothing to tile"
    channel_axis = 1 if w.op == "conv" else len(w.outputs[0].shape) - 1
    if not is_static(output.shape[channel_axis] for output in w.outputs):
        return "the number of output channels is symbolic"
    if any(not is_static(operand.strides) for operand in w.inputs if operand.const):
        return "a constant has symbolic strides"
    return None
