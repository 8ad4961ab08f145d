"""Engines and contexts on small plans: right values, whatever the workers, shapes and buffers."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_plans as tiny

from planish.base.errors import EngineClosedError, InputError, PlanishError, ShapeError
from planish.base.shapes import symbol
from planish.plan import PhaseCall, Profile, Ref
from planish.runtime import Engine, load


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_one_step(threads: int) -> None:
    with Engine(tiny.add1_plan(), threads=threads) as engine:
        for size in (0, 1, 2, 3, 7, 64, 1000):
            x = tiny.ramp(size)
            assert np.array_equal(engine.run({"x": x})["y"], x + 1)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_barriers_carry_data_between_workers(threads: int) -> None:
    with Engine(tiny.chain_plan(), threads=threads) as engine:
        for seed in range(200):
            x = tiny.ramp(1 + seed % 64, seed)
            assert np.array_equal(engine.run({"x": x})["y"], x + 1)


def test_file_and_memory_give_the_same(tmp_path: Path) -> None:
    plan = tiny.chain_plan(weights=(tiny.ramp(5),))
    plan.save(tmp_path / "m.plan")
    x = tiny.ramp(33)
    with Engine(plan) as engine, load(tmp_path / "m.plan") as loaded:
        assert np.array_equal(engine.run({"x": x})["y"], loaded.run({"x": x})["y"])
        assert loaded.inputs == plan.inputs
        assert loaded.outputs == plan.outputs


def test_heap() -> None:
    with Engine(tiny.heap_plan(), threads=2) as engine:
        for size in (5, 100, 3):
            assert np.array_equal(engine.run({"x": tiny.ramp(size)})["y"], tiny.ramp(size) + 2)
        assert engine.memory()["heap_peak"] == 400
