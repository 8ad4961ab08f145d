"""Runs one emitted source on arrays: how tests check kernels and the tuner checks tactics.

Memory handed to native code here lies between guard pages, so that an over-read faults in the test
instead of passing, and outputs start poisoned, so that an element that nobody wrote is seen.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.errors import VerifyError
from planish.targets.link import LinkedCode

_PAGE = mmap.PAGESIZE
_PROTECT_NONE = 0
PHASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


@dataclass(frozen=True)
class Launch:
    """One phase with its work: `units` are split evenly over the workers."""

    symbol: str
    units: int


class GuardedBuffer:
    """Bytes that end right before a page nobody may touch.

    Args:
        size: Bytes.
        align: Alignment of the first byte; slack that it needs lies before the buffer.
        poison: Value of every byte at the start.
    """

    def __init__(self, size: int, *, align: int = 4, poison: int = 0xCB) -> None:
        pages = max(1, -(-size // _PAGE))
        self._map = mmap.mmap(-1, (pages + 2) * _PAGE)
        view = (ctypes.c_char * ((pages + 2) * _PAGE)).from_buffer(self._map)
        base = ctypes.addressof(view)
        self._view = view
        libc = ctypes.CDLL(None, use_errno=True)
        for guard in (base, base + (pages + 1) * _PAGE):
            if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(_PAGE), _PROTECT_NONE):
                raise VerifyError("mprotect refused a guard page")
        self.address = (base + (pages + 1) * _PAGE - size) // align * align
        self.size = size
        ctypes.memset(self.address, poison, size)

    def write(self, array: np.ndarray) -> None:
        """Copy the bytes of an array to the start of the buffer."""
        data = np.ascontiguousarray(array)
        if data.nbytes > self.size:
            raise VerifyError(f"{data.nbytes} bytes do not fit a buffer of {self.size}")
        ctypes.memmove(self.address, data.ctypes.data, data.nbytes)

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        """A view of the first `count` elements."""
        raw = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(self.address)
        return np.ndarray((count,), dtype, memoryview(raw).cast("B"))


def launch(
    linked: LinkedCode,
    phases: Sequence[Launch],
    pointers: Sequence[int],
    params: Sequence[int],
    *,
    threads: int = 1,
    worker_scratch: int = 0,
) -> None:
    """Run the phases in order, each split over `threads` workers, with a barrier between them.

    Args:
        linked: Where the symbols are.
        phases: Functions and their units of work.
        pointers: Inputs, outputs, shared scratch (0 for none).
        params: Values of the run-time sizes, in the workload's order.
        threads: Workers.
        worker_scratch: Bytes private to each worker.
    """
    slots = (ctypes.c_int64 * (len(pointers) + len(params)))(*pointers, *params)
    private = [GuardedBuffer(max(worker_scratch, 1), align=64) for _ in range(threads)]
    for phase in phases:
        function = PHASE(linked.address(phase.symbol))
        bounds = [phase.units * w // threads for w in range(threads + 1)]
        calls = [
            (ctypes.addressof(slots), bounds[w], bounds[w + 1], private[w].address)
            for w in range(threads)
        ]
        others = [threading.Thread(target=function, args=call) for call in calls[1:]]
        for other in others:
            other.start()
        function(*calls[0])
        for other in others:
            other.join()
