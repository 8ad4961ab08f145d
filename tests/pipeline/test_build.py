"""Tiny models of every odd kind, built and run: the results are those of ONNX's reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import MODELS, SIZES, assert_close, expected, feeds_of, model

from planish.base.errors import BuildError, PlanishError, ShapeError
from planish.pipeline import build
from planish.plan import HostStep, NativeStep, Plan
from planish.runtime import Engine
from planish.targets.cpu import host_target


def _isas() -> Iterator[str]:
    for isa in ("generic", "avx2"):
        try:
            host_target(isa, 1)
        except PlanishError:
            continue  # another architecture
        yield isa


def _run(plan: Plan, feeds: dict[str, np.ndarray], threads: int = 0) -> dict[str, np.ndarray]:
    with Engine(plan, threads=threads) as engine:
        return engine.run(feeds)


def _poisoned(plan: Plan, feeds: dict[str, np.ndarray], byte: int) -> dict[str, np.ndarray]:
    """Run with every byte of the arena and the workers' scratch set beforehand."""
    with Engine(plan) as engine, engine.context() as context:
        context._arena.array[:] = byte
        context._scratch.array[:] = byte
        return context.run(feeds)


@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_the_reference_and_hang_on_no_stale_memory(name: str) -> None:
    made = model(MODELS[name])
    feeds = feeds_of(made, SIZES)
    plan = build(made, level=0, threads=1)
    clean, dirty = (_poisoned(plan, feeds, byte) for byte in (0x00, 0xFF))
    assert_close(clean, expected(made, feeds))
    for output, value in clean.items():
        assert value.tobytes() == dirty[output].tobytes(), f"{output} reads what no step wrote"


@pytest.mark.parametrize("name", ["inception", "attention", "dynamic_conv", "whole_numbers"])
def test_each_node_by_itself_gives_the_same(name: str) -> None:
    made = model(MODELS[name])
    feeds = feeds_of(made, SIZES)
    plan = build(made, level=0, threads=1, optimised=False)
    assert_close(_run(plan, feeds), expected(made, feeds))


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("name", ["inception", "layer_norm"])
def test_threads(name: str, threads: int) -> None:
    made = model(MODELS[name])
    feeds = feeds_of(made, SIZES)
    plan = build(made, level=0, threads=threads)
    assert plan.threads == threads
    first = _run(plan, feeds, threads)
    assert_close(first, expected(made, feeds))
    again = _run(plan, feeds, threads)
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)


@pytest.mark.parametrize("isa", list(_isas()))
@pytest.mark.parametrize("name", ["inception", "matmul_batched"])
def test_instruction_sets(name: str, isa: str) -> None:
    made = model(MODELS[name])
    feeds = feeds_of(made, SIZES)
    assert_close(_run(build(made, level=0, threads=1, isa=isa), feeds), expected(made, feeds))


@pytest.mark.parametrize("name", ["dynamic", "dynamic_conv", "dynamic_reshape", "dynamic_shape_of"])
def test_one_plan_runs_every_shape(name: str) -> None:
    made = model(MODELS[name])
    plan = build(made, level=0, threads=1)
    with Engine(plan) as engine:
        for sizes in ({"N": 1, "M": 1}, {"N": 8, "M": 5}, {"N": 64, "M": 17}, {"N": 3, "M": 16}):
            feeds = feeds_of(made, sizes, seed=sizes["N"])
            assert_close(engine.run(feeds), expected(made, feeds))


def test_a_shape_outside_the_profile_is_refused() -> None:
    made = model(MODELS["dynamic_conv"])
    plan = build(made, level=0, threads=1, profiles={"N": (1, 2, 4)})
    with Engine(plan) as engine, pytest.raises(ShapeError, match="5"):
        engine.run(feeds_of(made, {"N": 5}))


def test_the_arena_grows_with_the_batch() -> None:
    made = model(MODELS["dynamic_conv"])
    arenas = [build(made, level=0, threads=1, profiles={"N": (1, n, n)}).arena for n in (2, 4, 8)]
    assert arenas[1] == 2 * arenas[0] and arenas[2] == 4 * arenas[0]


def test_host_steps_stand_in_the_middle() -> None:
    plan = build(model(MODELS["host_in_the_middle"]), level=0, threads=1)
    kinds = [type(step) for step in plan.steps]
    assert kinds == [NativeStep, HostStep, NativeStep]
    host = next(step for step in plan.steps if isinstance(step, HostStep))
    assert host.op == "Det" and host.reason


def test_tuning_once_then_the_cache_alone_gives_equal_bytes(tmp_path: Path) -> None:
    made, cache = model(MODELS["residual"]), tmp_path / "times.json"
    feeds = feeds_of(made)
    first = build(made, level=3, threads=1, timing_cache=cache)
    assert_close(_run(first, feeds), expected(made, feeds))
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.plan")
        before = cache.read_bytes()
        build(made, level=3, threads=1, timing_cache=cache).save(files[-1])
        assert cache.read_bytes() == before, "what was timed is timed again"
    assert files[0].read_bytes() == files[1].read_bytes()
    again = build(made, level=3, threads=1, timing_cache=cache)
    assert _tactics(again) == _tactics(first)


def _tactics(plan: Plan) -> list[str]:
    return [f"{s.kernel} {s.tactic}".strip() for s in plan.steps if isinstance(s, NativeStep)]


def test_a_pin_is_obeyed_and_said(tmp_path: Path) -> None:
    made, cache = model(MODELS["gemm"]), tmp_path / "times.json"
    plan = build(made, level=2, threads=1, timing_cache=cache)
    (step,) = plan.steps
    assert isinstance(step, NativeStep)
    loser = next(line for line in step.reason if ": lost, " in line).split(": lost, ")[0]
    pinned = build(made, level=2, threads=1, timing_cache=cache, pins={step.name: loser})
    assert _tactics(pinned) == [loser] != _tactics(plan)
    assert isinstance(pinned.steps[0], NativeStep)
    assert pinned.steps[0].reason == (f"{loser}: pinned by the user",)


@pytest.mark.parametrize(
    ("pins", "says"),
    [
        ({"nobody": "cpu.matmul_f32.plain"}, "names no native layer"),
        ({"*": "cpu.nothing"}, "legal are"),
    ],
)
def test_a_pin_that_cannot_be_obeyed_says_why(pins: dict[str, str], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        build(model(MODELS["gemm"]), level=0, threads=1, pins=pins)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "fp7"}, "precision"),
        ({"level": 6}, "level"),
        ({"level": -1}, "level"),
        ({"threads": 0}, "threads"),
        ({"time_budget": -1.0}, "time_budget"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        build(model(MODELS["gemm"]), **options)


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(PlanishError, match="sse9"):
        build(model(MODELS["gemm"]), isa="sse9")


@pytest.mark.parametrize("name", ["data_dependent", "host_in_the_middle"])
def test_models_with_host_steps_are_tuned_too(name: str, tmp_path: Path) -> None:
    made = model(MODELS[name])
    feeds = feeds_of(made)
    plan = build(made, level=3, threads=1, timing_cache=tmp_path / "times.json")
    assert_close(_run(plan, feeds), expected(made, feeds))


def test_opt_sizes_that_do_not_fit_ask_for_a_profile(tmp_path: Path) -> None:
    made = model("""
g (float[N,M] x, float[3,2] wa) => (float[2,2] y) {
  s = Constant <value = int64[2] {2, 3}> ()
  r = Reshape (x, s)
  e = Softmax (r)
  y = MatMul (e, wa)
}""")
    cache = tmp_path / "times.json"
    with pytest.raises(ShapeError, match="level 0"):
        build(made, level=2, threads=1, timing_cache=cache)
    plan = build(
        made, level=2, threads=1, timing_cache=cache, profiles={"N": (1, 2, 6), "M": (1, 3, 6)}
    )
    feeds = feeds_of(made, {"N": 2, "M": 3})
    assert_close(_run(plan, feeds), expected(made, feeds))
