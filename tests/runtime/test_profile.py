"""Step times: every step is there, times add up, and runs after it are not timed."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_plans as tiny
from test_host import data_dependent

from planish.base.errors import PlanishError
from planish.runtime import Engine


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_native(threads: int) -> None:
    with Engine(tiny.chain_plan(8), threads=threads) as engine:
        report = engine.profile({"x": tiny.ramp(64)}, runs=5)
        assert [step.number for step in report.steps] == list(range(9))
        assert (report.runs, report.threads) == (5, threads)
        assert report.steps[0].kernel == "test.kernel"
        for step in report.steps:
            assert 0 < step.micros <= report.total
            assert len(step.busy) == threads
        assert report.native <= report.total
        assert np.array_equal(engine(tiny.ramp(64)), tiny.ramp(64) + 1)
        assert all(not b.whole.job[:, 3].any() for b in engine._own._bindings.values())  # type: ignore[union-attr]  # it ran


def test_host() -> None:
    with Engine(data_dependent(), threads=2) as engine:
        report = engine.profile({"x": tiny.ramp(9)}, runs=3)
        assert [step.kernel for step in report.steps] == ["host", "host", "host", "test.kernel"]
        assert all(step.micros > 0 for step in report.steps)
        with pytest.raises(PlanishError, match="at least one run"):
            engine.profile({"x": tiny.ramp(9)}, runs=0)


def test_waiting_is_charged_to_the_steps_that_cause_it() -> None:
    """Of two steps side by side, one 20 times as long: together they take the longer one's time."""
    steps = [
        tiny.step("spin", [tiny.X, tiny.Y], 1, params=[200_000], weight=20.0),
        tiny.step("spin", [tiny.X, tiny.Y], 1, params=[10_000]),
        tiny.step("add1", [tiny.X, tiny.Y], tiny.N, group=1),
    ]
    with Engine(tiny.plan(steps), threads=2) as engine:
        report = engine.profile({"x": tiny.ramp(2)}, runs=9)
        long, short, _ = report.steps
        assert long.busy[0] > 0 and long.busy[1] == 0 and short.busy[0] == 0
        assert long.micros > 5 * short.micros
        assert long.micros + short.micros >= 0.9 * long.busy[0]
