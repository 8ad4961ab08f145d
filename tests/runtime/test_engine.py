"""Engines and contexts on small plans: right values, whatever the workers, shapes and buffers."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_plans as tiny

from planish.base.errors import PlanFileError, PlanishError
from planish.base.shapes import floordiv, symbol
from planish.plan import HeapBuffer, PhaseCall, Profile, Ref
from planish.runtime import Engine, load
from planish.targets.cpu import compile_object
from planish.targets.link import LinkedCode

N = tiny.N


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


def test_weights() -> None:
    weight = np.arange(20, dtype=np.float32)[::2]  # strided: the engine makes it dense
    step = tiny.step("add", [tiny.X, Ref("weight", 0), tiny.Y], 10)
    plan = tiny.plan([step], inputs=[("x", (10,))], outputs=[("y", (10,))], weights=(weight,))
    with Engine(plan) as engine:
        assert np.array_equal(engine(tiny.ramp(10)), tiny.ramp(10) + weight)
        assert engine.memory()["weights"] == 40


def test_heap() -> None:
    with Engine(tiny.heap_plan(), threads=2) as engine:
        for size in (5, 100, 3):
            assert np.array_equal(engine.run({"x": tiny.ramp(size)})["y"], tiny.ramp(size) + 2)
        assert engine.memory()["heap_peak"] == 400


def test_arena_offset_may_depend_on_the_shape() -> None:
    spot = Ref("arena", 0, N * 4, span=N * 4)
    steps = [tiny.step("add1", [tiny.X, spot], N), tiny.step("add1", [spot, tiny.Y], N, group=1)]
    plan = tiny.plan(steps, arena=800, profiles=(Profile((("N", 1, 50, 200),)),))
    with Engine(plan) as engine:
        assert np.array_equal(engine(tiny.ramp(100)), tiny.ramp(100) + 2)
        with pytest.raises(PlanFileError, match=r"reaches bytes 404 to 808 of arena 0.* N = 101"):
            engine(tiny.ramp(101))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_group_is_dealt_together(threads: int) -> None:
    a, b = Ref("arena", 0, 0), Ref("arena", 0, 4096)
    steps = [
        tiny.step("add1", [tiny.X, a], N, group=0, weight=3.0),
        tiny.step("mirror", [tiny.X, b], N, params=[N], group=0),
        tiny.step("add", [a, b, tiny.Y], N, group=1),
    ]
    with Engine(tiny.plan(steps, arena=8192), threads=threads) as engine:
        for size in (1, 2, 5, 64, 1000):
            x = tiny.ramp(size)
            assert np.array_equal(engine(x), x + 1 + x[::-1])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_phases(threads: int) -> None:
    """Mirror, barrier, mirror back, and then on the same units without a barrier."""
    a = Ref("arena", 0, 0)
    mirror = PhaseCall("mirror", N)
    # args 0 and 1 are what both functions read and write: x is mirrored into y, then y += 1
    first = tiny.step([mirror], [tiny.X, a], N, params=[N], group=0)
    second = tiny.step([mirror], [a, tiny.Y], N, params=[N], group=1)
    third = tiny.step("add1", [tiny.Y, tiny.Y], N, group=2, barrier=False)
    with Engine(tiny.plan([first, second, third], arena=4096), threads=threads) as engine:
        for size in (1, 2, 5, 64, 1000):
            assert np.array_equal(engine(tiny.ramp(size)), tiny.ramp(size) + 1)


def test_phases_in_one_step() -> None:
    phases = [PhaseCall("add1", N), PhaseCall("add1", N, barrier=False), PhaseCall("add1", N)]
    step = tiny.step(phases, [tiny.Y, tiny.Y], N, group=1)
    copy = tiny.step("mirror", [tiny.X, tiny.Y], N, params=[N])
    with Engine(tiny.plan([copy, step]), threads=3) as engine:
        assert np.array_equal(engine(tiny.ramp(50)), tiny.ramp(50)[::-1] + 3)


def test_worker_scratch_is_private() -> None:
    plan = tiny.plan([tiny.step("through", [tiny.X, tiny.Y], N)], worker_scratch=4)
    with Engine(plan, threads=4) as engine:
        for seed in range(20):
            x = tiny.ramp(5000, seed)
            assert np.array_equal(engine(x), x + 1)


def test_several_inputs_and_outputs() -> None:
    steps = [
        tiny.step("add", [Ref("input", 0), Ref("input", 1), Ref("output", 1)], N),
        tiny.step("add1", [Ref("input", 1), Ref("output", 0)], N),
    ]
    plan = tiny.plan(steps, inputs=[("a", (N,)), ("b", (N,))], outputs=[("p", (N,)), ("q", (N,))])
    a, b = tiny.ramp(9), tiny.ramp(9, 5)
    with Engine(plan) as engine:
        assert list(engine.run({"b": b, "a": a})) == ["p", "q"]
        p, q = engine(a, b)
        assert np.array_equal(p, b + 1)
        assert np.array_equal(q, a + b)


def test_shapes_are_kept_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_SHAPE_CACHE", "3")
    with Engine(tiny.chain_plan(), threads=2) as engine, engine.context() as context:
        for size in [1, 2, 3, 4, 5, 1, 5, 4, 3, 2, 1]:
            result = context.run({"x": tiny.ramp(size)})["y"]
            assert np.array_equal(result, tiny.ramp(size) + 1)
            assert len(context._bindings) <= 3


def test_default_threads_stay_below_plan_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planish.runtime.engine.usable_cores", lambda: 3)
    assert Engine(tiny.add1_plan(threads=8)).threads == 3
    assert Engine(tiny.add1_plan(threads=2)).threads == 2
    monkeypatch.setenv("PLANISH_THREADS", "5")
    assert Engine(tiny.add1_plan(threads=2)).threads == 5
    assert Engine(tiny.add1_plan(threads=2), threads=1).threads == 1
    for illegal in (-1, 5000, 1.5, True, "2"):
        with pytest.raises(PlanishError, match="threads: expected an integer"):
            Engine(tiny.add1_plan(), threads=illegal)  # type: ignore[arg-type]  # on purpose


def test_many_contexts_at_once() -> None:
    wrong: list[int] = []
    with Engine(tiny.chain_plan(), threads=2) as engine:

        def stream(seed: int) -> None:
            with engine.context(threads=1 + seed % 3) as context:
                for n in range(60):
                    x = tiny.ramp(1 + (seed * 7 + n) % 64, seed)
                    if not np.array_equal(context.run({"x": x})["y"], x + 1):
                        wrong.append(seed)

        threads = [threading.Thread(target=stream, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_one_engine_from_many_threads() -> None:
    wrong: list[int] = []
    with Engine(tiny.chain_plan(), threads=2) as engine:

        def user(seed: int) -> None:
            for n in range(60):
                x = tiny.ramp(1 + n % 64, seed)
                if not np.array_equal(engine.run({"x": x})["y"], x + 1):
                    wrong.append(seed)

        threads = [threading.Thread(target=user, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_submit_keeps_the_order() -> None:
    with Engine(tiny.chain_plan()) as engine, engine.context(threads=1) as context:
        futures = [context.submit({"x": tiny.ramp(8, seed)}) for seed in range(50)]
        for seed, future in enumerate(futures):
            assert np.array_equal(future.result(30)["y"], tiny.ramp(8, seed) + 1)


def test_repeats_are_bit_equal() -> None:
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    with Engine(tiny.chain_plan(), threads=2) as engine:
        first = engine(x).tobytes()
        assert all(engine(x).tobytes() == first for _ in range(50))


def test_denormals_survive() -> None:
    """Native code runs in the IEEE default environment, in every worker."""
    least = np.finfo(np.float32).tiny
    plan = tiny.plan([tiny.step("half", [tiny.X, tiny.Y], N)])
    with Engine(plan, threads=3) as engine:
        made = engine(np.full(9, least, np.float32))
        assert np.array_equal(made, np.full(9, least / 2, np.float32))
        assert (made > 0).all()


@pytest.mark.skipif(tiny.TARGET.triple.partition("-")[0] != "x86_64", reason="sets x86's MXCSR")
def test_the_callers_float_mode_does_not_matter() -> None:
    """With denormals flushed in the calling thread results are the same; its mode is kept."""
    text = """
        declare void @llvm.x86.sse.ldmxcsr(ptr)
        declare void @llvm.x86.sse.stmxcsr(ptr)
        define void @set(ptr %mode) { call void @llvm.x86.sse.ldmxcsr(ptr %mode) ret void }
        define void @get(ptr %mode) { call void @llvm.x86.sse.stmxcsr(ptr %mode) ret void }
    """
    linked = LinkedCode([compile_object(text, tiny.TARGET)])
    put, get = (
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(linked.address(name)) for name in ("set", "get")
    )
    usual, flushing, found = ctypes.c_uint32(0), ctypes.c_uint32(0), ctypes.c_uint32(0)
    get(ctypes.addressof(usual))
    flushing.value = usual.value | 0x8040  # flush to zero, denormals are zero
    least = np.finfo(np.float32).tiny
    plan = tiny.plan([tiny.step("half", [tiny.X, tiny.Y], N)])
    with Engine(plan, threads=2) as engine:
        x = np.full(9, least, np.float32)
        try:
            put(ctypes.addressof(flushing))
            made = engine(x)
            get(ctypes.addressof(found))
        finally:
            put(ctypes.addressof(usual))
    assert found.value & 0x8040 == 0x8040
    assert (made > 0).all()


def test_memory_is_told() -> None:
    with Engine(tiny.chain_plan(worker_scratch=100), threads=2) as engine:
        assert engine.memory()["arena"] == 0
        engine(tiny.ramp(4))
        told = engine.memory()
        assert (told["arena"], told["scratch"], told["heap"]) == (512, 200, 0)
        with engine.context():
            assert engine.memory()["arena"] == 1024


def test_bad_sizes_are_refused_when_bound() -> None:
    half = floordiv(16, N)
    plan = tiny.plan([tiny.step("add1", [tiny.X, tiny.Y], half)])
    with Engine(plan) as engine:
        engine(tiny.ramp(16))
        with pytest.raises(PlanFileError, match="divides by zero"):
            engine(tiny.ramp(0))
    plan = tiny.plan([tiny.step("add1", [tiny.X, tiny.Y], N - 5)])
    with Engine(plan) as engine, pytest.raises(PlanFileError, match="-2 units"):
        engine(tiny.ramp(3))


def test_no_memory_is_an_error_of_ours() -> None:
    with (
        pytest.raises(PlanishError, match="no memory for the activation arena"),
        Engine(tiny.add1_plan(arena=2**46)) as engine,
    ):
        engine(tiny.ramp(3))
    h = Ref("heap", 0)
    plan = tiny.plan([tiny.step("add1", [tiny.X, h], 1)], heap=(HeapBuffer(N * 2**44),))
    with Engine(plan) as engine, pytest.raises(PlanishError, match="no memory for heap buffer 0"):
        engine(tiny.ramp(3))


def test_a_symbol_nobody_defines() -> None:
    with pytest.raises(PlanFileError, match=r"nothing gives the value of .'M'."):
        Engine(tiny.plan([tiny.step("add1", [tiny.X, tiny.Y], symbol("M"))]))


def test_code_without_the_function() -> None:
    with pytest.raises(PlanFileError, match="no function 'absent'"):
        Engine(tiny.plan([tiny.step("absent", [tiny.X, tiny.Y], N)]))
    with pytest.raises(PlanFileError, match="planish_run_v2"):
        Engine(tiny.add1_plan(objects=tiny.OBJECTS[1:]))


def test_another_cpu() -> None:
    target = tiny.add1_plan().target
    with pytest.raises(PlanFileError, match="lacks quantum"):
        Engine(tiny.add1_plan(target={**target, "needs": [*target["needs"], "quantum"]}))
    with pytest.raises(PlanFileError, match="for sparc on"):
        Engine(tiny.add1_plan(target={**target, "machine": "sparc"}))
    with pytest.raises(PlanFileError, match="does not say which CPU"):
        Engine(tiny.add1_plan(target={}))
