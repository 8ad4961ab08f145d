"""What values a tensor takes: a histogram that knows no order, in memory of a fixed size.

Bins count magnitudes, apart for positive and for negative numbers, and exact zeros are counted by
themselves. A bin is a power of two wide. When a larger magnitude comes than the bins reach, they
are merged in pairs until they do. As scaling by a power of two is exact, a number lands where it
would have landed had the bins been so wide from the start: so the final state depends on the data
as a set, never on the order or on the batches they came in, and histograms can be added up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planish.base.errors import InputError

BINS = 2048  # of each sign; the largest magnitude lies in the upper half of them
_FINEST = -100  # exponent of the narrowest bins, so that their inverse is an f32
_CHUNK = 1 << 16  # elements that are counted at a time, so that they stay in the cache


@dataclass
class Histogram:
    """Counts of a tensor's values. Compares by contents through `state`.

    Attributes:
        width: Of a bin; a power of two, 0.0 while only zeros have come.
        positive: Counts of the positive numbers; bin i holds magnitudes from i·width to below
            (i + 1)·width.
        negative: Likewise for the negative ones.
        zeros: Exact zeros.
        low: The smallest number; 0.0 while nothing has come.
        high: The largest number.
        empty: True while nothing has come.
    """

    width: float
    positive: np.ndarray
    negative: np.ndarray
    zeros: int = 0
    low: float = 0.0
    high: float = 0.0
    empty: bool = True

    @classmethod
    def new(cls) -> Histogram:
        """A histogram of nothing."""
        return cls(0.0, np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))

    @property
    def total(self) -> int:
        """Numbers counted."""
        return int(self.positive.sum()) + int(self.negative.sum()) + self.zeros

    @property
    def state(self) -> tuple[object, ...]:
        """Everything that it knows, for comparison."""
        counts = (self.positive.tobytes(), self.negative.tobytes())
        return (self.width, *counts, self.zeros, self.low, self.high, self.empty)

    def add(self, values: np.ndarray) -> None:
        """Count numbers.

        Args:
            values: An array of floats of any shape.

        Raises:
            InputError: One of them is NaN or infinite.
        """
        flat = np.ascontiguousarray(values).reshape(-1)
        if not flat.size:
            return
        if flat.dtype not in (np.float32, np.float64):
            flat = flat.astype(np.float32)
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"expected finite numbers, found {_odd(flat)}")
        self._reach(low, high)
        if self.width == 0.0:
            self.zeros += flat.size
            return
        scale = flat.dtype.type(1.0 / self.width)
        for start in range(0, flat.size, _CHUNK):
            self._count(flat[start : start + _CHUNK], scale, low < 0.0)

    def merge(self, other: Histogram) -> None:
        """Count what another histogram has counted."""
        if other.empty:
            return
        self._reach(other.low, other.high)
        self.zeros += other.zeros
        if other.width:
            self.positive += _merged(other.positive, other.width, self.width)
            self.negative += _merged(other.negative, other.width, self.width)

    def _count(self, part: np.ndarray, scale: np.floating, signed: bool) -> None:
        zeros = part.size - int(np.count_nonzero(part))
        self.zeros += zeros
        if not signed:
            counts = np.bincount((part * scale).astype(np.int32), minlength=BINS)
        else:
            place = (np.abs(part) * scale).astype(np.int32)
            place += np.multiply(part < 0, BINS, dtype=np.int32)
            both = np.bincount(place, minlength=2 * BINS)
            counts = both[:BINS]
            self.negative += both[BINS:]
        counts[0] -= zeros
        self.positive += counts

    def _reach(self, low: float, high: float) -> None:
        """Note the extremes, and widen the bins until they hold them."""
        self.low = low if self.empty else min(self.low, low)
        self.high = high if self.empty else max(self.high, high)
        self.empty = False
        width = _width(max(abs(low), abs(high)))
        if width > self.width:
            self.positive = _merged(self.positive, self.width, width)
            self.negative = _merged(self.negative, self.width, width)
            self.width = width


def _width(peak: float) -> float:
    """The least power of two of which `BINS` go beyond a magnitude; 0.0 for 0.0."""
    if peak == 0.0:
        return 0.0
    _, exponent = math.frexp(peak)
    return math.ldexp(1.0, max(exponent - (BINS.bit_length() - 1), _FINEST))


def _merged(counts: np.ndarray, width: float, wider: float) -> np.ndarray:
    """Counts of bins, as counts of wider bins."""
    if width == 0.0:  # nothing but zeros so far
        return counts
    while width < wider:
        pairs = counts.reshape(-1, 2).sum(axis=1)
        if not pairs.any():
            return np.zeros_like(counts)
        counts = np.concatenate([pairs, np.zeros(BINS - pairs.size, counts.dtype)])
        width *= 2
    return counts


def _odd(flat: np.ndarray) -> str:
    count = int(np.count_nonzero(~np.isfinite(flat)))
    what = "NaN" if np.isnan(flat).any() else "infinity"
    return f"{what} ({count} of {flat.size} numbers are not finite)"
