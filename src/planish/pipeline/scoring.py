"""How much worse a network has become: by labels, by the user's metric, by its outputs' noise.

labels      points of top-1 lost on the samples that have labels
a metric    what a function of the user's says: metric(run) -> float, more is better, where
            run(inputs) gives the outputs by name
neither     noise in the outputs, in percent of their power: 1 % is a signal-to-noise ratio of
            20 dB, 0.1 % of 30 dB; the worst output counts
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from planish.base.errors import InputError
from planish.pipeline.labels import Labels
from planish.pipeline.samples import Arrays, Feed, Samples, feed_digest

Run = Callable[[Arrays], Mapping[str, np.ndarray]]
Metric = Callable[[Run], float]
_MOST_KEPT = 1 << 29  # bytes of samples that stay in memory between two scorings


class Scorer(Protocol):
    """Measures how good a network is.

    Attributes:
        unit: What `drop` is told in.
    """

    unit: str

    def score(self, run: Run) -> float:
        """How good the network is that `run` runs; more is better."""
        ...

    def drop(self, score: float) -> float:
        """How much worse than the float network that is."""
        ...


@dataclass
class TopOne:
    """Share of samples whose largest output is the right class, in percent.

    Args:
        samples: What to score on.
        labels: Their classes.
        reference: The float network.
    """

    samples: Samples
    labels: Labels
    reference: Run
    unit: str = "points of top-1"
    _best: float | None = None
    _kept: list[Feed] | None = None

    def score(self, run: Run) -> float:
        """Percent of the samples that are right."""
        right = count = 0
        for feed in self._feeds():
            rows = top_classes(run(feed.arrays), len(feed.keys))
            for key, found in zip(feed.keys, rows, strict=True):
                right += found == self.labels.index(key)
                count += 1
        return 100.0 * right / count

    def _feeds(self) -> Iterator[Feed]:
        """The samples; kept from the first time on, where they are few."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Feed] | None = []
        size = 0
        for feed in self.samples.feeds():
            size += sum(array.nbytes for array in feed.arrays.values())
            if size > _MOST_KEPT:
                kept = None
            if kept is not None:
                kept.append(feed)
            yield feed
        self._kept = kept

    def drop(self, score: float) -> float:
        """Points lost."""
        if self._best is None:
            self._best = self.score(self.reference)
        return self._best - score


@dataclass
class UserMetric:
    """What a function of the user's says."""

    metric: Metric
    reference: Run
    unit: str = "of the metric"
    _best: float | None = None

    def score(self, run: Run) -> float:
        """What the function says."""
        return float(self.metric(run))

    def drop(self, score: float) -> float:
        """How much less than for the float network."""
        if self._best is None:
            self._best = self.score(self.reference)
        return self._best - score


class OutputNoise:
    """The signal-to-noise ratio of the outputs on a few samples, in dB.

    Args:
        feeds: The samples.
        reference: The float network; run once on each.
    """

    unit = "% of noise in the outputs"

    def __init__(self, feeds: Sequence[Feed], reference: Run) -> None:
        self.feeds = feeds
        self._expected = [_floats(reference(feed.arrays), len(feed.keys)) for feed in feeds]

    def score(self, run: Run) -> float:
        """The ratio of the worst output; infinite where nothing differs."""
        noise: dict[str, float] = {}
        power: dict[str, float] = {}
        for feed, expected in zip(self.feeds, self._expected, strict=True):
            found = _floats(run(feed.arrays), len(feed.keys))
            for name, wanted in expected.items():
                noise[name] = noise.get(name, 0.0) + float(((found[name] - wanted) ** 2).sum())
                power[name] = power.get(name, 0.0) + float((wanted**2).sum())
        return min((decibels(power[n], noise[n]) for n in noise), default=math.inf)

    def drop(self, score: float) -> float:
        """The noise in percent of the signal's power."""
        return math.inf if math.isnan(score) else 100.0 * 10.0 ** (-score / 10.0)


def decibels(power: float, noise: float) -> float:
    """A signal-to-noise ratio in dB; infinite without noise, minus that with nothing but noise."""
    if math.isnan(noise) or math.isnan(power) or math.isinf(noise):
        return -math.inf
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(power / noise) if power > 0.0 else -math.inf


def top_classes(outputs: Mapping[str, np.ndarray], count: int) -> list[int]:
    """Index of the largest value of the first output, for each of the first `count` samples."""
    first = np.asarray(next(iter(outputs.values())))
    rows = first.reshape(first.shape[0], -1) if count > 1 else first.reshape(1, -1)
    if len(rows) < count:
        raise InputError(
            f"the first output has the shape {list(first.shape)}, no row for each of {count} "
            "samples: labels cannot be held against it",
            hint="give a metric function in place of labels",
        )
    return [int(np.argmax(row)) for row in rows[:count]]


def pick(samples: Samples, most: int) -> list[Feed]:
    """A few feeds, the same ones whatever order the data come in.

    Args:
        samples: The data.
        most: How many feeds.
    """
    kept: list[tuple[int, int, Feed]] = []  # the smallest digests; the largest of them on top
    for number, feed in enumerate(samples.feeds()):
        rank = int.from_bytes(feed_digest(feed)[:8], "big")
        push = heapq.heappush if len(kept) < most else heapq.heappushpop
        push(kept, (-rank, -number, feed))
    return [feed for _, _, feed in sorted(kept, key=lambda entry: -entry[0])]


def _floats(outputs: Mapping[str, np.ndarray], count: int) -> Arrays:
    """The outputs that are floats, as f64, without rows that only fill up the batch."""
    made = {}
    for name, array in outputs.items():
        data = np.asarray(array)
        if data.dtype.kind == "f" or data.dtype.name in ("bfloat16",):
            full = data.ndim > 0 and data.shape[0] > count
            made[name] = np.array(data[:count] if full else data, np.float64)
    return made
