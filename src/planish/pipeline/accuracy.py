"""The accuracy guard of a build: layers go back to floats until the plan is good enough.

    chosen:   on a simulation and one half of the samples, as quantize/guard.py decides
    checked:  on the simulation and the other half; a rung up the ladder where that is outside
    built:    the plan itself on that half, timed; a rung up again where it is outside

The last line of the path is the plan that is kept. Drops of the other half are measured on samples
that no set of layers was chosen on, but for the rungs that they themselves call for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from planish.pipeline.goal import Goal, Judges
from planish.pipeline.options import Progress
from planish.pipeline.scoring import Loss, Run, Scorer, percent
from planish.pipeline.sensitivity import alone, rank_feeds
from planish.pipeline.simulation import Simulation
from planish.plan import Plan
from planish.quantize.guard import Attempt, Held, Ladder, hold_accuracy, most_attempts
from planish.runtime import Engine

GUARDED = "8 bits cost too much accuracy here"
_REBUILT = 3  # times that more layers go back, where the real plan is worse than the simulated one
_STEP = 8  # the first climb is this part of the ladder, each later one twice as long
_BOTTOMLESS = 1e9  # a drop that is infinite, in records


class Builder(Protocol):
    """Builds the plans that are chosen from; `plans.Plans` is one.

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


@dataclass(frozen=True)
class Times:
    """What is known of times before the guard starts.

    Attributes:
        micros: Of the plan that it starts from; 0.0 where nothing is timed.
        saved: Layer -> microseconds that 8 bits save there.
        measure: Microseconds of a run of a plan; 0.0 where nothing is timed.
    """

    micros: float
    saved: Mapping[str, float]
    measure: Callable[[Plan], float]


@dataclass
class Guarded:
    """What came of it.

    Attributes:
        plan: The plan.
        layers: Those that went back to floats for their accuracy, most harmful first.
        loss: What the plan loses.
        unit: Of the bound and the drops.
        samples: How many layers were chosen on, and how many the loss was measured on.
        apart: Whether these are not the same.
        path: What was tried, a row each.
    """

    plan: Plan
    layers: tuple[str, ...] = ()
    loss: Loss = field(default_factory=lambda: Loss(0.0))
    unit: str = ""
    samples: tuple[int, int] = (0, 0)
    apart: bool = False
    path: list[dict[str, object]] = field(default_factory=list)

    def record(self, bound: float) -> dict[str, object]:
        """As data, for the plan's record."""
        return {
            "bound": bound,
            "unit": self.unit,
            "drop": _finite(self.loss.drop),
            "error": self.loss.error,
            "samples": list(self.samples),
            "apart": self.apart,
            "path": self.path,
        }


def guard_accuracy(
    builder: Builder,
    goal: Goal,
    plan: Plan,
    fast: frozenset[str],
    times: Times,
    progress: Progress,
) -> Guarded:
    """Put layers back to floats until the plan is inside the bound; all of them if need be.

    Args:
        builder: Builds plans.
        goal: The bound and what it is measured on.
        plan: The plan to start from.
        fast: Layers that are in floats there, since they are faster so.
        times: What is known of times.
        progress: Called with (what, done, total).
    """
    simulation = builder.simulation()
    try:
        judges = goal.judges(simulation.reference)
        guard = _Guard(builder, goal.bound, judges, simulation, plan, fast, times, progress)
        return guard.hold()
    finally:
        simulation.close()


class _Guard:
    """One run of the guard."""

    def __init__(
        self,
        builder: Builder,
        bound: float,
        judges: Judges,
        simulation: Simulation,
        plan: Plan,
        fast: frozenset[str],
        times: Times,
        progress: Progress,
    ) -> None:
        self._builder, self._bound, self._judges = builder, bound, judges
        self._simulation, self._fast, self._times = simulation, fast, times
        self._progress = progress
        self._names = tuple(name for name in simulation.layers if name not in fast)
        self._made: Ladder | None = None
        self._result = Guarded(
            plan,
            unit=judges.states.unit,
            samples=(judges.chooses.count, judges.states.count),
            apart=judges.apart,
        )

    def hold(self) -> Guarded:
        """Choose, check, build."""
        held = hold_accuracy(
            lambda floats: self._simulated(self._judges.chooses, floats).drop,
            self._bound, self._ladder, lambda attempt: self._note(attempt, "choosing"),
        )  # fmt: skip
        if self._judges.apart and held.inside:
            held = self._checked(held)
        self._build(held)
        return self._result

    def _checked(self, held: Held) -> Held:
        """The first rung from there on that is inside on the other samples too."""
        layers, rung, step = held.layers, held.rung, 0
        while True:
            drop = self._simulated(self._judges.states, frozenset(layers)).drop
            inside = drop <= self._bound
            self._note(Attempt(layers, drop, inside), "checking")
            if inside or len(layers) == len(self._names):
                return Held(layers, rung, inside, held.path)
            layers, rung, step = self._climbed(layers, rung, step)

    def _build(self, held: Held) -> None:
        """Build it and score the plan; up again where that is worse than the simulation."""
        layers, rung, step = held.layers, held.rung, 0
        for attempt in range(_REBUILT + 1):
            if len(layers) == len(self._names) or attempt == _REBUILT:
                break
            plan = self._result.plan
            if layers:
                plan = self._builder.narrow(self._fast | frozenset(layers))
            if self._keep(plan, layers):
                return
            layers, rung, step = self._climbed(layers, rung, step)
        self._keep(self._builder.wide(), self._names)

    def _keep(self, plan: Plan, layers: tuple[str, ...]) -> bool:
        """Score and time a real plan and take it; whether it is inside."""
        with Engine(plan) as engine:
            loss = self._judges.states.loss(engine.run)
        inside = loss.drop <= self._bound
        self._result.plan, self._result.layers, self._result.loss = plan, layers, loss
        self._note(Attempt(layers, loss.drop, inside), "plan", self._times.measure(plan))
        return inside

    def _climbed(
        self, layers: tuple[str, ...], rung: int, step: int
    ) -> tuple[tuple[str, ...], int, int]:
        """(the layers with those of a higher rung, that rung, the step to it)."""
        ladder = self._ladder()
        step = 2 * step or max(1, ladder.top // _STEP)
        rung = min(rung + step, ladder.top)
        wanted = {*layers, *ladder.floats(rung)}
        return tuple(n for n in ladder.floats(ladder.top) if n in wanted), rung, step

    def _ladder(self) -> Ladder:
        """Layers by harm and price; their noise is measured once, when it is needed."""
        if self._made is None:
            simulation, noise = self._simulation, self._judges.noise
            count = rank_feeds(simulation.reference, noise.feeds, len(simulation.layers))
            ratios = alone(simulation, noise.first(count), self._progress)
            harms = {name: percent(ratios[name]) for name in self._names}
            self._made = Ladder(harms, self._times.saved or simulation.work)
        return self._made

    def _simulated(self, judge: Scorer, floats: frozenset[str]) -> Loss:
        run: Run = self._simulation.runner(floats | self._fast)
        return judge.loss(run)

    def _note(self, attempt: Attempt, on: str, measured: float = 0.0) -> None:
        """Put an attempt on the path."""
        base, saved = self._times.micros, self._times.saved
        micros = measured
        if base and not measured:
            micros = base + sum(saved.get(name, 0.0) for name in attempt.layers)
        self._result.path.append(
            {
                "layers": list(attempt.layers),
                "drop": _finite(attempt.drop),
                "inside": attempt.inside,
                "micros": micros,
                "time": "measured" if measured else "estimated" if micros else "",
                "on": on,
            }
        )
        done, most = len(self._result.path), most_attempts(len(self._names)) + 1
        self._progress("accuracy guard", done, max(done, most))


def _finite(drop: float) -> float:
    """A drop as a plan's record can hold it."""
    return drop if math.isfinite(drop) else _BOTTOMLESS
