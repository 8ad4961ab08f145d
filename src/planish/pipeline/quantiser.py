"""The stage that quantises: what `build` hands to `optimise`, between its two tables of passes.

floats ─ inputs spread ─ equalise ─ placement ─ calibration (found, or from a file) ─ biases
    ─ pairs inserted
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from planish.base.errors import BuildError
from planish.graph.graph import Graph
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.pipeline.data import Data, inputs_of, open_data
from planish.pipeline.observe import calibrate, ends_of_inputs
from planish.pipeline.options import Options, Progress, silent
from planish.pipeline.preprocess import Preprocess
from planish.pipeline.samples import Samples
from planish.plan import Profile
from planish.quantize.apply import apply_biases, graph_digest, scales_of
from planish.quantize.ends import Ends
from planish.quantize.equalise import equalise
from planish.quantize.insert import insert_pairs
from planish.quantize.placement import Placement, Precision, place
from planish.quantize.record import Calibration, is_calibration, read_calibration
from planish.quantize.settings import Settings
from planish.quantize.spread import apply_spread, spread_inputs
from planish.targets.cpu import CpuTarget

_PAIRS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul")


def make_quantiser(
    options: Options,
    graph: Graph,
    settings: Settings,
    calibration: Calibration | Data | None,
    preprocess: str | Preprocess | None,
    target: CpuTarget,
    ranges: Sequence[Profile],
    progress: Progress,
) -> Quantiser | None:
    """The stage for a build; None where nothing is to be quantised.

    Args:
        options: What the build was asked for.
        graph: The network as it was read.
        settings: How to quantise.
        calibration: A calibration, its file, or data.
        preprocess: As for `data.open_data`.
        target: The machine.
        ranges: Of the symbolic dims.
        progress: Called while calibrating.

    Raises:
        BuildError: A calibration is given for a build in floats.
        InputError: The data cannot be read.
        CacheError: The calibration cannot be read.
    """
    if options.precision != "int8":
        if calibration is not None:
            raise BuildError(
                f"a calibration is given, but precision is {options.precision!r}",
                hint='say precision="int8"',
            )
        return None
    if any(node.op in _PAIRS for node in graph.nodes):
        return None
    known = samples = None
    if isinstance(calibration, Calibration):
        known = calibration
    elif isinstance(calibration, str | os.PathLike) and is_calibration(calibration):
        known = read_calibration(calibration)
    elif calibration is not None:
        samples = open_data(calibration, inputs_of(graph), preprocess)
    return Quantiser(settings, target, ranges, samples, known, progress)


class Quantiser:
    """Quantises the one graph that it is called with.

    Attributes:
        calibration: What was found, or given; there after the call, or from the start.
        precisions: What each layer runs in and why; there after the call.
        placement: What is stored in 8 bits; there after the call.

    Args:
        settings: How.
        target: The machine.
        ranges: Of the symbolic dims.
        samples: Data to calibrate with; may be left out where a calibration is given.
        calibration: One that was made before.
        progress: Called while calibrating.
    """

    def __init__(
        self,
        settings: Settings,
        target: CpuTarget,
        ranges: Sequence[Profile],
        samples: Samples | None = None,
        calibration: Calibration | None = None,
        progress: Progress = silent,
    ) -> None:
        self.settings = settings
        self.target = target
        self.ranges = tuple(ranges)
        self.samples = samples
        self.calibration = calibration
        self.progress = progress
        self.precisions: list[Precision] = []
        self.placement: Placement | None = None
        self._ends: dict[str, Ends] | None = None

    def __call__(self, graph: Graph) -> None:
        """Quantise a simplified graph of floats in place.

        Raises:
            BuildError: There is nothing to calibrate with, or the calibration is another network's.
            InputError: The data do not fit.
        """
        placement = self.prepare(graph)
        calibration = self.calibrated(graph, placement)
        apply_biases(graph, placement.contractions, calibration.biases)
        scales = scales_of(placement, calibration, self.settings.symmetric)
        insert_pairs(graph, placement, scales, self.settings.per_channel, calibration.roundings)

    def record(self) -> dict[str, Any]:
        """What was done, as data: part of the plan's provenance."""
        known = self.calibration
        return {
            "settings": self.settings.text,
            "data": "" if known is None else known.data,
            "samples": 0 if known is None else known.samples,
            "layers": [[p.name, p.op, p.precision, p.why, list(p.origin)] for p in self.precisions],
        }

    def prepare(self, graph: Graph) -> Placement:
        """Spread inputs, equalise, and decide what is stored in 8 bits."""
        self.digest = graph_digest(graph)
        apply_spread(graph, self._inputs(graph))
        if self.settings.equalise and not self.settings.per_channel:
            equalise(graph)
        layers = fuse_layers(graph, native_reason, lambda kind, node: True)
        self.placement = place(graph, layers, self.settings)
        self.precisions = self.placement.precisions
        return self.placement

    def _inputs(self, graph: Graph) -> dict[str, Ends]:
        """The ends of the channels of inputs that are spread."""
        if self.calibration is not None:
            return self.calibration.inputs
        if self._ends is None:
            spreads = spread_inputs(graph) if self.settings.spread_inputs else []
            self._ends = {}
            if spreads and self.samples is not None:
                self._ends = ends_of_inputs(spreads, self.samples)
        return self._ends

    def calibrated(self, graph: Graph, placement: Placement) -> Calibration:
        """The calibration, made now where there is none yet."""
        if self.calibration is not None:
            self.calibration.check(self.digest)
            if self.samples is not None:
                self.calibration.check_data(self.samples.digest)
            return self.calibration
        if self.samples is None:
            raise BuildError(
                "precision int8 needs ranges of the activations, and there is no calibration",
                hint="give calibration=DATA (arrays, a folder, a file) or a saved calibration",
            )
        self.calibration = calibrate(
            graph,
            placement,
            self.settings,
            self.samples,
            self.digest,
            self.target,
            self.ranges,
            self.progress,
        )
        self.calibration = replace(self.calibration, inputs=self._ends or {})
        return self.calibration
