"""The kernels that are a register tile of pixels × output channels: two ops in two arithmetics.

Weights are constant and packed block by block. A convolution takes any number of spatial axes, any
groups and any strides, without copies for padding: taps that lie in it are left out of the code
where extents are constant, and are cut off by the bounds of run-time loops elsewhere. The rows of a
matmul's a are the tile's pixels.

Integer sums are exact: u8 · s8 or s8 · s8 in i32. A step of the reduction takes some neighbouring
channels at once; where their number is no multiple of it, a row of taps is cut into steps as a
whole if it lies densely, and no input is read that the layer does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from planish.base.shapes import is_static
from planish.kernels.conv_shape import refuse_shape
from planish.kernels.cpu.contraction import Contraction, conv_contraction, matmul_contraction
from planish.kernels.cpu.contraction_code import emit_contraction
from planish.kernels.cpu.contraction_tuning import cost_of, shape_of, shapes_for
from planish.kernels.cpu.operands import refuse_bytes, refuse_floats
from planish.kernels.cpu.pack import channel_blocks, pack_weights
from planish.kernels.cpu.products import Product, float_product, integer_product
from planish.kernels.cpu.template import template_kernel
from planish.kernels.kernel import Config, Kernel, Source
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget


@dataclass(frozen=True)
class _Op:
    """An op as the register tile sees it.

    Attributes:
        name: The workload op.
        refuse: Why its operands' shapes cannot be taken.
        problem: The op as pixels, windows and channels.
        rows: Its weights as [features, channels, taps].
    """

    name: str
    refuse: Callable[[Workload], str | None]
    problem: Callable[[Workload, Product], Contraction]
    rows: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Numbers:
    """What a register tile computes with.

    Attributes:
        refuse: Why the operands' types cannot be taken.
        product: How they are multiplied on a target.
    """

    refuse: Callable[[Workload], str | None]
    product: Callable[[Workload, CpuTarget], Product]


def _refuse_matmul(w: Workload) -> str | None:
    b = w.inputs[1]
    if not b.const:
        return "b is not constant, so it cannot be packed"
    if not is_static(b.shape[-2:]):
        return "the extents of b are symbolic"
    for extent, stride in zip(b.shape[:-2], b.strides[:-2], strict=True):
        if extent != 1 and stride != 0:
            return "b varies along a batch axis"
    return None


def _columns_of(b: np.ndarray) -> np.ndarray:
    """The columns of b, which is the same along its batch axes."""
    matrix: np.ndarray = b[(0,) * (b.ndim - 2)]
    return matrix.T[:, :, None]


_CONV = _Op("conv", refuse_shape, conv_contraction, lambda w: w.reshape(*w.shape[:2], -1))
_MATMUL = _Op("matmul", _refuse_matmul, matmul_contraction, _columns_of)
_FLOATS = _Numbers(refuse_floats, lambda w, t: float_product(w.inputs[1].dtype, t))
_BYTES = _Numbers(refuse_bytes, lambda w, t: integer_product(w.inputs[0].dtype, t))


def _kernel(name: str, op: _Op, numbers: _Numbers) -> Kernel:
    def problem(w: Workload, t: CpuTarget) -> Contraction:
        return op.problem(w, numbers.product(w, t))

    def refuse(w: Workload, t: CpuTarget) -> str | None:
        del t
        return op.refuse(w) or numbers.refuse(w)

    def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
        return shapes_for(problem(w, t), t)

    def write(w: Workload, c: Config, t: CpuTarget, symbol: str) -> Source:
        return emit_contraction(problem(w, t), shape_of(c), t, symbol)

    def pack(w: Workload, c: Config, t: CpuTarget, array: np.ndarray) -> np.ndarray:
        layer = problem(w, t)
        blocks = channel_blocks(layer, t.lanes(), shape_of(c).nr)
        return pack_weights(layer, blocks, op.rows(array))

    def cost(w: Workload, c: Config, t: CpuTarget) -> float:
        return cost_of(problem(w, t), shape_of(c), t)

    return template_kernel(
        name, op.name, refuse=refuse, configs=configs, write=write, pack=pack, cost=cost
    )


CONV_DIRECT = _kernel("cpu.conv_f32.direct", _CONV, _FLOATS)
CONV_DOT = _kernel("cpu.conv_u8.dot", _CONV, _BYTES)
MATMUL_PACKED = _kernel("cpu.matmul_f32.packed", _MATMUL, _FLOATS)
MATMUL_DOT = _kernel("cpu.matmul_u8.dot", _MATMUL, _BYTES)
