"""Direct f32 convolution: register tiles of pixels × output channels, padding without copies.

Taps that lie in the padding are left out of the code where extents are constant, and are cut off by
the bounds of run-time loops elsewhere. Any number of spatial axes, any groups, any strides.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.kernels.conv_shape import refuse_shape
from planish.kernels.cpu.contraction import Contraction, conv_contraction
from planish.kernels.cpu.contraction_code import emit_contraction
from planish.kernels.cpu.contraction_tuning import cost_of, shape_of, shapes_for
from planish.kernels.cpu.operands import refuse_floats
from planish.kernels.cpu.pack import channel_blocks, lay_out, pack_weights
from planish.kernels.cpu.products import float_product
from planish.kernels.kernel import Config, Kernel, Source, symbol_for
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget

NAME = "cpu.conv_f32.direct"


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    return refuse_shape(w) or refuse_floats(w)


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    yield from shapes_for(_problem(w, t), t)


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """Pure: the same arguments give the same text."""
    return emit_contraction(_problem(w, t), shape_of(c), t, symbol_for(NAME, w, c, t))


def pack(w: Workload, c: Config, t: CpuTarget, number: int, array: np.ndarray) -> np.ndarray:
    """Weights block by block; other constants as their strides say."""
    if number != 1:
        return lay_out(w.inputs[number], array)
    problem = _problem(w, t)
    weights = array.reshape(array.shape[0], array.shape[1], -1)
    return pack_weights(problem, channel_blocks(problem, t.lanes(), shape_of(c).nr), weights)


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds."""
    return cost_of(_problem(w, t), shape_of(c), t)


def _problem(w: Workload, t: CpuTarget) -> Contraction:
    return conv_contraction(w, float_product(w.inputs[1].dtype, t))


KERNEL = Kernel(NAME, "conv", refuse, configs, emit, pack, cost)
