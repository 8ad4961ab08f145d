"""The plans that a build in 8 bits chooses from, each made once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planish.base.errors import BuildError
from planish.graph.copy import copy_graph
from planish.graph.graph import Graph
from planish.pipeline.data import load_function
from planish.pipeline.labels import Labels, open_labels
from planish.pipeline.options import Progress
from planish.pipeline.precision import MakeScorer
from planish.pipeline.quantiser import Quantiser
from planish.pipeline.samples import Samples
from planish.pipeline.scoring import Metric, TopOne, UserMetric
from planish.pipeline.simulation import Simulation, in_floats
from planish.plan import Plan
from planish.quantize.apply import scales_of
from planish.quantize.record import read_calibration

Make = Callable[[Quantiser | None], Plan]  # a whole build; None for floats
Simplify = Callable[[Callable[[Graph], None]], None]  # hands over the simplified float graph

LabelsOrMetric = str | os.PathLike[str] | Mapping[str, int] | Sequence[int] | Labels | Metric | None


class Candidates:
    """Builds plans in 8 bits but for some layers; the first calibrates.

    Args:
        make: A whole build.
        simplify: The build up to quantisation.
        quantiser: As the user wants it.
        level: Of the build.
        progress: Called while calibrating and compiling.
        cache: Calibration to use, or to write where there is none; None: neither.
    """

    def __init__(
        self,
        make: Make,
        simplify: Simplify,
        quantiser: Quantiser,
        level: int,
        progress: Progress,
        cache: Path | None = None,
    ) -> None:
        self.level = level
        self._make, self._simplify, self._progress = make, simplify, progress
        self._quantiser = quantiser
        fresh = cache is not None and not cache.exists()
        if cache is not None and not fresh and quantiser.calibration is None:
            quantiser.calibration = read_calibration(cache)
        self._plans: dict[frozenset[str], Plan] = {frozenset(): make(quantiser)}
        if cache is not None and fresh and quantiser.calibration is not None:
            quantiser.calibration.save(cache)
        self._wide: Plan | None = None
        placement = quantiser.placement
        nodes = [] if placement is None else placement.contractions
        self.layers: Mapping[str, Sequence[str]] = {node.name: node.origin for node in nodes}

    def narrow(self, floats: frozenset[str]) -> Plan:
        """The plan in 8 bits but for some layers."""
        if floats not in self._plans:
            self._plans[floats] = self._make(self._stage(floats))
        return self._plans[floats]

    def wide(self) -> Plan:
        """The plan in floats."""
        if self._wide is None:
            self._wide = self._make(None)
        return self._wide

    def simulation(self) -> Simulation:
        """The network with any set of layers in 8 bits."""
        return simulate_network(self._simplify, self._stage(frozenset()), self._progress)

    def _stage(self, floats: frozenset[str]) -> Quantiser:
        first = self._quantiser
        settings = in_floats(first.settings, floats)
        return Quantiser(settings, first.target, first.ranges, None, first.calibration)


def simulate_network(simplify: Simplify, quantiser: Quantiser, progress: Progress) -> Simulation:
    """The network with any set of layers in 8 bits, as a quantiser would make them."""
    found: list[Simulation] = []

    def capture(graph: Graph) -> None:
        placement = quantiser.prepare(graph)
        calibration = quantiser.calibrated(graph, placement)
        settings = quantiser.settings
        scales = scales_of(placement, calibration, settings.symmetric)
        copy = copy_graph(graph)[0]
        found.append(
            Simulation(
                copy, settings, scales, quantiser.target, quantiser.ranges, progress,
                calibration.biases, calibration.roundings,
            )
        )  # fmt: skip

    simplify(capture)
    return found[0]


@dataclass(frozen=True)
class Goal:
    """What accuracy is to be kept, and how it is measured.

    Attributes:
        bound: How much worse the network may become; None: no matter.
        scorer: Labels or a metric; None: the noise of the outputs.
    """

    bound: float | None = None
    scorer: MakeScorer | None = None


def make_goal(
    max_accuracy_drop: float | None, labels: LabelsOrMetric, samples: Samples | None
) -> Goal:
    """Check what a user wants of the accuracy.

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
        return Goal()
    if not max_accuracy_drop >= 0.0:
        raise BuildError(f"max_accuracy_drop {max_accuracy_drop!r}: expected 0 or more")
    if samples is None:
        raise BuildError(
            "max_accuracy_drop needs data to measure it on",
            hint="give calibration=DATA; calibration_cache=FILE keeps what was found in it",
        )
    return Goal(float(max_accuracy_drop), make_scorer(labels, samples))


def make_scorer(labels: LabelsOrMetric, samples: Samples) -> MakeScorer | None:
    """How networks are scored; None where there is nothing but their outputs' noise.

    Args:
        labels: As `open_labels` reads them, a metric function, or "module:function" of one.
        samples: What the labels belong to.
    """
    if labels is None:
        return None
    if isinstance(labels, str) and ":" in labels and not Path(labels).exists():
        labels = load_function(labels)
    if callable(labels):
        metric: Any = labels
        return lambda reference: UserMetric(metric, reference)
    known = open_labels(labels)
    return lambda reference: TopOne(samples, known, reference)
