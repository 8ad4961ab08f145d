"""Runs a network over calibration data, and makes of what it sees ranges and bias corrections.

Data stream through: in memory are a histogram a value, one sample's values, and the few samples on
which observers are compared and biases corrected. Those are the samples whose contents have the
least digests, so they do not depend on the order either.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.errors import InputError
from planish.graph.graph import Graph
from planish.lower.lowering import lower_graph
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.passes.merge_siblings import merge_siblings
from planish.pipeline.dumps import Dumps
from planish.pipeline.options import Progress, make_options, silent
from planish.pipeline.samples import Arrays, Feed, Samples, batch_dim
from planish.pipeline.trial import tuned_plan
from planish.plan import Plan, Profile
from planish.quantize.correct import Biases, correct_biases
from planish.quantize.histogram import Histogram
from planish.quantize.observers import OBSERVERS, Range, observe
from planish.quantize.placement import Group, Placement
from planish.quantize.record import Calibration, Row
from planish.quantize.scales import Scale, activation_scale
from planish.quantize.settings import Settings
from planish.quantize.simulate import Simulation, observed_graph, simulate
from planish.runtime import Engine
from planish.targets.cpu import CpuTarget

JUDGES = 8  # samples on which observers are compared
KEPT = 48  # samples on which biases are corrected, and the corrections are judged
_MOST_RUNS = 1600  # layers times samples, for bias correction
_CLEARLY = 0.95  # of the error, which corrected biases must leave at most


def calibrate(
    graph: Graph,
    placement: Placement,
    settings: Settings,
    samples: Samples,
    digest: str,
    target: CpuTarget,
    ranges: Sequence[Profile],
    progress: Progress = silent,
) -> Calibration:
    """Find the range of each value that is stored in 8 bits.

    Args:
        graph: The optimised float graph; it stays as it is.
        placement: What `place` decided for it.
        settings: Observers and the like.
        samples: The data.
        digest: Of the network, for the record.
        target: The machine.
        ranges: Of the symbolic dims.
        progress: Called with what is done.

    Raises:
        InputError: The data do not fit, hold NaN or infinities, or lead to them.
    """
    seen = _stream(graph, placement, samples, target, ranges, progress)
    histograms = {group.name: _union(group, seen.histograms) for group in placement.groups}
    chosen: dict[str, tuple[str, Range]] = {}
    biases: Biases = {}
    open_groups = _candidates(placement, settings, histograms, chosen)
    correcting = settings.correct_biases and bool(placement.contractions)
    if open_groups or correcting:
        simulation = simulate(graph, placement, settings.per_channel)
        with Engine(quick_plan(simulation.graph, target, ranges)) as engine:
            trial = _Trial(engine, simulation, samples, seen.kept, settings)
            chosen |= trial.choose(open_groups, progress)
            if correcting:
                scales = {
                    n: activation_scale(r, settings.symmetric) for n, (_, r) in chosen.items()
                }
                biases = trial.correct(scales, seen, progress)
    return Calibration(
        digest,
        samples.digest,
        seen.count,
        settings.text,
        tuple(_rows(placement, chosen, seen.histograms)),
        biases,
    )


def _union(group: Group, histograms: Mapping[str, Histogram]) -> Histogram:
    total = Histogram.new()
    for root in group.roots:
        total.merge(histograms[root.name])
    return total


def _candidates(
    placement: Placement,
    settings: Settings,
    histograms: Mapping[str, Histogram],
    chosen: dict[str, tuple[str, Range]],
) -> dict[str, list[tuple[str, Range]]]:
    """Groups whose observer is open, with the ranges to choose from; others go to `chosen`."""
    several: dict[str, list[tuple[str, Range]]] = {}
    for group in placement.groups:
        wanted = settings.observer(group.names)
        names = list(OBSERVERS) if wanted == "auto" else [wanted]
        found: dict[Scale, tuple[str, Range]] = {}
        listed: list[tuple[str, Range]] = []
        for name in names:
            made = observe(histograms[group.name], name, percentile=settings.percentile)
            scale = activation_scale(made, settings.symmetric)
            listed.append(found.setdefault(scale, (name, made)))
        if len(found) > 1:
            several[group.name] = listed
        else:
            chosen[group.name] = next(iter(found.values()))
    return several


def _rows(
    placement: Placement,
    chosen: Mapping[str, tuple[str, Range]],
    histograms: Mapping[str, Histogram],
) -> Iterator[Row]:
    for group in placement.groups:
        name, found = chosen[group.name]
        for root in group.roots:
            seen = histograms[root.name]
            yield Row(root.name, name, found.low, found.high, seen.low, seen.high)


# ---- running ------------------------------------------------------------------------------------


def quick_plan(graph: Graph, target: CpuTarget, ranges: Sequence[Profile]) -> Plan:
    """A plan of an optimised graph, without timing."""
    layers = merge_siblings(graph, fuse_layers(graph, native_reason, lambda kind, node: True))
    reasons = {id(node): why for node in graph.nodes if (why := native_reason(node)) is not None}
    opt = {name: middle for p in reversed(ranges) for name, _, middle, _ in p.dims}
    lowered = lower_graph(graph, layers, target.threads, opt, reasons)
    options = make_options("fp32", None, 0, "", 0.0, None)
    quiet = Dumps(None, 0)
    return tuned_plan(graph, lowered, target, ranges, options, None, silent, quiet)


@dataclass
class _Seen:
    """What the float network showed.

    Attributes:
        histograms: Root value -> what it was.
        kept: Samples with the least digests, each as one feed.
        means: For each of them, contraction -> the mean of each channel.
        results: For each of them, the network's outputs by name.
        count: Samples in all.
    """

    histograms: dict[str, Histogram]
    kept: list[Arrays]
    means: list[dict[str, np.ndarray]]
    results: list[dict[str, np.ndarray]]
    count: int


def _stream(
    graph: Graph,
    placement: Placement,
    samples: Samples,
    target: CpuTarget,
    ranges: Sequence[Profile],
    progress: Progress,
) -> _Seen:
    """Run over all samples, and count what is seen."""
    observed, roots, means = observed_graph(graph, placement)
    histograms = {name: Histogram.new() for name in roots}
    kept = _Kept(KEPT)
    count = 0
    batch = batch_dim(samples.inputs)
    with Engine(quick_plan(observed, target, ranges)) as engine:
        run = _Runner(engine)
        for feed in samples.feeds():
            for arrays, rows in _units(feed, batch):
                buffers = run(arrays)
                for name, output in roots.items():
                    values = buffers[output] if output in buffers else arrays[output]
                    _count(histograms[name], values, rows, batch, name, feed)
                for row in range(rows):
                    kept.offer({k: _row(v, row, batch) for k, v in arrays.items()})
            count += len(feed.keys)
            progress("calibrating", count, samples.count)
        chosen = [_tiled(arrays, batch) for arrays in kept.samples()]
        found, results = [], []
        for arrays in chosen:
            buffers = run(arrays)
            found.append({name: buffers[output].copy() for name, output in means.items()})
            results.append({value.name: buffers[value.name].copy() for value in graph.outputs})
    return _Seen(histograms, chosen, found, results, count)


def _units(feed: Feed, batch: object) -> Iterator[tuple[Arrays, int]]:
    """What is run at once: a whole fixed batch, else sample by sample; and how many are new."""
    if batch is None or isinstance(batch, int):
        yield feed.arrays, len(feed.keys)
        return
    for row in range(len(feed.keys)):
        yield {name: array[row : row + 1] for name, array in feed.arrays.items()}, 1


def _row(array: np.ndarray, row: int, batch: object) -> np.ndarray:
    return array if batch is None else array[row : row + 1]


def _tiled(arrays: Arrays, batch: object) -> Arrays:
    """One sample as a feed: as often as the fixed batch wants it."""
    if not isinstance(batch, int) or batch == 1:
        return arrays
    return {k: np.ascontiguousarray(np.repeat(v, batch, axis=0)) for k, v in arrays.items()}


class _Runner:
    """Runs an engine into the last run's outputs, as long as the inputs have the same shapes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._buffers: dict[str, np.ndarray] = {}

    def __call__(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """All outputs; they are good until the next run."""
        shapes = {name: array.shape for name, array in arrays.items()}
        into = self._buffers if shapes == self._shapes else None
        self._buffers = self._engine.run(arrays, into)
        self._shapes = shapes
        return self._buffers


def _count(
    histogram: Histogram, values: np.ndarray, rows: int, batch: object, name: str, feed: Feed
) -> None:
    """Count a value, but for what repeated samples made of it."""
    if isinstance(batch, int) and rows < batch and values.ndim and len(values) % batch == 0:
        values = values[: len(values) // batch * rows]
    try:
        histogram.add(values)
    except InputError as error:
        where = ", ".join(feed.keys)
        raise InputError(
            f"value {name!r} of sample {where}: {error.message}",
            hint="leave the sample out, or keep the layers around the value in fp32",
        ) from None


class _Kept:
    """The samples whose contents have the least digests, each content once."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[int, Arrays]] = []  # digests negated: the largest first
        self._known: set[int] = set()

    def offer(self, arrays: Arrays) -> None:
        """Keep a sample if it is among the least so far."""
        hasher = hashlib.sha256()
        for name in sorted(arrays):
            hasher.update(np.ascontiguousarray(arrays[name]).view(np.uint8).data)
        digest = int.from_bytes(hasher.digest(), "big")
        if digest in self._known or (len(self._heap) == self._count and -digest < self._heap[0][0]):
            return
        self._known.add(digest)
        entry = (-digest, {name: array.copy() for name, array in arrays.items()})
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        else:
            gone, _ = heapq.heappushpop(self._heap, entry)
            self._known.discard(-gone)

    def samples(self) -> list[Arrays]:
        """What is kept, by digest."""
        return [arrays for _, arrays in sorted(self._heap, key=lambda entry: -entry[0])]


# ---- choosing -----------------------------------------------------------------------------------


class _Trial:
    """Tries ranges and biases on the simulated network."""

    def __init__(
        self,
        engine: Engine,
        simulation: Simulation,
        samples: Samples,
        kept: list[Arrays],
        settings: Settings,
    ) -> None:
        self.engine = engine
        self.simulation = simulation
        self.kept = kept
        self.symmetric = settings.symmetric
        means = set(simulation.means.values())
        self.results = [t.name for t in engine.outputs if t.name not in means and t.dtype.is_float]

    def choose(
        self, groups: Mapping[str, list[tuple[str, Range]]], progress: Progress
    ) -> dict[str, tuple[str, Range]]:
        """For each group the range, of some, that changes the network's outputs least.

        Each is tried while all other values are floats. As saturation adds up where rounding does
        not, what was chosen so is then compared, all values in 8 bits, with each observer for all;
        the best of these counts.

        Args:
            groups: Group -> one range an observer, in the order of `OBSERVERS`.
            progress: Called with the number of groups done.
        """
        if not groups:
            return {}
        judges = slice(JUDGES)
        exact = self._outputs({}, judges)

        def error(chosen: Mapping[str, tuple[str, Range]]) -> float:
            scales = {n: activation_scale(r, self.symmetric) for n, (_, r) in chosen.items()}
            return _distance(self._outputs(scales, judges), exact)

        mixed: dict[str, tuple[str, Range]] = {}
        for number, (group, several) in enumerate(groups.items()):
            distinct = list(dict.fromkeys(several))
            errors = [error({group: found}) for found in distinct]
            mixed[group] = distinct[int(np.argmin(errors))]
            progress("choosing ranges", number + 1, len(groups))
        uniform = [{group: several[n] for group, several in groups.items()}
                   for n in range(len(OBSERVERS))]  # fmt: skip
        return min([mixed, *uniform], key=error)

    def _outputs(
        self,
        scales: Mapping[str, Scale],
        which: slice,
        biases: Mapping[str, np.ndarray] | None = None,
    ) -> list[list[np.ndarray]]:
        """The network's outputs for some of the kept samples."""
        given = self.simulation.parameters(scales, biases)
        return [
            [made[name] for name in self.results]
            for made in (self.engine.run({**arrays, **given}) for arrays in self.kept[which])
        ]

    def correct(self, scales: Mapping[str, Scale], seen: _Seen, progress: Progress) -> Biases:
        """Bias corrections, on as many samples as there is time for; none where they do not help.

        Half of the samples serve to find them. They are kept if they bring the outputs of the
        other half clearly nearer to those in floats.
        """
        layers = list(self.simulation.means)
        count = max(2, min(len(self.kept) // 2, _MOST_RUNS // len(layers)))
        wanted = {name: _average([m[name] for m in seen.means[:count]]) for name in layers}

        def measure(biases: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            given = self.simulation.parameters(scales, biases)
            made = [self.engine.run({**arrays, **given}) for arrays in self.kept[:count]]
            outputs = self.simulation.means.items()
            return {n: _average([m[output] for m in made]) for n, output in outputs}

        def tell(done: int) -> None:
            progress("correcting biases", done, len(layers))

        found = correct_biases(layers, wanted, measure, tell)
        others = slice(count, None) if len(self.kept) > count else slice(None)
        exact = [[made[name] for name in self.results] for made in seen.results[others]]
        errors = [
            _distance(self._outputs(scales, others, biases), exact) for biases in (None, found)
        ]
        return found if errors[1] < _CLEARLY * errors[0] else {}


def _average(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.mean(np.stack(rows).astype(np.float64), axis=0))


def _distance(found: list[list[np.ndarray]], exact: list[list[np.ndarray]]) -> float:
    """The square error relative to the exact outputs, summed over samples and outputs."""
    total = 0.0
    for made, wanted in zip(found, exact, strict=True):
        for a, b in zip(made, wanted, strict=True):
            wide = b.astype(np.float64)
            power = float(np.sum(wide**2)) or 1.0
            total += float(np.sum((a.astype(np.float64) - wide) ** 2)) / power
    return total
