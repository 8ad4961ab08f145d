"""Every kernel of planish, one line each. The order is the order in which tactics are tried."""

from __future__ import annotations

from planish.kernels.cpu import conv_direct, matmul_packed
from planish.kernels.kernel import Kernel

KERNELS: tuple[Kernel, ...] = (
    conv_direct.KERNEL,
    matmul_packed.KERNEL,
)
