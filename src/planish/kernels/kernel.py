"""What an entry of the catalogue is, and what it gives: code, units of work, packed operands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from planish.base.shapes import Dim
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget

Config = tuple[tuple[str, int | str], ...]  # (name, value) pairs in the kernel's own order


@dataclass(frozen=True)
class Phase:
    """One native function of a kernel. A barrier stands between two phases.

    The function has the C signature

        void symbol(void** args, int64_t begin, int64_t end, void* worker_scratch)

    and does the units [begin, end). `args` holds 8-byte slots: a pointer for each input, a pointer
    for each output, a pointer to the shared scratch (or null), then the values of the workload's
    `params`. Tensor pointers point at the element with all indices 0. Any split of the units over
    workers gives the same bytes.
    """

    symbol: str
    units: Dim  # units of work, in the workload's params


@dataclass(frozen=True)
class Source:
    """What `emit` gives. Pure data: the same workload, config and target give the same text.

    Attributes:
        text: An LLVM module.
        phases: The functions to run, in order.
        scratch: Bytes shared by the workers, alive from the first phase to the last.
        worker_scratch: Bytes private to each worker within one phase.
    """

    text: str
    phases: tuple[Phase, ...]
    scratch: Dim = 0
    worker_scratch: int = 0


Refuse = Callable[[Workload, CpuTarget], str | None]
Configs = Callable[[Workload, CpuTarget], Iterable[Config]]
Emit = Callable[[Workload, Config, CpuTarget], Source]
Pack = Callable[[Workload, Config, CpuTarget, int, np.ndarray], np.ndarray]
Cost = Callable[[Workload, Config, CpuTarget], float]
Growth = Callable[[Workload, Config], float]


@dataclass(frozen=True)
class Kernel:
    """An entry of the catalogue: a way to run workloads of one op.

    Attributes:
        name: device.op_dtype.variant, e.g. "cpu.conv_f32.direct".
        op: The workload op it runs.
        refuse: Why it cannot run a workload on a target; None when it can.
        configs: The points worth timing, likeliest first. Never empty when not refused.
        emit: Pure code generation.
        pack: Reformats const operand number n for the kernel; None: constants are stored dense.
        cost: Estimated seconds, to prune the search; None: no estimate.
        growth: Packed weights over stored ones where that is much; None: about 1.
        tolerance: Allowed error relative to the largest magnitude of the reference's output.
    """

    name: str
    op: str
    refuse: Refuse
    configs: Configs
    emit: Emit
    pack: Pack | None = None
    cost: Cost | None = None
    growth: Growth | None = None
    tolerance: float = 1e-4


def symbol_for(kernel: str, workload: Workload, config: Config, target: CpuTarget) -> str:
    """A symbol that no other tactic shares; phases append their number."""
    text = "\n".join([kernel, str(workload), config_text(config), str(target)])
    return f"k{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def config_text(config: Config) -> str:
    """A config as people read it: "mr=6 nr=4"."""
    return " ".join(f"{name}={value}" for name, value in config)
