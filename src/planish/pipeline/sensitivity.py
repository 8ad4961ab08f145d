"""What 8 bits do to a network, layer by layer: noise, saturation, harm to the outputs, time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from planish.pipeline.options import Progress
from planish.pipeline.samples import Arrays, Feed
from planish.pipeline.scoring import OutputNoise, Scorer, decibels
from planish.pipeline.simulation import Simulation

RANKING = "ranking layers"  # name of the progress
_RANKING_S = 60.0


@dataclass(frozen=True)
class LayerNoise:
    """What 8 bits make of the data that a layer reads, and of its weights.

    Attributes:
        input_sqnr: Signal-to-quantisation-noise ratio of the input, dB.
        weight_sqnr: The same of the weights.
        saturated: Share of the input's values that are cut off at an end of the range.
        underflown: Share of the input's values that are not 0 and become 0.
    """

    input_sqnr: float
    weight_sqnr: float
    saturated: float
    underflown: float


@dataclass(frozen=True)
class LayerSensitivity:
    """A layer's row.

    Attributes:
        name: The layer.
        op: Its operator.
        origin: ONNX nodes it stands for.
        noise: What happens to its operands.
        output_sqnr: Signal-to-noise ratio of the network's worst output with this layer alone in
            8 bits, dB.
        drop: What that costs by labels or the user's metric; None without them.
        saved: Microseconds that 8 bits save here, conversions included; None where not timed.
    """

    name: str
    op: str
    origin: tuple[str, ...]
    noise: LayerNoise
    output_sqnr: float
    drop: float | None = None
    saved: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """All layers, most harmful first.

    Attributes:
        layers: A row each.
        output_sqnr: With all of them in 8 bits, dB.
        drop: What that costs; None without labels or metric.
        unit: Of the drops.
        samples: How many samples the ratios were taken on.
        others: Layers that stay in floats: (name, operator, why).
    """

    layers: tuple[LayerSensitivity, ...]
    output_sqnr: float
    drop: float | None
    unit: str
    samples: int
    others: tuple[tuple[str, str, str], ...] = ()

    def record(self) -> dict[str, Any]:
        """As data for JSON."""
        return asdict(self)


def alone(simulation: Simulation, noise: OutputNoise, progress: Progress) -> dict[str, float]:
    """Layer -> signal-to-noise ratio of the outputs with that layer alone in 8 bits, dB."""
    everything = frozenset(simulation.layers)
    found = {}
    for number, name in enumerate(simulation.layers):
        found[name] = noise.ratio(simulation.runner(everything - {name}))
        progress(RANKING, number + 1, len(simulation.layers))
    return found


def worst_first(ratios: Mapping[str, float]) -> list[str]:
    """Layers by the harm that they do alone, most harmful first."""
    return sorted(ratios, key=lambda name: ratios[name])


def measure_sensitivity(
    simulation: Simulation,
    feeds: Sequence[Feed],
    scorer: Scorer | None = None,
    saved: Mapping[str, float] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Sensitivity:
    """Look at each layer.

    Args:
        simulation: The network.
        feeds: Samples for the ratios.
        scorer: Labels or a metric, for drops; None: none are told.
        saved: Layer -> microseconds that 8 bits save.
        progress: Called with (what, done, total).
    """
    noise = OutputNoise(feeds, simulation.reference)
    ratios = alone(simulation, noise, progress)
    inner = layer_noise(simulation, [feed.arrays for feed in feeds])
    everything = frozenset(simulation.layers)
    rows = []
    for number, name in enumerate(worst_first(ratios)):
        drop = None
        if scorer is not None:
            drop = scorer.loss(simulation.runner(everything - {name})).drop
            progress("scoring layers", number + 1, len(simulation.layers))
        rows.append(
            LayerSensitivity(
                name, simulation.ops[name], simulation.origins[name], inner[name],
                ratios[name], drop, None if saved is None else saved.get(name),
            )
        )  # fmt: skip
    narrow = simulation.runner(frozenset())
    return Sensitivity(
        tuple(rows),
        noise.ratio(narrow),
        None if scorer is None else scorer.loss(narrow).drop,
        noise.unit if scorer is None else scorer.unit,
        sum(len(feed.keys) for feed in feeds),
        simulation.others,
    )


def layer_noise(simulation: Simulation, feeds: Sequence[Arrays]) -> dict[str, LayerNoise]:
    """What 8 bits make of each layer's input and weights, over some samples."""
    totals = {name: np.zeros(5) for name in simulation.layers}
    run = simulation.watch()
    for feed in feeds:
        for name, values in run(feed).items():
            totals[name] += _input_figures(values, simulation.step_of[name])
    run.close()
    found = {}
    for name, row in totals.items():
        power, noise, cut, lost, count = map(float, row)
        wide, narrow = simulation.weights_of(name)
        off = float(((wide.astype(np.float64) - narrow) ** 2).sum())
        size = max(count, 1.0)
        found[name] = LayerNoise(
            decibels(power, noise),
            decibels(float((wide.astype(np.float64) ** 2).sum()), off),
            cut / size,
            lost / size,
        )
    return found


def _input_figures(values: np.ndarray, scale: Any) -> np.ndarray:
    """(power, noise, values cut off, values lost to 0, values in all)."""
    x = values.astype(np.float64)
    codes = np.rint(x / scale.step) + scale.zero
    kept = np.clip(codes, 0, 255)
    rounded = (kept - scale.zero) * scale.step
    lost = np.count_nonzero((rounded == 0) & (x != 0))
    cut = np.count_nonzero(codes != kept)
    return np.array([(x**2).sum(), ((rounded - x) ** 2).sum(), cut, lost, x.size])


def rank_feeds(run: Callable[[Arrays], Arrays], feeds: Sequence[Feed], layers: int) -> int:
    """How many feeds to rank that many layers on, so that it takes about a minute at most."""
    run(feeds[0].arrays)
    began = time.perf_counter()
    run(feeds[0].arrays)
    each = max(time.perf_counter() - began, 1e-6) * max(layers, 1)
    return max(4, min(len(feeds), math.floor(_RANKING_S / each)))
