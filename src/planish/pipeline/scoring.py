"""How much worse a network has become: by labels, by the user's metric, by its outputs' noise.

labels      points of top-1 lost on the samples that have labels
a metric    what a function of the user's says: metric(run) -> float, more is better, where
            run(inputs) gives the outputs by name
neither     noise in the outputs, in percent of their power: 1 % is a signal-to-noise ratio of
            20 dB, 0.1 % of 30 dB; the worst output counts

Where there are enough samples, they are halved: layers are chosen by one half, and what is said of
the plan that comes out is measured on the other.
"""

from __future__ import annotations

import copy
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


@dataclass(frozen=True)
class Loss:
    """How much worse than the float network another one is.

    Attributes:
        drop: In the scorer's unit; below 0 where it is better.
        error: Standard error of that, from the samples on which one of the two alone is right; None
            where it is not known.
    """

    drop: float
    error: float | None = None


class Scorer(Protocol):
    """Measures how good a network is.

    Attributes:
        unit: What losses are told in.
        count: Samples that it scores on; 0 where that is the user's own affair.
    """

    unit: str

    @property
    def count(self) -> int:
        """Samples that it scores on; 0 where that is the user's own affair."""
        ...

    def loss(self, run: Run) -> Loss:
        """How much worse the network is that `run` runs."""
        ...


@dataclass
class TopOne:
    """Share of samples whose largest output is the right class, in percent.

    Args:
        samples: What to score on.
        labels: Their classes.
        reference: The float network.
        only: Digests of the feeds that count; None: all do.
    """

    samples: Samples
    labels: Labels
    reference: Run
    only: frozenset[bytes] | None = None
    unit: str = "points of top-1"
    _best: np.ndarray | None = None
    _kept: list[Feed] | None = None

    @property
    def count(self) -> int:
        """Samples with labels."""
        return len(self._expected())

    def loss(self, run: Run) -> Loss:
        """Points lost; paired, sample by sample."""
        expected, found = self._expected(), self._right(run)
        differ = np.count_nonzero(expected != found)
        size = len(expected)
        drop = 100.0 * (int(expected.sum()) - int(found.sum())) / size
        return Loss(drop, 100.0 * math.sqrt(differ) / size)

    def _expected(self) -> np.ndarray:
        if self._best is None:
            self._best = self._right(self.reference)
        return self._best

    def _right(self, run: Run) -> np.ndarray:
        """Of each sample, whether its class is told."""
        right = []
        for feed in self._feeds():
            rows = top_classes(run(feed.arrays), len(feed.keys))
            for key, found in zip(feed.keys, rows, strict=True):
                right.append(found == self.labels.index(key))
        return np.array(right, np.bool_)

    def _feeds(self) -> Iterator[Feed]:
        """The samples; kept from the first time on, where they are few."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Feed] | None = []
        size = 0
        for feed in self.samples.feeds():
            if self.only is not None and feed_digest(feed) not in self.only:
                continue
            size += sum(array.nbytes for array in feed.arrays.values())
            if size > _MOST_KEPT:
                kept = None
            if kept is not None:
                kept.append(feed)
            yield feed
        self._kept = kept


@dataclass
class UserMetric:
    """What a function of the user's says."""

    metric: Metric
    reference: Run
    unit: str = "of the metric"
    count: int = 0
    _best: float | None = None

    def loss(self, run: Run) -> Loss:
        """How much less it says than for the float network."""
        if self._best is None:
            self._best = float(self.metric(self.reference))
        return Loss(self._best - float(self.metric(run)))


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

    @property
    def count(self) -> int:
        """Samples that it is measured on."""
        return sum(len(feed.keys) for feed in self.feeds)

    def first(self, count: int) -> OutputNoise:
        """The same on the first so many feeds."""
        fewer = copy.copy(self)
        fewer.feeds, fewer._expected = self.feeds[:count], self._expected[:count]
        return fewer

    def loss(self, run: Run) -> Loss:
        """The noise in percent of the signal's power."""
        return Loss(percent(self.ratio(run)))

    def ratio(self, run: Run) -> float:
        """The ratio of the worst output; infinite where nothing differs."""
        noise: dict[str, float] = {}
        power: dict[str, float] = {}
        for feed, expected in zip(self.feeds, self._expected, strict=True):
            found = _floats(run(feed.arrays), len(feed.keys))
            for name, wanted in expected.items():
                noise[name] = noise.get(name, 0.0) + float(((found[name] - wanted) ** 2).sum())
                power[name] = power.get(name, 0.0) + float((wanted**2).sum())
        return min((decibels(power[n], noise[n]) for n in noise), default=math.inf)


def percent(ratio: float) -> float:
    """Noise in percent of the signal's power, from a ratio in dB."""
    return math.inf if math.isnan(ratio) else 100.0 * 10.0 ** (-ratio / 10.0)


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


def halves(samples: Samples) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Digests of the feeds of two halves of the data, the same ones whatever order they come in."""
    digests = sorted({feed_digest(feed) for feed in samples.feeds()})
    return frozenset(digests[::2]), frozenset(digests[1::2])


def _floats(outputs: Mapping[str, np.ndarray], count: int) -> Arrays:
    """The outputs that are floats, as f64, without rows that only fill up the batch."""
    made = {}
    for name, array in outputs.items():
        data = np.asarray(array)
        if data.dtype.kind == "f" or data.dtype.name in ("bfloat16",):
            full = data.ndim > 0 and data.shape[0] > count
            made[name] = np.array(data[:count] if full else data, np.float64)
    return made
