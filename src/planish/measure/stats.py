"""Times as people compare them: minimum, mean, median, percentiles, and how steady they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSTABLE = 0.025  # coefficient of variation above which figures are called unstable


@dataclass(frozen=True)
class Latency:
    """Milliseconds of many runs.

    Attributes:
        runs: How many.
        min, mean, median, p90, p95, p99, max: Milliseconds.
        variation: Standard deviation over mean, of the middle 98 % of the runs.
    """

    runs: int
    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    max: float
    variation: float

    @property
    def is_stable(self) -> bool:
        """True when the runs were alike enough to compare."""
        return self.variation <= UNSTABLE


def summarise(seconds: Sequence[float]) -> Latency:
    """The figures of a series of times.

    Args:
        seconds: At least one time.

    Raises:
        ValueError: There are none.
    """
    if not len(seconds):
        raise ValueError("no times to summarise")
    times = np.sort(np.asarray(seconds, np.float64)) * 1e3
    cut = len(times) // 100
    middle = times[cut : len(times) - cut]
    p90, p95, p99 = np.percentile(times, (90, 95, 99))
    return Latency(
        runs=len(times),
        min=float(times[0]),
        mean=float(times.mean()),
        median=float(np.median(times)),
        p90=float(p90),
        p95=float(p95),
        p99=float(p99),
        max=float(times[-1]),
        variation=float(middle.std() / middle.mean()),
    )
