"""Splices an epilogue into a template: from accumulators in registers to stored outputs.

Lanes run along one logical axis of the output. An operand that does not vary along it is read once
and repeated, one whose elements are neighbours is read as a vector, any other lane by lane. The
values of all cells are computed before the first store, so that LLVM may share the loads of cells
that read the same elements.
"""

from __future__ import annotations

from collections.abc import Sequence

from planish.base.dtypes import DType
from planish.base.expr import Temp, walk
from planish.kernels.cpu.frame import Frame
from planish.kernels.workload import Workload
from planish.targets.ir import Val

Cell = tuple[Val, Val, Sequence[Val]]  # accumulator, address of its first lane, output index


def accumulator_dtype(w: Workload, output: int) -> DType:
    """The type of the value that the epilogue of an output starts from."""
    if w.epilogue:
        for part in walk(w.epilogue[output]):
            if isinstance(part, Temp):
                return part.dtype
    return w.outputs[output].dtype


def store_all(
    frame: Frame,
    workload: Workload,
    output: int,
    cells: Sequence[Cell],
    *,
    lane_axis: int,
    mask: Val | None = None,
) -> None:
    """Finish and store vectors of accumulators.

    Args:
        frame: The phase.
        workload: Whose epilogue to apply.
        output: Number of the output.
        cells: The vectors, with where they go.
        lane_axis: The output's logical axis along which the lanes lie.
        mask: Lanes that exist; None for all.
    """
    f = frame.f
    for value, place, _ in cells:
        if mask is None:
            f.store(value, place)
        else:
            f.masked_store(value, place, mask)
