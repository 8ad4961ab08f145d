"""Which layers run in 8 bits: by the time of whole plans, then by the accuracy that is left.

    timed:    plans in floats, in 8 bits, and with the layers in floats that lose time in 8 bits
    guarded:  where the network became too bad, the worst layers in floats too, found by simulation,
              then held against the real plan
    last:     the float plan, where what is left of 8 bits is no faster

What was tried is kept in the plan's provenance under "choice", and why each layer runs in what it
runs in under "quantization".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from planish.pipeline.mixed import Mixed, choose_by_time, layer_times, told
from planish.pipeline.options import Progress
from planish.pipeline.samples import Samples
from planish.pipeline.scoring import OutputNoise, Run, Scorer, pick
from planish.pipeline.sensitivity import alone, rank_feeds, worst_first
from planish.pipeline.simulation import Simulation
from planish.pipeline.trial import opt_feeds
from planish.plan import Plan
from planish.quantize.guard import Attempt, Held, hold_accuracy
from planish.runtime import Engine

SLOWER = "floats are faster here"
GUARDED = "8 bits cost too much accuracy here"
_SAMPLES = 32  # for noise and ranking
_REPAIRS = 3  # times that more layers go back, where the real plan is worse than the simulated one
_BOTTOMLESS = 1e9  # a drop that is infinite, in records
_ROUNDS = 7  # of timing whole plans in turns
_ROUND_S = 0.15  # seconds of one plan in one of them

MakeScorer = Callable[[Run], Scorer]  # the float network -> how others are scored


class Builder(Protocol):
    """Builds the plans that are chosen from.

    Attributes:
        layers: Layers that 8 bits are for -> their ONNX nodes.
        level: Of the build; at 0 nothing is timed.
    """

    layers: Mapping[str, Sequence[str]]
    level: int

    def narrow(self, floats: frozenset[str]) -> Plan:
        """The plan in 8 bits but for some layers."""
        ...

    def wide(self) -> Plan:
        """The plan in floats."""
        ...

    def simulation(self) -> Simulation:
        """The network with any set of layers in 8 bits."""
        ...


@dataclass
class Choice:
    """What became of a build in 8 bits.

    Attributes:
        plan: The plan that is kept.
        kept: "int8", "mixed" or "fp32".
        why: Why that one.
        layers: Layer that 8 bits are for, and that runs in floats -> why.
        tried: Plans that were timed.
        times: Layer -> microseconds in floats and in 8 bits, where timed.
        path: What the accuracy guard tried.
        preprocess: What was done to pictures of the calibration data; "" where nothing was.
        bound: What it was to hold; None without it.
        unit: Of the bound and the drops.
        reached: Drop of the plan that is kept, measured on it; None without the guard.
    """

    plan: Plan
    kept: str = "int8"
    why: str = ""
    layers: dict[str, str] = field(default_factory=dict)
    tried: list[dict[str, object]] = field(default_factory=list)
    times: dict[str, tuple[float, float]] = field(default_factory=dict)
    path: list[dict[str, object]] = field(default_factory=list)
    preprocess: str = ""
    bound: float | None = None
    unit: str = ""
    reached: float | None = None

    def record(self) -> dict[str, Any]:
        """As data, for the plan's provenance."""
        guard = None
        if self.bound is not None:
            drop = None if self.reached is None else _finite(self.reached)
            guard = {"bound": self.bound, "unit": self.unit, "drop": drop, "path": self.path}
        return {
            "kept": self.kept,
            "why": self.why,
            "layers": [[name, why] for name, why in self.layers.items()],
            "preprocess": self.preprocess,
            "tried": self.tried,
            "times": [[name, wide, narrow] for name, (wide, narrow) in self.times.items()],
            "guard": guard,
        }


def choose_precisions(
    builder: Builder,
    bound: float | None,
    scorer: MakeScorer | None,
    samples: Samples | None,
    progress: Progress,
) -> Choice:
    """Build the fastest plan that is good enough.

    Args:
        builder: Builds plans.
        bound: How much worse the network may become; None: as much as it does.
        scorer: Labels or a metric; None: the noise of the outputs counts.
        samples: Data to score on; needed for a bound.
        progress: Called with (what, done, total).
    """
    if builder.level > 0:
        mixed = choose_by_time(builder.narrow, builder.wide(), builder.layers, time_plans)
        choice = _timed(mixed)
    else:
        choice = Choice(builder.narrow(frozenset()))
        mixed = None
    if samples is not None and samples.preprocess is not None:
        choice.preprocess = str(samples.preprocess)
    if bound is not None and samples is not None and choice.kept != "fp32":
        _guard(choice, builder, bound, scorer, samples, mixed, progress)
    choice.plan.provenance["choice"] = choice.record()
    explain_reverted(choice.plan.provenance.get("quantization", {}), choice.layers)
    return choice


def _timed(mixed: Mixed) -> Choice:
    choice = Choice(mixed.plan, tried=told(mixed.tried), times=mixed.times)
    choice.layers = dict.fromkeys(mixed.layers, SLOWER)
    if mixed.floats:
        choice.kept, choice.why = "fp32", "no plan in 8 bits is faster than the one in floats"
    elif mixed.layers:
        choice.kept, choice.why = "mixed", "some layers are faster in floats"
    return choice


def _guard(
    choice: Choice,
    builder: Builder,
    bound: float,
    scorer: MakeScorer | None,
    samples: Samples,
    mixed: Mixed | None,
    progress: Progress,
) -> None:
    """Put layers back to floats until the plan is good enough; changes the choice."""
    fast = frozenset(choice.layers)
    wide = builder.wide()
    saved = _saved(choice.plan, wide, builder.layers) if mixed is not None else {}
    base = float(str(choice.tried[-1]["micros"])) if choice.tried else 0.0
    simulation = builder.simulation()
    feeds = pick(samples, _SAMPLES)
    noise = OutputNoise(feeds, simulation.reference)
    judge = noise if scorer is None else scorer(simulation.reference)
    choice.bound, choice.unit = bound, judge.unit
    order: list[str] = []

    def drop(floats: frozenset[str]) -> float:
        return judge.drop(judge.score(simulation.runner(floats | fast)))

    def rank() -> list[str]:
        count = rank_feeds(simulation.reference, feeds, len(simulation.layers))
        ranked = OutputNoise(feeds[:count], simulation.reference)
        order.extend(n for n in worst_first(alone(simulation, ranked, progress)) if n not in fast)
        return order

    def tell(attempt: Attempt) -> None:
        micros = base + sum(saved.get(name, 0.0) for name in attempt.layers)
        choice.path.append(_line(attempt, micros, "simulation"))
        progress("accuracy guard", len(choice.path), 0)

    try:
        held = hold_accuracy(drop, bound, rank, saved, tell)
        reference = simulation.reference
        _confirm(choice, builder, judge, held, order, tell_real(choice), fast)
        if choice.reached is not None and choice.reached > bound:
            choice.plan, choice.kept = wide, "fp32"
            choice.why = "only floats are good enough"
            choice.layers = dict.fromkeys(builder.layers, GUARDED)
            choice.reached = judge.drop(judge.score(reference))
            return
    finally:
        simulation.close()
    if builder.level > 0 and choice.layers:
        narrow, floats = time_plans([choice.plan, wide])
        choice.tried.append({"what": "what the accuracy guard left", "micros": narrow,
                             "layers": list(choice.layers)})  # fmt: skip
        if narrow > floats:
            choice.plan, choice.kept = wide, "fp32"
            choice.why = "what the accuracy guard leaves in 8 bits is no faster than floats"


def tell_real(choice: Choice) -> Callable[[Attempt], None]:
    """Notes an attempt on a real plan."""

    def tell(attempt: Attempt) -> None:
        choice.path.append(_line(attempt, 0.0, "plan"))

    return tell


def _confirm(
    choice: Choice,
    builder: Builder,
    judge: Scorer,
    held: Held,
    order: Sequence[str],
    tell: Callable[[Attempt], None],
    fast: frozenset[str],
) -> None:
    """Build what the simulation found and score it; more layers go back where it is worse."""
    kept = list(held.layers)
    assert choice.bound is not None
    for attempt in range(_REPAIRS + 1):
        if kept:
            choice.plan = builder.narrow(fast | frozenset(kept))
        with Engine(choice.plan) as engine:
            choice.reached = judge.drop(judge.score(engine.run))
        tell(Attempt(tuple(kept), choice.reached, choice.reached <= choice.bound))
        rest = [name for name in order or builder.layers if name not in (*kept, *fast)]
        if choice.reached <= choice.bound or not rest or attempt == _REPAIRS:
            break
        kept += rest[: max(1, len(kept) // 8)]
    if kept:
        choice.kept, choice.why = "mixed", "some layers cost too much accuracy in 8 bits"
        choice.layers |= dict.fromkeys(kept, GUARDED)


def _line(attempt: Attempt, micros: float, on: str) -> dict[str, object]:
    """A line of the guard's path: what was tried, the estimated time, what it was scored on."""
    return {
        "layers": list(attempt.layers),
        "drop": _finite(attempt.drop),
        "inside": attempt.inside,
        "micros": micros,
        "on": on,
    }


def _finite(drop: float) -> float:
    """A drop as a plan's record can hold it."""
    return drop if math.isfinite(drop) else _BOTTOMLESS


def _saved(narrow: Plan, wide: Plan, layers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Microseconds that 8 bits save at each layer."""
    floats, bytes_ = layer_times(wide, layers), layer_times(narrow, layers)
    return {name: floats[name] - bytes_[name] for name in layers}


def time_plans(plans: Sequence[Plan]) -> list[float]:
    """Microseconds of a run of each plan, timed in turns on the same inputs; medians of minima."""
    engines = [Engine(plan) for plan in plans]
    try:
        feeds = opt_feeds(plans[0])
        outputs = [engine.run(feeds) for engine in engines]
        rounds: list[list[float]] = []
        for _ in range(_ROUNDS):
            rounds.append([])
            for engine, into in zip(engines, outputs, strict=True):
                rounds[-1].append(_quickest(engine, feeds, into))
        return [float(m) for m in np.median(np.array(rounds), axis=0)]
    finally:
        for engine in engines:
            engine.close()


def _quickest(engine: Engine, feeds: dict[str, Any], into: dict[str, Any]) -> float:
    best, end = float("inf"), time.perf_counter() + _ROUND_S
    count = 0
    while count < 3 or (time.perf_counter() < end and count < 200):
        began = time.perf_counter()
        engine.run(feeds, into)
        best = min(best, time.perf_counter() - began)
        count += 1
    return best * 1e6


def explain_reverted(record: dict[str, Any], layers: Mapping[str, str]) -> None:
    """Put the reasons of a choice into a plan's record of its layers."""
    for row in record.get("layers", ()):
        if row[0] in layers:
            row[2], row[3] = "fp32", layers[row[0]]
