"""Every kernel of planish, one line each. The order is the order in which tactics are tried."""

from __future__ import annotations

from planish.kernels.cpu import (
    attention,
    contraction_kernels,
    conv_depthwise,
    conv_depthwise_int8,
    conv_winograd,
    line_kernels,
    matmul_batched,
    matmul_plain,
    nest,
)
from planish.kernels.kernel import Kernel

KERNELS: tuple[Kernel, ...] = (
    conv_depthwise.KERNEL,
    conv_depthwise_int8.KERNEL,
    conv_winograd.FLOATS,
    conv_winograd.BYTES,
    contraction_kernels.CONV_DIRECT,
    contraction_kernels.CONV_DOT,
    line_kernels.CONV_PLAIN,
    line_kernels.CONV_TRANSPOSE,
    contraction_kernels.MATMUL_PACKED,
    contraction_kernels.MATMUL_DOT,
    matmul_batched.KERNEL,
    matmul_plain.KERNEL,
    attention.KERNEL,
    nest.KERNEL,
)
