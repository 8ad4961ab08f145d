"""Memory of a context: anonymous pages of its own, aligned, with huge pages asked for."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

from planish.base import knobs
from planish.base.errors import PlanishError

_HUGE = 2 << 20  # bytes of a huge page
_LINE = 64


class Pages:
    """Zeroed memory, private to the process (a forked child gets a copy).

    Args:
        size: Bytes.
        what: What it is for, for the error message.

    Raises:
        PlanishError: The system has not that much memory.
    """

    def __init__(self, size: int, what: str) -> None:
        huge = size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE") and knobs.HUGE_PAGES.value
        align = _HUGE if huge else mmap.PAGESIZE
        try:
            self._map = mmap.mmap(
                -1, max(size, 1) + align, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
        except (OSError, OverflowError, ValueError) as error:
            raise PlanishError(f"no memory for {what}: {size} bytes: {error}") from error
        whole = np.frombuffer(self._map, np.uint8)
        skip = -whole.ctypes.data % align
        if huge:
            with contextlib.suppress(OSError):  # a kernel without huge pages runs as well
                self._map.madvise(mmap.MADV_HUGEPAGE)
        self.array = whole[skip : skip + size]  # the bytes, writable
        self.address = int(whole.ctypes.data) + skip
        self.size = size


def padded(size: int, align: int = _LINE) -> int:
    """A size rounded up to whole cache lines."""
    return -(-size // align) * align


def heap_array(size: int, what: str) -> np.ndarray:
    """Bytes from the heap, aligned to a cache line.

    Raises:
        PlanishError: The system has not that much memory.
    """
    try:
        raw = np.empty(size + _LINE, np.uint8)
    except (MemoryError, ValueError) as error:
        raise PlanishError(f"no memory for {what}: {size} bytes") from error
    skip = -raw.ctypes.data % _LINE
    return raw[skip : skip + size]
