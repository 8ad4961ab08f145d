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
from planish.pipeline.choose import Trial
from planish.pipeline.dumps import Dumps
from planish.pipeline.options import Progress, make_options, silent
from planish.pipeline.samples import Arrays, Feed, Samples, batch_dim
from planish.pipeline.trial import tuned_plan
from planish.pipeline.weights import round_weights
from planish.plan import Plan, Profile
from planish.quantize.correct import Biases, mean_patch, weight_correction
from planish.quantize.ends import Ends, channel_ends, join_ends
from planish.quantize.histogram import Histogram
from planish.quantize.observers import OBSERVERS, Range, observe
from planish.quantize.placement import Group, Placement
from planish.quantize.record import Calibration, Row
from planish.quantize.rounding import Rounding
from planish.quantize.scales import Scale, activation_scale
from planish.quantize.settings import Settings
from planish.quantize.simulate import observed_graph, rounded_weights, simulate
from planish.quantize.spread import Spread
from planish.runtime import Engine
from planish.targets.cpu import CpuTarget

KEPT = 48  # samples on which ranges are compared, biases corrected, and the corrections judged


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
    observed, *outputs = observed_graph(graph, placement)
    with Engine(quick_plan(observed, target, ranges)) as engine:
        watch = _Watch(_Runner(engine), *outputs)
        seen = _stream(graph, placement, samples, watch, progress)
        roundings = _roundings(placement, settings, samples, seen, watch, progress)
    histograms = {group.name: _union(group, seen.histograms) for group in placement.groups}
    chosen: dict[str, tuple[str, Range]] = {}
    biases: Biases = {}
    open_groups = _candidates(placement, settings, histograms, chosen)
    correcting = settings.correct_biases and bool(placement.contractions)
    if open_groups or correcting:
        simulation = simulate(graph, placement, settings.per_channel, roundings)
        with Engine(quick_plan(simulation.graph, target, ranges)) as engine:
            trial = Trial(engine, simulation, seen, settings)
            if correcting:
                biases = trial.biases = _weight_corrections(placement, settings, seen, roundings)
            chosen |= trial.choose(open_groups, chosen, progress)
            if correcting:
                biases = trial.correct(chosen, progress)
    return Calibration(
        digest,
        samples.digest,
        seen.count,
        settings.text,
        tuple(_rows(placement, chosen, seen.histograms)),
        biases,
        roundings=roundings,
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
class Seen:
    """What the float network showed.

    Attributes:
        histograms: Root value -> what it was.
        kept: Samples with the least digests, each as one feed.
        means: For each of them, contraction -> the mean of each channel.
        results: For each of them, the network's outputs by name.
        patches: Contraction -> the mean of what each of its weights meets, of all of them.
        count: Samples in all.
    """

    histograms: dict[str, Histogram]
    kept: list[Arrays]
    means: list[dict[str, np.ndarray]]
    results: list[dict[str, np.ndarray]]
    patches: dict[str, np.ndarray]
    count: int


@dataclass(frozen=True)
class _Watch:
    """The float network while it runs, and the names of its outputs as `observed_graph` gives them.

    Attributes:
        run: Runs it.
        roots: Root value -> output.
        means: Contraction -> output with the means of its channels.
        reads: Contraction -> output or input that it reads.
    """

    run: _Runner
    roots: dict[str, str]
    means: dict[str, str]
    reads: dict[str, str]


def _stream(
    graph: Graph, placement: Placement, samples: Samples, watch: _Watch, progress: Progress
) -> Seen:
    """Run over all samples, and count what is seen."""
    histograms = {name: Histogram.new() for name in watch.roots}
    kept = _Kept(KEPT)
    count = 0
    batch = batch_dim(samples.inputs)
    for feed in samples.feeds():
        for arrays, rows in _units(feed, batch):
            buffers = watch.run(arrays)
            for name, output in watch.roots.items():
                values = buffers[output] if output in buffers else arrays[output]
                _count(histograms[name], values, rows, batch, name, feed)
            for row in range(rows):
                kept.offer({k: _row(v, row, batch) for k, v in arrays.items()})
        count += len(feed.keys)
        progress("calibrating", count, samples.count)
    chosen = [_tiled(arrays, batch) for arrays in kept.samples()]
    found, results = [], []
    patches: dict[str, np.ndarray] = {}
    for arrays in chosen:
        buffers = {**arrays, **watch.run(arrays)}
        found.append({name: buffers[output].copy() for name, output in watch.means.items()})
        results.append({value.name: buffers[value.name].copy() for value in graph.outputs})
        for node in placement.contractions:
            patch = mean_patch(node, buffers[watch.reads[node.name]]) / len(chosen)
            patches[node.name] = patches.get(node.name, 0.0) + patch
    return Seen(histograms, chosen, found, results, patches, count)


def _roundings(
    placement: Placement,
    settings: Settings,
    samples: Samples,
    seen: Seen,
    watch: _Watch,
    progress: Progress,
) -> dict[str, Rounding]:
    """Which codes of weights had better not be the nearest."""
    if settings.round_weights == "nearest":
        return {}
    batch = batch_dim(samples.inputs)

    def reads(arrays: Arrays) -> dict[str, np.ndarray]:
        buffers = {**arrays, **watch.run(arrays)}
        return {n: _without_copies(buffers[o], 1, batch) for n, o in watch.reads.items()}

    means = seen.patches if settings.correct_biases else {}
    return round_weights(
        placement.contractions, seen.kept, reads, means, settings.per_channel, progress
    )


def _weight_corrections(
    placement: Placement, settings: Settings, seen: Seen, roundings: Mapping[str, Rounding]
) -> Biases:
    """What makes up for the rounding of weights."""
    return {
        node.name: weight_correction(
            node,
            rounded_weights(node, settings.per_channel, roundings.get(node.name)),
            seen.patches[node.name],
        ).astype(np.float32)
        for node in placement.contractions
    }


def ends_of_inputs(spreads: Sequence[Spread], samples: Samples) -> dict[str, Ends]:
    """The least and the largest number of each channel of some inputs.

    Raises:
        InputError: The data hold NaN or infinities.
    """
    found: dict[str, Ends] = {}
    batch = batch_dim(samples.inputs)
    for feed in samples.feeds():
        for one in spreads:
            name = one.value.name
            values = feed.arrays[name]
            ends = channel_ends(values, one.axis)
            if not all(np.all(np.isfinite(side)) for side in ends):
                _count(Histogram.new(), values, len(feed.keys), batch, name, feed)
            found[name] = join_ends(found.get(name, ends), ends)
    return found


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
    try:
        histogram.add(_without_copies(values, rows, batch))
    except InputError as error:
        where = ", ".join(feed.keys)
        raise InputError(
            f"value {name!r} of sample {where}: {error.message}",
            hint="leave the sample out, or keep the layers around the value in fp32",
        ) from None


def _without_copies(values: np.ndarray, rows: int, batch: object) -> np.ndarray:
    """What the first samples of a batch made of a value; all of it where that cannot be told."""
    if isinstance(batch, int) and rows < batch and values.ndim and len(values) % batch == 0:
        return values[: len(values) // batch * rows]
    return values


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
