"""What accuracy a user wants kept, and by which scorers it is measured: the arguments, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.base.errors import BuildError
from planish.pipeline.data import load_function
from planish.pipeline.labels import Labels, open_labels
from planish.pipeline.samples import Samples, feed_digest
from planish.pipeline.scoring import (
    Metric,
    OutputNoise,
    Run,
    Scorer,
    TopOne,
    UserMetric,
    halves,
    pick,
)

_FEEDS = 64  # for noise, the two halves together
_FEWEST = 8  # feeds that can be halved

LabelsOrMetric = str | os.PathLike[str] | Mapping[str, int] | Sequence[int] | Labels | Metric | None
MakeScorer = Callable[[Run], Scorer]  # the float network -> how others are scored


@dataclass(frozen=True)
class Judges:
    """Scorers of one build.

    Attributes:
        chooses: By it layers are chosen.
        states: By it the plan that comes out is judged; the same where samples are few.
        noise: Ranks layers; it sees nothing that `states` sees alone.
    """

    chooses: Scorer
    states: Scorer
    noise: OutputNoise

    @property
    def apart(self) -> bool:
        """Whether the statement is made on samples that nothing was chosen on."""
        return self.chooses is not self.states


@dataclass(frozen=True)
class Goal:
    """What accuracy is to be kept.

    Attributes:
        bound: How much worse the network may become.
        samples: What it is measured on.
        labels: Classes of the samples, a metric, or None: the noise of the outputs counts.
    """

    bound: float
    samples: Samples
    labels: Labels | Metric | None

    def judges(self, reference: Run) -> Judges:
        """The scorers.

        Labelled samples are halved where one of them weighs no more than the bound in either half,
        samples for noise where there are a few. A metric has data of its own: it does both.

        Args:
            reference: The float network.
        """
        picked = pick(self.samples, _FEEDS)
        if self.labels is None:
            if len(picked) < _FEWEST:
                noise = OutputNoise(picked, reference)
                return Judges(noise, noise, noise)
            noise = OutputNoise(picked[::2], reference)
            return Judges(noise, OutputNoise(picked[1::2], reference), noise)
        few = picked[: _FEEDS // 2]
        if not isinstance(self.labels, Labels):
            metric = UserMetric(self.labels, reference)
            return Judges(metric, metric, OutputNoise(few, reference))
        first, second = halves(self.samples)
        one = TopOne(self.samples, self.labels, reference, first)
        other = TopOne(self.samples, self.labels, reference, second)
        if second and min(one.count, other.count) * self.bound >= 100.0:
            seen = [feed for feed in picked if feed_digest(feed) in first]
            return Judges(one, other, OutputNoise(seen, reference))
        whole = TopOne(self.samples, self.labels, reference)
        return Judges(whole, whole, OutputNoise(few, reference))


def make_goal(
    max_accuracy_drop: float | None, labels: LabelsOrMetric, samples: Samples | None
) -> Goal | None:
    """Check what a user wants of the accuracy; None where it does not matter.

    Raises:
        BuildError: A bound without data, or labels without a bound.
        InputError: The labels cannot be read.
    """
    if max_accuracy_drop is None:
        if labels is not None:
            raise BuildError(
                "labels are given, but no max_accuracy_drop that they could be held against",
                hint="say how many points may be lost, such as max_accuracy_drop=0.5",
            )
        return None
    if not max_accuracy_drop >= 0.0:
        raise BuildError(f"max_accuracy_drop {max_accuracy_drop!r}: expected 0 or more")
    if samples is None:
        raise BuildError(
            "max_accuracy_drop needs data to measure it on",
            hint="give calibration=DATA; calibration_cache=FILE keeps what was found in it",
        )
    return Goal(float(max_accuracy_drop), samples, _read(labels))


def make_scorer(labels: LabelsOrMetric, samples: Samples) -> MakeScorer | None:
    """How networks are scored on all samples; None without labels and metric.

    Args:
        labels: As `open_labels` reads them, a metric function, or "module:function" of one.
        samples: What the labels belong to.
    """
    known = _read(labels)
    if known is None:
        return None
    if isinstance(known, Labels):
        return lambda reference: TopOne(samples, known, reference)
    return lambda reference: UserMetric(known, reference)


def _read(labels: LabelsOrMetric) -> Labels | Metric | None:
    if labels is None:
        return None
    if isinstance(labels, str) and ":" in labels and not Path(labels).exists():
        labels = load_function(labels)
    if callable(labels):
        return labels
    return open_labels(labels)
