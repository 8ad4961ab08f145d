"""Every kernel of planish, one line each. The order is the order in which tactics are tried."""

from __future__ import annotations

from planish.kernels.kernel import Kernel

KERNELS: tuple[Kernel, ...] = ()
