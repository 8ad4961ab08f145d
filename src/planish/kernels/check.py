"""Runs a kernel on arrays, in memory laid out as its workload says, and says how far off it is.

Gaps between the elements of strided operands hold poison; a kernel that writes one is caught here,
and one that reads or writes past an operand's last element faults on a guard page.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from planish.base.errors import VerifyError
from planish.base.shapes import evaluate
from planish.kernels.kernel import Config, Kernel, Source, config_text
from planish.kernels.workload import Operand, Workload
from planish.targets.cpu import CpuTarget, compile_object
from planish.targets.launch import GuardedBuffer, Launch, launch
from planish.targets.link import LinkedCode

_POISON = 0xCB


class _Laid:
    """An operand in guarded memory."""

    def __init__(self, operand: Operand, sizes: Mapping[str, int]) -> None:
        self.shape = tuple(evaluate(d, sizes) for d in operand.shape)
        strides = [evaluate(s, sizes) for s in operand.strides]
        self.dtype = operand.dtype.numpy
        reach = [(n - 1) * s for n, s in zip(self.shape, strides, strict=True) if n > 0]
        self.first = -sum(r for r in reach if r < 0)  # elements before the one at all zeros
        empty = 0 in self.shape
        self.span = 0 if empty else self.first + sum(r for r in reach if r > 0) + 1
        self.strides = tuple(s * self.dtype.itemsize for s in strides)
        self.buffer = GuardedBuffer(
            self.span * self.dtype.itemsize, align=self.dtype.itemsize, poison=_POISON
        )
        self.address = self.buffer.address + self.first * self.dtype.itemsize

    def view(self, memory: np.ndarray | None = None) -> np.ndarray:
        """The logical array inside the buffer, or inside other memory of the same span."""
        flat = self.buffer.array(self.dtype, self.span) if memory is None else memory
        if not self.span:
            return np.zeros(self.shape, self.dtype)
        strides = tuple(s // self.dtype.itemsize * flat.itemsize for s in self.strides)
        return np.lib.stride_tricks.as_strided(flat[self.first :], self.shape, strides)

    def require_gaps_untouched(self, what: str) -> None:
        """Raise if a byte that belongs to no element has changed."""
        owned = np.zeros(self.span, np.bool_)
        self.view(owned)[...] = True
        bytes_ = self.buffer.array(np.dtype(np.uint8), self.span * self.dtype.itemsize)
        changed = (bytes_.reshape(self.span, self.dtype.itemsize) != _POISON).any(axis=1) & ~owned
        if changed.any():
            first = int(np.flatnonzero(changed)[0]) - self.first
            raise VerifyError(f"{what}: the gap element at offset {first} was written")


def run_kernel(
    kernel: Kernel,
    workload: Workload,
    config: Config,
    target: CpuTarget,
    inputs: Sequence[np.ndarray],
    env: Mapping[str, int] | None = None,
    threads: int = 1,
) -> list[np.ndarray]:
    """Compile and run one tactic.

    Args:
        kernel: A kernel that does not refuse the workload.
        workload: What to run.
        config: One of the kernel's configs.
        target: What to compile for.
        inputs: One array for each operand, in its logical shape.
        env: Values of the symbolic sizes.
        threads: Workers to split the units over; the result may not depend on it.

    Returns:
        The outputs, in logical shapes.

    Raises:
        VerifyError: An input has the wrong shape, or a gap of a strided output was written.
        CompileError: LLVM refused the code.
    """
    source, linked = build(kernel, workload, config, target)
    return run_built(kernel, workload, config, target, source, linked, inputs, env, threads)


def run_built(
    kernel: Kernel,
    workload: Workload,
    config: Config,
    target: CpuTarget,
    source: Source,
    linked: LinkedCode,
    inputs: Sequence[np.ndarray],
    env: Mapping[str, int] | None = None,
    threads: int = 1,
) -> list[np.ndarray]:
    """Run a tactic that is compiled and linked already; as `run_kernel`."""
    sizes = dict(env or {})
    where = f"{kernel.name} [{config_text(config)}] on {workload}"
    ins = [_lay(kernel, workload, config, target, n, a, sizes) for n, a in enumerate(inputs)]
    outs = [_Laid(output, sizes) for output in workload.outputs]
    shared = GuardedBuffer(max(1, evaluate(source.scratch, sizes)), align=64, poison=_POISON)
    pointers = [laid[0] for laid in ins] + [laid.address for laid in outs] + [shared.address]
    launch(
        linked,
        [Launch(phase.symbol, evaluate(phase.units, sizes)) for phase in source.phases],
        pointers,
        [sizes[name] for name in workload.params],
        threads=threads,
        worker_scratch=source.worker_scratch,
    )
    for number, laid in enumerate(outs):
        laid.require_gaps_untouched(f"output {number} of {where}")
    return [laid.view().copy() for laid in outs]


@functools.lru_cache(maxsize=256)
def build(
    kernel: Kernel, workload: Workload, config: Config, target: CpuTarget
) -> tuple[Source, LinkedCode]:
    """A tactic's source, and its code linked into this process."""
    source = kernel.emit(workload, config, target)
    return source, LinkedCode([compile_object(source.text, target)])


def _lay(
    kernel: Kernel,
    workload: Workload,
    config: Config,
    target: CpuTarget,
    number: int,
    array: np.ndarray,
    sizes: Mapping[str, int],
) -> tuple[int, object]:
    """The address of an input and what keeps it alive."""
    operand = workload.inputs[number]
    shape = tuple(evaluate(d, sizes) for d in operand.shape)
    if array.shape != shape or array.dtype != operand.dtype.numpy:
        raise VerifyError(
            f"operand {number} is {operand}, the array is {array.dtype}{list(array.shape)}"
        )
    if operand.const and kernel.pack is not None:
        packed = kernel.pack(workload, config, target, number, array)
        buffer = GuardedBuffer(packed.nbytes, align=64, poison=_POISON)
        buffer.write(packed)
        return buffer.address, buffer
    laid = _Laid(operand, sizes)
    laid.view()[...] = array
    return laid.address, laid


def largest_error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, relative to the largest finite magnitude of `want`.

    Infinite where NaN or infinity stand in different places. Integers and bools differ by 0 or inf.
    """
    if got.shape != want.shape:
        raise VerifyError(f"the result has shape {got.shape}, the reference {want.shape}")
    if want.dtype.kind in "iub":
        return 0.0 if np.array_equal(got, want) else float("inf")
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    error = float(np.abs(a[finite] - b[finite]).max())
    scale = float(np.abs(b[finite]).max())
    return error / scale if scale and error == error else (0.0 if error == 0 else float("inf"))
