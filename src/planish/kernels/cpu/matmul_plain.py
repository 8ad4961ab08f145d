"""Matmul of any element types: the kernel that refuses nothing legal.

Both operands are converted to the type of the sums on their way into the register tile, b while it
is copied to panels, a element by element.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.base.dtypes import DType
from planish.kernels.cpu.arithmetic import register_type
from planish.kernels.cpu.epilogue import accumulator_dtype
from planish.kernels.cpu.matmul_batched import BatchedWriter
from planish.kernels.cpu.tile_epilogue import weight_of
from planish.kernels.kernel import Config, Kernel, Source, symbol_for
from planish.kernels.workload import Workload, typical
from planish.targets.cpu import CpuTarget
from planish.targets.ir import element_bytes

NAME = "cpu.matmul.plain"


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    del t
    for operand in (*w.inputs[:2], *w.outputs):
        if not operand.dtype.llvm or operand.dtype is DType.BOOL:
            return f"{operand.dtype} is no type to multiply in"
    return None


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    lanes = t.lanes(element_bytes(register_type(accumulator_dtype(w, 0))))
    columns = w.outputs[0].shape[-1]
    vectors = -(-columns // lanes) if isinstance(columns, int) else 2
    yield (("mr", 4), ("nv", max(1, min(2, vectors))), ("mb", 32), ("pack", "phase"))


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """Pure: the same arguments give the same text."""
    return BatchedWriter(w, c, t, symbol_for(NAME, w, c, t)).source()


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds: a product takes about four times what the fast kernels need."""
    del c
    lanes = t.lanes(element_bytes(register_type(accumulator_dtype(w, 0))))
    total: float = 1.0
    for dim in (*w.outputs[0].shape, w.inputs[0].shape[-1]):
        total *= typical(dim)
    ends = 2 + max(map(weight_of, w.epilogue), default=0) / 2
    for dim in w.outputs[0].shape:
        ends *= typical(dim)
    return (total * 4 + ends) / lanes / 3e9 / max(1, t.threads)


KERNEL = Kernel(NAME, "matmul", refuse, configs, emit, cost=cost)
