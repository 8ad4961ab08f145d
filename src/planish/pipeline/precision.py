"""Which layers run in 8 bits: by the time of whole plans, then by the accuracy that is left.

    speed:     plans in floats, in 8 bits, and with the layers in floats that lose time in 8 bits
    accuracy:  where the network became too bad, the layers in floats too that are to blame
    last:      the float plan, where what is left of 8 bits is no faster

What was tried is kept in the plan's provenance under "choice", and why each layer runs in what it
runs in under "quantization".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from planish.pipeline.accuracy import GUARDED, Builder, Guarded, Times, guard_accuracy
from planish.pipeline.goal import Goal
from planish.pipeline.options import Progress
from planish.pipeline.samples import Samples
from planish.pipeline.scoring import Loss
from planish.pipeline.speed import Fastest, Measure, choose_by_time, record_of, time_plans
from planish.plan import Plan

SLOWER = "floats are faster here"


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
        preprocess: What was done to pictures of the calibration data; "" where nothing was.
        guard: What the accuracy guard did; None without it.
    """

    plan: Plan
    kept: str = "int8"
    why: str = ""
    layers: dict[str, str] = field(default_factory=dict)
    tried: list[dict[str, object]] = field(default_factory=list)
    times: dict[str, tuple[float, float]] = field(default_factory=dict)
    preprocess: str = ""
    guard: dict[str, object] | None = None

    def record(self) -> dict[str, Any]:
        """As data, for the plan's provenance."""
        return {
            "kept": self.kept,
            "why": self.why,
            "layers": [[name, why] for name, why in self.layers.items()],
            "preprocess": self.preprocess,
            "tried": self.tried,
            "times": [[name, wide, narrow] for name, (wide, narrow) in self.times.items()],
            "guard": self.guard,
        }


def choose_precisions(
    builder: Builder,
    goal: Goal | None,
    samples: Samples | None,
    progress: Progress,
    measure: Measure = time_plans,
) -> Choice:
    """Build the fastest plan that is good enough.

    Args:
        builder: Builds plans.
        goal: How good; None: no matter.
        samples: What was calibrated on; None where a calibration was given.
        progress: Called with (what, done, total).
        measure: Times plans in turns.
    """
    if builder.level > 0:
        fastest = choose_by_time(builder.narrow, builder.wide(), builder.layers, measure)
        choice = _by_time(fastest)
        saved = {name: wide - narrow for name, (wide, narrow) in fastest.times.items()}
        times = Times(fastest.micros, saved, lambda plan: measure([plan])[0])
    else:
        choice = Choice(builder.narrow(frozenset()))
        times = Times(0.0, {}, lambda plan: 0.0)
    if samples is not None and samples.preprocess is not None:
        choice.preprocess = str(samples.preprocess)
    if goal is not None and choice.kept != "fp32":
        fast = frozenset(choice.layers)
        guarded = guard_accuracy(builder, goal, choice.plan, fast, times, progress)
        _by_accuracy(choice, builder, guarded, measure)
        choice.guard = guarded.record(goal.bound)
    choice.plan.provenance["choice"] = choice.record()
    explain_reverted(choice.plan.provenance.get("quantization", {}), choice.layers)
    return choice


def _by_time(fastest: Fastest) -> Choice:
    choice = Choice(fastest.plan, tried=record_of(fastest.tried), times=fastest.times)
    choice.layers = dict.fromkeys(fastest.layers, SLOWER)
    if fastest.floats:
        choice.kept, choice.why = "fp32", "no plan in 8 bits is faster than the one in floats"
    elif fastest.layers:
        choice.kept, choice.why = "mixed", "some layers are faster in floats"
    return choice


def _by_accuracy(choice: Choice, builder: Builder, guarded: Guarded, measure: Measure) -> None:
    """Take over what the guard left; the float plan where that is no slower."""
    choice.plan = guarded.plan
    choice.layers |= dict.fromkeys(guarded.layers, GUARDED)
    if guarded.plan is builder.wide():
        choice.kept, choice.why = "fp32", "only floats are good enough"
        return
    if not guarded.layers:
        return
    choice.kept, choice.why = "mixed", "some layers cost too much accuracy in 8 bits"
    if builder.level == 0:
        return
    wide = builder.wide()
    narrow, floats = measure([choice.plan, wide])
    choice.tried.append(
        {
            "what": "what the accuracy guard left",
            "layers": list(choice.layers),
            "micros": narrow,
        }
    )
    if narrow > floats:
        choice.plan, choice.kept = wide, "fp32"
        guarded.loss = Loss(0.0)
        choice.why = "what the accuracy guard leaves in 8 bits is no faster than floats"


def explain_reverted(record: dict[str, Any], layers: Mapping[str, str]) -> None:
    """Put the reasons of a choice into a plan's record of its layers."""
    for row in record.get("layers", ()):
        if row[0] in layers:
            row[2], row[3] = "fp32", layers[row[0]]
