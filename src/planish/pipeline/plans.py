"""The plans that a build in 8 bits chooses from, each made once, and a simulation of them all.

Whoever chooses asks for a plan by the layers that are in floats there; nothing here chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from planish.graph.copy import copy_graph
from planish.graph.graph import Graph
from planish.pipeline.options import Progress
from planish.pipeline.quantiser import Quantiser
from planish.pipeline.simulation import Simulation, in_floats
from planish.plan import Plan
from planish.quantize.apply import scales_of
from planish.quantize.record import read_calibration

Make = Callable[[Quantiser | None], Plan]  # a whole build; None for floats
Simplify = Callable[[Callable[[Graph], None]], None]  # hands over the simplified float graph


class Plans:
    """Builds plans in 8 bits but for some layers; the first calibrates.

    Attributes:
        layers: Layers that 8 bits are for -> their ONNX nodes.
        level: Of the build; at 0 nothing is timed.

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
