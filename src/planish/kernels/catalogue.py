"""Every kernel of planish, one line each. The order is the order in which tactics are tried."""

from __future__ import annotations

from planish.kernels.cpu import (
    attention,
    conv_depthwise,
    conv_depthwise_int8,
    conv_direct,
    conv_int8,
    conv_plain,
    conv_transpose,
    conv_winograd,
    matmul_batched,
    matmul_int8,
    matmul_packed,
    matmul_plain,
    nest,
)
from planish.kernels.kernel import Kernel

KERNELS: tuple[Kernel, ...] = (
    conv_depthwise.KERNEL,
    conv_depthwise_int8.KERNEL,
    conv_winograd.KERNEL,
    conv_direct.KERNEL,
    conv_int8.KERNEL,
    conv_plain.KERNEL,
    conv_transpose.KERNEL,
    matmul_packed.KERNEL,
    matmul_int8.KERNEL,
    matmul_batched.KERNEL,
    matmul_plain.KERNEL,
    attention.KERNEL,
    nest.KERNEL,
)
