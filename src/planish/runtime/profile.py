"""Times each step inside the native program, with two looks at the clock around every call."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from planish.base.errors import PlanishError
from planish.plan.records import NativeStep
from planish.runtime.schedule import Bound

if TYPE_CHECKING:
    from planish.runtime.context import Context

_WARM_UP = 2  # runs


@dataclass(frozen=True)
class StepTime:
    """A step's time, the median over the runs.

    Attributes:
        number: Of the step in the plan.
        name, kernel, tactic, origin: As in the plan; "host" is the kernel of a host step.
        micros: Its share of the run. Between two barriers the time of the slowest worker is shared
            out over the steps there by the workers' time in each, so that waiting is charged to
            the steps that caused it, and the steps add up to the time in native code.
        busy: Each worker's time inside the step's code, microseconds.
        flops: Floating-point operations at the opt shape.
    """

    number: int
    name: str
    kernel: str
    tactic: str
    origin: tuple[str, ...]
    micros: float
    busy: tuple[float, ...]
    flops: int


@dataclass(frozen=True)
class ProfileReport:
    """What `Engine.profile` gives.

    Attributes:
        steps: In the plan's order.
        total: Median time of a whole run with the caller's part, microseconds.
        native: Median over the runs of the time in steps, native or on the host, microseconds.
        runs: How many were timed.
        threads: Workers.
    """

    steps: tuple[StepTime, ...]
    total: float
    native: float
    runs: int
    threads: int


class Trace:
    """Collects the stamps of one run. The context calls it around each part."""

    def __init__(self, steps: int, workers: int) -> None:
        self.share = np.zeros(steps)
        self.busy = np.zeros((steps, workers))
        self.native = 0.0
        self._kept: list[np.ndarray] = []

    def arm(self, bound: Bound) -> None:
        """Give every worker a place for its stamps."""
        self._kept = [np.zeros((len(table), 2), np.int64) for table in bound.tables]
        for worker, stamps in enumerate(self._kept):
            bound.job[worker, 3] = stamps.ctypes.data

    def take(self, bound: Bound) -> None:
        """Read the stamps, and stop the stamping."""
        bound.job[:, 3] = 0
        rounds: list[_Round] = []
        for worker, (stamps, steps) in enumerate(zip(self._kept, bound.steps, strict=True)):
            number = 0
            for step, (begin, end) in zip(steps, stamps.tolist(), strict=False):
                number += step < 0  # a barrier
                while len(rounds) <= number:
                    rounds.append(_Round())
                if step >= 0:
                    rounds[number].add(step, begin, end)
                    self.busy[step, worker] += end - begin
        for round_ in rounds:
            spent = sum(round_.busy.values())
            for step, busy in round_.busy.items():
                self.share[step] += round_.span * busy / max(spent, 1)
            self.native += round_.span

    def host(self, step: int, begin: int, end: int) -> None:
        """A host step ran from `begin` to `end`, nanoseconds."""
        self.share[step] += end - begin
        self.busy[step, 0] += end - begin
        self.native += end - begin


class _Round:
    """What happened between two barriers, nanoseconds."""

    def __init__(self) -> None:
        self.busy: dict[int, int] = {}  # all workers' time, by step
        self._begin, self._end = 0, 0

    def add(self, step: int, begin: int, end: int) -> None:
        self._begin = min(self._begin or begin, begin)
        self._end = max(self._end, end)
        self.busy[step] = self.busy.get(step, 0) + end - begin

    @property
    def span(self) -> int:
        """From the first worker's start to the last one's end."""
        return self._end - self._begin


def profile_runs(context: Context, feeds: Mapping[str, Any], runs: int) -> ProfileReport:
    """Run a context several times with its steps timed.

    Raises:
        PlanishError: `runs` is not positive, or a run failed.
    """
    if runs < 1:
        raise PlanishError(f"profile: expected at least one run, found {runs}")
    for _ in range(_WARM_UP):
        context.run(feeds)
    traces, totals = [], []
    for _ in range(runs):
        begin = time.perf_counter_ns()
        traces.append(context.traced_run(feeds))
        totals.append(time.perf_counter_ns() - begin)
    return ProfileReport(
        steps=_step_times(context, traces),
        total=float(np.median(totals)) / 1e3,
        native=float(np.median([trace.native for trace in traces])) / 1e3,
        runs=runs,
        threads=context.threads,
    )


def _step_times(context: Context, traces: Sequence[Trace]) -> tuple[StepTime, ...]:
    micros = np.median(np.array([trace.share for trace in traces]), axis=0) / 1e3
    busy = np.median(np.array([trace.busy for trace in traces]), axis=0) / 1e3
    times = []
    for number, step in enumerate(context.plan.steps):
        native = step if isinstance(step, NativeStep) else None
        times.append(
            StepTime(
                number=number,
                name=step.name,
                kernel=native.kernel if native else "host",
                tactic=native.tactic if native else "",
                origin=step.origin,
                micros=float(micros[number]),
                busy=tuple(busy[number].tolist()),
                flops=native.flops if native else 0,
            )
        )
    return tuple(times)
