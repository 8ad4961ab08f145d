"""f32 matmul with constant b, packed in blocks of columns: rows of a are the tile's pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.base.shapes import is_static
from planish.kernels.cpu.contraction import Contraction, matmul_contraction
from planish.kernels.cpu.contraction_code import emit_contraction
from planish.kernels.cpu.contraction_tuning import cost_of, shape_of, shapes_for
from planish.kernels.cpu.operands import refuse_floats
from planish.kernels.cpu.pack import channel_blocks, lay_out, pack_weights
from planish.kernels.cpu.products import float_product
from planish.kernels.kernel import Config, Kernel, Source, symbol_for
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget

NAME = "cpu.matmul_f32.packed"


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    b = w.inputs[1]
    if not b.const:
        return "b is not constant, so it cannot be packed"
    if not is_static(b.shape[-2:]):
        return "the extents of b are symbolic"
    for extent, stride in zip(b.shape[:-2], b.strides[:-2], strict=True):
        if extent != 1 and stride != 0:
            return "b varies along a batch axis"
    return refuse_floats(w)


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    yield from shapes_for(_problem(w, t), t)


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """Pure: the same arguments give the same text."""
    return emit_contraction(_problem(w, t), shape_of(c), t, symbol_for(NAME, w, c, t))


def pack(w: Workload, c: Config, t: CpuTarget, number: int, array: np.ndarray) -> np.ndarray:
    """B block by block; other constants as their strides say."""
    if number != 1:
        return lay_out(w.inputs[number], array)
    problem = _problem(w, t)
    b = array[(0,) * (array.ndim - 2)]
    blocks = channel_blocks(problem, t.lanes(), shape_of(c).nr)
    return pack_weights(problem, blocks, b.T[:, :, None])


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds."""
    return cost_of(_problem(w, t), shape_of(c), t)


def _problem(w: Workload, t: CpuTarget) -> Contraction:
    return matmul_contraction(w, float_product(w.inputs[1].dtype, t))


KERNEL = Kernel(NAME, "matmul", refuse, configs, emit, pack, cost)
