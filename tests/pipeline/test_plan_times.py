"""The same timing cache gives the same plan, byte for byte; times of whole plans are in it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_simulation import DATA, model

import planish
from planish import pipeline
from planish.pipeline.plan_times import PlanTimes, plan_digest
from planish.plan import NativeStep, Plan
from planish.targets.cpu import host_target


def build(cache: Path, precision: str = "int8", level: int = 1, **options: Any) -> Plan:
    given: dict[str, Any] = {"calibration": list(DATA)} if precision == "int8" else {}
    return planish.build(
        model(), precision=precision, profiles="N=1:2:16", level=level, timing_cache=cache,
        **given, **options,
    )  # fmt: skip


def saved(plan: Plan, path: Path) -> bytes:
    plan.save(path)
    return path.read_bytes()


def no_timing(plans: Sequence[Plan]) -> list[float]:
    raise AssertionError("plans are timed again")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_equal_caches_give_equal_bytes(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    build(first, precision)
    shutil.copy(first, second)
    monkeypatch.setattr(pipeline, "time_plans", no_timing)
    one, other = (build(cache, precision) for cache in (first, second))
    assert saved(one, tmp_path / "a.plan") == saved(other, tmp_path / "b.plan")
    assert first.read_bytes() == second.read_bytes()


def test_the_guard_leaves_no_times_of_its_own(tmp_path: Path) -> None:
    cache = tmp_path / "times.json"
    build(cache, max_accuracy_drop=1e-4)
    one, other = (build(cache, max_accuracy_drop=1e-4) for _ in range(2))
    assert saved(one, tmp_path / "a.plan") == saved(other, tmp_path / "b.plan")


def test_races_are_known_by_what_the_plans_run(tmp_path: Path) -> None:
    narrow, wide = build(tmp_path / "no.json", level=0), build(tmp_path / "no.json", "fp32", 0)
    assert plan_digest(narrow) != plan_digest(wide)
    timed = []

    def measure(plans: Sequence[Plan]) -> list[float]:
        timed.append(len(plans))
        return [1.23456 + len(timed) + n for n in range(len(plans))]

    times = PlanTimes(tmp_path / "times.json", host_target("", 1), measure)
    assert times([wide, narrow]) == [2.235, 3.235]
    steps = tuple(
        replace(step, micros=7.0, reason=("another",)) if isinstance(step, NativeStep) else step
        for step in narrow.steps
    )
    assert times([replace(narrow, steps=steps), wide]) == [3.235, 2.235]
    assert timed == [2] and times([wide]) == [3.235] and timed == [2, 1]
