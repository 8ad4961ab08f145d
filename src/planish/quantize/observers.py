"""From a histogram to a range: what is kept, and what is given up to saturation.

A wide range rounds coarsely, a narrow one saturates. Each observer strikes the balance by a rule of
its own:

    max         everything is kept
    percentile  a fixed share of the numbers is kept; one tail for data of one sign, else both alike
    mse         the expected square error of rounding and saturation together is least
    entropy     the quantised distribution loses the least information (Kullback-Leibler divergence)

A range contains 0, which is exact then, and never goes beyond what was seen. Where the data are all
zero it is (0, 0).

Entropy is after Migacz, "8-bit Inference with TensorRT" (2017): of the histogram of magnitudes, the
first i bins are kept; P is what they hold, with all that lies beyond added to the last of them; Q
is what is left of them when they are merged into as many groups as there are levels, each group's
counts spread evenly over those of its bins that hold something. T = (i + ½)·width for the i of
least KL(P‖Q). The details that decide in practice:

    bins      2048, of which the data fill at least half; i goes up in steps of 8, from as many
              bins as there are levels to all of them
    levels    255 where the data have one sign (it has all 8 bits to itself), else 128
    zeros     exact zeros are not counted, since they cost nothing in any range, and the first bin
              is tied to the second (never higher than it): a peak at zero decides nothing
    groups    bin j of i belongs to group ⌊j·levels/i⌋, so groups differ by one bin at most
    last bin  an i whose last bin is empty is passed over: P would hold the tail where Q has nothing
    ties      the widest range among equals
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planish.base.errors import BuildError
from planish.quantize.histogram import BINS, Histogram

LEVELS = 255  # steps of 8 bits
HALF_LEVELS = 128  # magnitudes where both signs share the 8 bits
_STEP = 8  # bins between two thresholds that entropy tries
_GRID = 256  # ends of either side that mse tries


@dataclass(frozen=True)
class Range:
    """What 8 bits stand for: low <= 0 <= high."""

    low: float
    high: float

    @property
    def symmetric(self) -> Range:
        """The range that lies even around zero and contains this one."""
        peak = max(-self.low, self.high)
        return Range(-peak, peak)


def observe(histogram: Histogram, name: str, *, percentile: float = 99.99) -> Range:
    """The range of a tensor.

    Args:
        histogram: Its values.
        name: An observer of `OBSERVERS`.
        percentile: What the percentile observer keeps, in percent.

    Raises:
        BuildError: There is no such observer.
    """
    if name not in OBSERVERS:
        raise BuildError(f"observer {name!r}: not one of {sorted(OBSERVERS)}")
    if histogram.width == 0.0:
        return Range(0.0, 0.0)
    return OBSERVERS[name](histogram, percentile)


def _max(histogram: Histogram, percentile: float) -> Range:
    return Range(min(histogram.low, 0.0), max(histogram.high, 0.0))


# ---- percentile ---------------------------------------------------------------------------------


def _percentile(histogram: Histogram, percentile: float) -> Range:
    seen = _max(histogram, percentile)
    sides = sum(1 for counts in (histogram.positive, histogram.negative) if counts.any())
    dropped = histogram.total * (1.0 - percentile / 100.0) / sides
    high = _tail_start(histogram.positive, histogram.width, dropped)
    low = -_tail_start(histogram.negative, histogram.width, dropped)
    return Range(max(low, seen.low), min(high, seen.high))


def _tail_start(counts: np.ndarray, width: float, dropped: float) -> float:
    """The magnitude beyond which so many numbers lie; within a bin they lie evenly."""
    beyond = np.cumsum(counts[::-1])[::-1]  # in bin i and behind it
    if beyond[0] <= dropped:
        return 0.0
    last = int(np.flatnonzero(beyond > dropped)[-1])
    return (last + float(beyond[last] - dropped) / float(counts[last])) * width


# ---- mse ----------------------------------------------------------------------------------------


def _mse(histogram: Histogram, percentile: float) -> Range:
    """Rounding costs step²/12 a number that is kept, saturation the squared distance to the end."""
    seen = _max(histogram, percentile)
    highs, cut_high, kept_high = _ends(histogram.positive, histogram.width, seen.high)
    lows, cut_low, kept_low = _ends(histogram.negative, histogram.width, -seen.low)
    step = (lows[:, None] + highs[None, :]) / LEVELS
    kept = kept_low[:, None] + kept_high[None, :]
    cost = cut_low[:, None] + cut_high[None, :] + kept * step**2 / 12.0
    low, high = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return Range(-float(lows[low]), float(highs[high]))


def _ends(
    counts: np.ndarray, width: float, peak: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends to try on one side: (magnitude, square error beyond it, numbers inside it)."""
    if peak == 0.0:
        return np.zeros(1), np.zeros(1), np.zeros(1)
    used = int(np.flatnonzero(counts)[-1]) + 1
    ends = np.unique(np.linspace(1, used, min(used, _GRID)).astype(np.int64))
    numbers = counts.astype(np.float64)
    centres = np.minimum((np.arange(BINS) + 0.5) * width, peak)
    # Σ n·(c − e)² over what lies beyond e, by the sums of n, n·c and n·c².
    sums = [np.concatenate([[0.0], np.cumsum(numbers * centres**k)]) for k in range(3)]
    n0, n1, n2 = (total[-1] - total[ends] for total in sums)
    edge = np.minimum(ends * width, peak)
    cut = np.maximum(n2 - 2.0 * edge * n1 + edge**2 * n0, 0.0)
    cut[ends == used] = 0.0
    return edge, cut, sums[0][ends]


# ---- entropy ------------------------------------------------------------------------------------


def _entropy(histogram: Histogram, percentile: float) -> Range:
    seen = _max(histogram, percentile)
    both = bool(histogram.positive.any() and histogram.negative.any())
    counts = (histogram.positive + histogram.negative).astype(np.float64)
    counts[0] = min(counts[0], counts[1])
    threshold = entropy_threshold(counts, HALF_LEVELS if both else LEVELS)
    if threshold is None:
        return seen
    end = (threshold + 0.5) * histogram.width
    return Range(max(seen.low, -end), min(seen.high, end))


def entropy_threshold(counts: np.ndarray, levels: int) -> int | None:
    """How many bins to keep so that the least information is lost; None: all there is.

    Args:
        counts: Of the bins of magnitudes.
        levels: Groups that the kept bins are merged into.
    """
    filled = np.flatnonzero(counts)
    if not filled.size or filled[-1] < levels:
        return None
    used = int(filled[-1]) + 1
    tails = np.concatenate([np.cumsum(counts[::-1])[::-1], [0.0]])
    best, least = None, np.inf
    for kept in (*range(levels, used, _STEP), used):
        if counts[kept - 1] == 0.0:
            continue
        loss = divergence(counts[:kept], float(tails[kept]), levels)
        if loss <= least:
            best, least = kept, loss
    return None if best is None or best == used else best


def divergence(kept: np.ndarray, tail: float, levels: int) -> float:
    """KL(P‖Q) of bins that are kept, with what lies beyond them, against their merged groups.

    Args:
        kept: Counts of the bins; the last is not 0.
        tail: Count of what lies beyond.
        levels: Groups, at most as many as bins.
    """
    group = np.arange(kept.size) * levels // kept.size
    filled = kept > 0.0
    sums = np.bincount(group, kept, levels)
    members = np.bincount(group, filled, levels)
    q = (sums / np.maximum(members, 1.0))[group][filled]
    p = kept[filled].copy()
    p[-1] += tail
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


OBSERVERS: dict[str, Callable[[Histogram, float], Range]] = {
    "max": _max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
