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
        micros: From the first worker's start to the last one's end; steps of one group overlap.
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
        native: Median over the runs of the time inside native code and host steps, microseconds.
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
        self.begin = np.full(steps, np.inf)
        self.end = np.zeros(steps)
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
        first, last = np.inf, 0.0
        for worker, (stamps, steps) in enumerate(zip(self._kept, bound.steps, strict=True)):
            for step, (begin, end) in zip(steps, stamps.tolist(), strict=False):
                if step >= 0:
                    self._add(step, worker, begin, end)
                    first, last = min(first, begin), max(last, end)
        self.native += max(0.0, last - first)

    def host(self, step: int, begin: int, end: int) -> None:
        """A host step ran from `begin` to `end`, nanoseconds."""
        self._add(step, 0, begin, end)
        self.native += end - begin

    def _add(self, step: int, worker: int, begin: float, end: float) -> None:
        self.begin[step] = min(self.begin[step], begin)
        self.end[step] = max(self.end[step], end)
        self.busy[step, worker] += end - begin


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
    spans = np.array([np.maximum(trace.end - trace.begin, 0.0) for trace in traces])
    micros = np.median(spans, axis=0) / 1e3
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
