"""Chooses ranges, and corrects biases, by what they do to the outputs of the simulated network.

All of it is done on the few samples that were kept. Those on which something is found are not those
on which it is judged: what wins on a handful of samples by chance does not win again on others. And
errors of samples are far from even, so it is their geometric mean that tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from planish.pipeline.options import Progress
from planish.pipeline.samples import Arrays
from planish.quantize.correct import Biases, correct_biases
from planish.quantize.observers import OBSERVERS, Range
from planish.quantize.scales import Scale, activation_scale
from planish.quantize.settings import Settings
from planish.quantize.simulate import Simulation
from planish.runtime import Engine

JUDGES = 8  # samples on which the ranges of one value are compared
_MOST_RUNS = 1600  # layers times samples, for bias correction
_CLEARLY = 0.95  # of the error, which corrected biases must leave at most
_EXACT = 1e-14  # of the power of outputs: less is no error
_SURE = 2.0  # standard errors by which a range must be better than what it replaces

Chosen = Mapping[str, tuple[str, Range]]  # group -> observer, range


class Kept(Protocol):
    """What the float network showed on the samples that were kept.

    Attributes:
        kept: The samples, each as one feed.
        means: For each of them, contraction -> the mean of each channel.
        results: For each of them, the network's outputs by name.
    """

    kept: list[Arrays]
    means: list[dict[str, np.ndarray]]
    results: list[dict[str, np.ndarray]]


class Trial:
    """Tries ranges and biases on the simulated network.

    Args:
        engine: Of the simulated network.
        simulation: How it is steered.
        seen: The samples, and what they give in floats.
        settings: As for the calibration.

    Attributes:
        biases: Corrections that are in force.
    """

    def __init__(
        self, engine: Engine, simulation: Simulation, seen: Kept, settings: Settings
    ) -> None:
        self.engine = engine
        self.simulation = simulation
        self.seen = seen
        self.symmetric = settings.symmetric
        self.biases: Biases = {}
        means = set(simulation.means.values())
        self.results = [t.name for t in engine.outputs if t.name not in means and t.dtype.is_float]
        self.exact = [[made[name] for name in self.results] for made in seen.results]

    # ---- ranges ---------------------------------------------------------------------------------

    def choose(
        self, groups: Mapping[str, list[tuple[str, Range]]], settled: Chosen, progress: Progress
    ) -> dict[str, tuple[str, Range]]:
        """For each group the range, of some, that changes the network's outputs least.

        It starts from the best observer for all. A group departs from that where another range is
        surely better for it by itself, all other values in floats. As saturation adds up where
        rounding does not, the mix and each observer for all are then compared on the other samples,
        all values in 8 bits; the best of these counts.

        Args:
            groups: Group -> one range an observer, in the order of `OBSERVERS`.
            settled: The other groups, whose range is known.
            progress: Called with the number of groups done.
        """
        if not groups:
            return {}
        judges, others = self._halves(JUDGES)
        uniform = [{group: several[n] for group, several in groups.items()}
                   for n in range(len(OBSERVERS))]  # fmt: skip

        def error(mix: Chosen, which: slice) -> float:
            made = self._outputs({**settled, **mix}, which)
            return _typical(_distances(made, self.exact[which]))

        best = min(uniform, key=lambda mix: error(mix, judges))
        floats = self._outputs({}, judges)
        mixed: dict[str, tuple[str, Range]] = {}
        for number, (group, several) in enumerate(groups.items()):
            first = best[group]
            distinct = list(dict.fromkeys([first, *several]))
            errors = [
                _distances(self._outputs({group: found}, judges), floats) for found in distinct
            ]
            gains = [_certain_gain(errors[0], other) for other in errors]
            mixed[group] = distinct[int(np.argmax(gains))]
            progress("choosing ranges", number + 1, len(groups))
        return min([mixed, *uniform], key=lambda mix: error(mix, others))

    def _halves(self, count: int) -> tuple[slice, slice]:
        """Samples to find on, and others to judge on; where there are few, all serve for both."""
        if len(self.seen.kept) <= count:
            return slice(None), slice(None)
        return slice(count), slice(count, None)

    def _outputs(
        self, chosen: Chosen, which: slice, biases: Biases | None = None
    ) -> list[list[np.ndarray]]:
        """The network's outputs for some of the kept samples."""
        given = self.simulation.parameters(
            self._scales(chosen), self.biases if biases is None else biases
        )
        return [
            [made[name] for name in self.results]
            for made in (self.engine.run({**arrays, **given}) for arrays in self.seen.kept[which])
        ]

    def _scales(self, chosen: Chosen) -> dict[str, Scale]:
        return {n: activation_scale(r, self.symmetric) for n, (_, r) in chosen.items()}

    # ---- biases ---------------------------------------------------------------------------------

    def correct(self, chosen: Chosen, progress: Progress) -> Biases:
        """Bias corrections, on as many samples as there is time for; none where they do not help.

        Half of the samples serve to find what is left of the mean errors. That is corrected, too,
        if it brings the outputs of the other half clearly nearer to those in floats; and so is
        what the rounding of weights left, which needs no more than not to harm.
        """
        layers = list(self.simulation.means)
        count = max(2, min(len(self.seen.kept) // 2, _MOST_RUNS // len(layers)))
        wanted = {name: _rows([m[name] for m in self.seen.means[:count]]) for name in layers}
        scales = self._scales(chosen)

        def measure(biases: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            given = self.simulation.parameters(scales, biases)
            made = [self.engine.run({**arrays, **given}) for arrays in self.seen.kept[:count]]
            outputs = self.simulation.means.items()
            return {n: _rows([m[output] for m in made]) for n, output in outputs}

        def tell(done: int) -> None:
            progress("correcting biases", done, len(layers))

        found = correct_biases(layers, wanted, measure, tell, self.biases)
        _, others = self._halves(count)
        errors = [
            _typical(_distances(self._outputs(chosen, others, biases), self.exact[others]))
            for biases in ({}, self.biases, found)
        ]
        if errors[2] < _CLEARLY * min(errors[:2]):
            return found
        return self.biases if errors[1] <= errors[0] else {}


def _rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(rows).astype(np.float64)


def _typical(errors: np.ndarray) -> float:
    """The geometric mean: one odd sample among a few must not decide for all."""
    return float(np.exp(np.log(np.maximum(errors, _EXACT)).mean()))


def _certain_gain(errors: np.ndarray, other: np.ndarray) -> float:
    """By how much errors become smaller, sample by sample, less what chance may have done."""
    gains = errors - other
    if len(gains) < 2:
        return float(gains.mean())
    return float(gains.mean() - _SURE * gains.std(ddof=1) / np.sqrt(len(gains)))


def _distances(found: list[list[np.ndarray]], exact: list[list[np.ndarray]]) -> np.ndarray:
    """The square error of each sample relative to the exact outputs, summed over the outputs."""
    totals = []
    for made, wanted in zip(found, exact, strict=True):
        total = 0.0
        for a, b in zip(made, wanted, strict=True):
            wide = b.astype(np.float64)
            power = float(np.sum(wide**2)) or 1.0
            total += float(np.sum((a.astype(np.float64) - wide) ** 2)) / power
        totals.append(total)
    return np.array(totals)
