"""Every operator that planish knows, by name, and why an instance cannot run natively."""

from __future__ import annotations

from collections.abc import Mapping

from planish.ops.activation import ACTIVATION
from planish.ops.attention import ATTENTION
from planish.ops.binary import BINARY
from planish.ops.blocks import BLOCKS
from planish.ops.composite import COMPOSITE
from planish.ops.contraction import CONTRACTION
from planish.ops.convert import CONVERT
from planish.ops.einsum import EINSUM
from planish.ops.framing import FRAMING
from planish.ops.gathering import GATHERING
from planish.ops.generators import GENERATORS
from planish.ops.host import HOST
from planish.ops.integer import INTEGER
from planish.ops.normalization import NORMALIZATION
from planish.ops.op import Args, Attrs, Op, Result
from planish.ops.padding import PADDING
from planish.ops.pooling import POOLING
from planish.ops.quantization import QUANTIZATION
from planish.ops.recurrent import RECURRENT
from planish.ops.reduction import REDUCTION
from planish.ops.resizing import RESIZING
from planish.ops.sampling import SAMPLING
from planish.ops.scaled_attention import SCALED_ATTENTION
from planish.ops.scanning import SCANNING
from planish.ops.scattering import SCATTERING
from planish.ops.slicing import SLICING
from planish.ops.softmax import SOFTMAX
from planish.ops.unary import UNARY
from planish.ops.views import VIEWS

FAMILIES: tuple[tuple[Op, ...], ...] = (
    UNARY,
    BINARY,
    ACTIVATION,
    CONVERT,
    VIEWS,
    SLICING,
    PADDING,
    GATHERING,
    CONTRACTION,
    COMPOSITE,
    REDUCTION,
    POOLING,
    SOFTMAX,
    NORMALIZATION,
    GENERATORS,
    BLOCKS,
    QUANTIZATION,
    RESIZING,
    SAMPLING,
    SCATTERING,
    SCANNING,
    ATTENTION,
    SCALED_ATTENTION,
    INTEGER,
    EINSUM,
    FRAMING,
    RECURRENT,
    HOST,
)

OPS: Mapping[str, Op] = {op.name: op for family in FAMILIES for op in family}


def refusal(op: Op, args: Args, attrs: Attrs, results: list[Result]) -> str | None:
    """Why an instance of an operator cannot run natively; None when it can.

    Args:
        op: The operator.
        args: Its inputs.
        attrs: Its attributes.
        results: What `op.infer` gave for them.
    """
    if not (op.element or op.reduce or op.nest or op.expand or op.anchor):
        return f"{op.name} has no native form"
    for what, types in (("input", args), ("output", results)):
        for number, found in enumerate(types):
            if found is None:
                continue
            if found.shape is None:
                return f"the rank of {what} {number} is not known"
            if not found.dtype.llvm:
                return f"{what} {number} is {found.dtype}, which native kernels do not handle"
    return op.refuse(args, attrs) if op.refuse is not None else None
