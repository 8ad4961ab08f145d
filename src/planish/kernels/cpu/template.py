"""What all kernels that are a template of code have in common.

A template writes the code of a layer and arranges its weights. That the code has a symbol of its
own, and that other constants lie as their strides say, is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from planish.kernels.cpu.pack import lay_out
from planish.kernels.kernel import (
    Config,
    Configs,
    Cost,
    Growth,
    Kernel,
    Refuse,
    Source,
    symbol_for,
)
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget

Write = Callable[[Workload, Config, CpuTarget, str], Source]
PackWeights = Callable[[Workload, Config, CpuTarget, np.ndarray], np.ndarray]


def template_kernel(
    name: str,
    op: str,
    *,
    refuse: Refuse,
    configs: Configs,
    write: Write,
    pack: PackWeights,
    cost: Cost,
    growth: Growth | None = None,
) -> Kernel:
    """An entry of the catalogue made of a template's parts.

    Args:
        name: As of a `Kernel`; so are `op`, `refuse`, `configs`, `cost` and `growth`.
        op: The workload op.
        refuse: Why a workload is not taken.
        configs: The points worth timing.
        write: Writes the code under the symbol that is given last.
        pack: Arranges constant weights, operand 1, as the code reads them.
        cost: Estimated seconds.
        growth: Packed weights over stored ones.
    """

    def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
        return write(w, c, t, symbol_for(name, w, c, t))

    def pack_any(
        w: Workload, c: Config, t: CpuTarget, number: int, array: np.ndarray
    ) -> np.ndarray:
        return pack(w, c, t, array) if number == 1 else lay_out(w.inputs[number], array)

    return Kernel(name, op, refuse, configs, emit, pack_any, cost, growth)
