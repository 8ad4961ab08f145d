"""The ends of things: close, fork, Ctrl-C, exit, exceptions. No thread may stay behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import tiny_plans as tiny

from planish.base.errors import EngineClosedError, InputError, PlanishError
from planish.runtime import Context, Engine

HERE = Path(__file__).parent


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("planish-")]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> object:
    gc.collect()
    before = set(workers())
    yield
    gc.collect()
    until = time.monotonic() + 5
    while set(workers()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert not set(workers()) - before


def python(code: str, **options: object) -> subprocess.Popen[str]:
    """Another interpreter that can make tiny plans."""
    head = "import faulthandler, sys\nfaulthandler.enable()\nimport tiny_plans as tiny\n"
    head += "from planish.runtime import Engine\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str], seconds: float = 30) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the process hangs\n{out}\n{err}") from None
    return process.returncode, out, err


# ---- close --------------------------------------------------------------------------------------


def test_use_after_close() -> None:
    engine = Engine(tiny.add1_plan(), threads=2)
    context = engine.context()
    x = tiny.ramp(4)
    engine(x)
    context.run({"x": x})
    engine.close()
    engine.close()
    assert engine.closed and context.closed
    for use in (
        lambda: engine(x),
        lambda: engine.run({"x": x}),
        lambda: engine.submit({"x": x}),
        lambda: engine.context(),
        lambda: engine.profile({"x": x}),
        lambda: context.run({"x": x}),
        lambda: context.submit({"x": x}),
    ):
        with pytest.raises(EngineClosedError, match="closed"):
            use()
    assert engine.inputs[0].name == "x"
    assert "closed" in repr(engine)


def test_a_context_closes_alone() -> None:
    with Engine(tiny.add1_plan(), threads=2) as engine:
        context = engine.context()
        context.close()
        context.close()
        with pytest.raises(EngineClosedError):
            context.run({"x": tiny.ramp(4)})
        assert np.array_equal(engine(tiny.ramp(4)), tiny.ramp(4) + 1)


def slow_engine(rounds: int) -> Engine:
    """Each run counts to `rounds` on every unit."""
    step = tiny.step("spin", [tiny.X, tiny.Y], tiny.N, params=[rounds])
    return Engine(tiny.plan([step]), threads=2)


def test_close_waits_for_what_runs() -> None:
    engine = slow_engine(20_000_000)
    made: list[np.ndarray] = []
    running = threading.Thread(target=lambda: made.append(engine(tiny.ramp(8))))
    engine(tiny.ramp(1))
    running.start()
    time.sleep(0.02)
    engine.close()
    running.join(30)
    assert not made or (made[0] == 1).all()


def test_close_finishes_what_was_submitted() -> None:
    engine = slow_engine(200_000)
    futures = [engine.submit({"x": tiny.ramp(4)}) for _ in range(20)]
    engine.close()
    assert all(future.done() and (future.result()["y"] == 1).all() for future in futures)


def test_close_from_a_callback() -> None:
    with Engine(tiny.add1_plan(), threads=2) as engine:
        context = engine.context()
        closed = threading.Event()

        def end(_: Future[dict[str, np.ndarray]]) -> None:
            context.close()
            closed.set()

        context.submit({"x": tiny.ramp(3)}).add_done_callback(end)
        assert closed.wait(10)
        with pytest.raises(EngineClosedError):
            context.submit({"x": tiny.ramp(3)})


def test_collected_without_close() -> None:
    engine = Engine(tiny.chain_plan(), threads=3)
    engine(tiny.ramp(5))
    engine.submit({"x": tiny.ramp(5)}).result(10)
    assert len(workers()) >= 3
    del engine  # the fixture sees the threads leave


def test_errors_leave_the_context_usable() -> None:
    with Engine(tiny.chain_plan(), threads=2) as engine:
        for _ in range(20):
            with pytest.raises(InputError):
                engine.run({"x": [1]})
            with pytest.raises(InputError):
                engine.submit({"q": 1}).result(10)
            assert np.array_equal(engine(tiny.ramp(9)), tiny.ramp(9) + 1)


def test_threads_refused_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Thread.start
    count = 0

    def refuse_third(thread: threading.Thread) -> None:
        nonlocal count
        count += thread.name.startswith("planish-worker")
        if count == 3:
            raise RuntimeError("can't start new thread")
        started(thread)

    with Engine(tiny.chain_plan(), threads=5) as engine:
        monkeypatch.setattr(threading.Thread, "start", refuse_third)
        with pytest.raises(PlanishError, match="refused a thread, 4 are needed"):
            engine(tiny.ramp(5))
        monkeypatch.undo()
        assert not workers()
        assert np.array_equal(engine(tiny.ramp(5)), tiny.ramp(5) + 1)


# ---- the kernel's side --------------------------------------------------------------------------


def test_oversubscription_ends_soon() -> None:
    """Eight workers, and two more contexts, on however few cores."""
    begin = time.monotonic()
    with Engine(tiny.chain_plan(20), threads=8) as engine, engine.context(2) as other:
        for seed in range(25):
            x = tiny.ramp(64, seed)
            assert np.array_equal(engine(x), x + 1)
            assert np.array_equal(other.run({"x": x})["y"], x + 1)
    assert time.monotonic() - begin < 20


def test_idle_workers_sleep() -> None:
    with Engine(tiny.chain_plan(), threads=4) as engine:
        engine(tiny.ramp(64))
        time.sleep(0.1)  # longer than spinning and yielding take
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05
        assert np.array_equal(engine(tiny.ramp(64)), tiny.ramp(64) + 1)


@pytest.mark.parametrize("spin", ["0", "1", "20"])
def test_no_wake_up_is_lost(spin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no patience at all every wait goes to sleep, every barrier wakes."""
    monkeypatch.setenv("PLANISH_SPIN_US", spin)
    monkeypatch.setenv("PLANISH_YIELD_US", "0")
    with Engine(tiny.chain_plan(20), threads=3) as engine:
        for seed in range(300):
            x = tiny.ramp(1 + seed % 64, seed)
            assert np.array_equal(engine(x), x + 1)


def test_crowded_teams_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planish.runtime.workers.usable_cores", lambda: 4)

    def spins(context: Context) -> bool:
        from planish.targets.driver import CONTROL

        state = context._team._state
        at = CONTROL["spin_ns"]
        return bool(state.control.array[at : at + 8].view(np.int64)[0])

    with Engine(tiny.chain_plan()) as engine, engine.context(2) as a:
        assert spins(a)
        with engine.context(2) as b:
            assert spins(a) and spins(b)
            with engine.context(1) as c:
                assert not (spins(a) or spins(b) or spins(c))
            assert spins(a) and spins(b)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity masks")
def test_pinning_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.sched_getaffinity(0)
    monkeypatch.setenv("PLANISH_PIN", "1")
    with Engine(tiny.chain_plan(), threads=2) as engine:
        assert np.array_equal(engine(tiny.ramp(9)), tiny.ramp(9) + 1)
        thread = engine._own._team._state.threads[0]  # type: ignore[union-attr]  # it ran
        mask = os.sched_getaffinity(thread.native_id or 0)
        assert mask == ({sorted(own)[1]} if len(own) > 1 else own)
        with engine.context(len(own) + 1) as crowded:  # there are not enough cores: not pinned
            crowded.run({"x": tiny.ramp(9)})
            assert not crowded._team._state.cores
    assert os.sched_getaffinity(0) == own


# ---- fork ---------------------------------------------------------------------------------------


def in_child(work: Callable[[], bool]) -> bool:
    """What `work` gives in a forked child; False where it hangs or dies."""
    child = os.fork()
    if not child:
        try:
            signal.alarm(20)
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork() -> None:
    """The child's engine makes new workers; parent and child do not disturb each other."""
    with Engine(tiny.chain_plan(), threads=3) as engine:
        x = tiny.ramp(40)
        engine(x)
        engine.submit({"x": x}).result(10)
        assert in_child(lambda: np.array_equal(engine(x), x + 1))
        assert in_child(lambda: np.array_equal(engine.submit({"x": x}).result(10)["y"], x + 1))
        assert in_child(lambda: engine.close() is None)
        assert np.array_equal(engine(x), x + 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_while_others_run() -> None:
    with Engine(tiny.chain_plan(), threads=2) as engine:
        stop = threading.Event()
        x = tiny.ramp(50)

        def busy() -> None:
            while not stop.is_set():
                engine(x)

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            for _ in range(5):
                assert in_child(lambda: np.array_equal(engine(x), x + 1))
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()


def _child_run(engine: Engine, results: object) -> None:
    results.put(engine(tiny.ramp(5)).tolist())  # type: ignore[attr-defined]  # a queue


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_multiprocessing() -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with Engine(tiny.chain_plan(), threads=2) as engine:
        engine(tiny.ramp(5))
        processes = [context.Process(target=_child_run, args=(engine, results)) for _ in range(2)]
        for process in processes:
            process.start()
        assert [results.get(timeout=20) for _ in processes] == [[1, 2, 3, 4, 5]] * 2
        for process in processes:
            process.join(20)
            assert process.exitcode == 0


# ---- the process ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "e = Engine(tiny.chain_plan(), threads=3); e(tiny.ramp(5))",
        "e = Engine(tiny.chain_plan(), threads=3); e(tiny.ramp(5)); raise SystemExit(0)",
        "e = Engine(tiny.chain_plan(), threads=3); e.submit({'x': tiny.ramp(5)})",
        "[Engine(tiny.chain_plan(), threads=2)(tiny.ramp(5)) for _ in range(5)]",
        """
        import threading
        e = Engine(tiny.chain_plan(), threads=2)
        def busy():
            while True:
                e(tiny.ramp(50))
        threading.Thread(target=busy, daemon=True).start()
        e(tiny.ramp(5))
        """,
        """
        e = Engine(tiny.chain_plan(), threads=2); e(tiny.ramp(5))
        import builtins; builtins.kept = e
        """,
    ],
    ids=["plain", "exit", "submitted", "many", "busy_daemon", "kept"],
)
def test_exit(code: str) -> None:
    status, _, err = finish(python(code))
    assert status == 0, err
    assert err == ""


def test_ctrl_c() -> None:
    """It arrives when the native call ends, and the process can go on or leave."""
    process = python(
        """
        import signal
        # A shell hands "ignore" down to what it starts in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        step = tiny.step("spin", [tiny.X, tiny.Y], tiny.N, params=[2_000_000])
        engine = Engine(tiny.plan([step]), threads=2)
        x = tiny.ramp(8)
        engine(x)
        print("ready", flush=True)
        caught = 0
        try:
            while True:
                engine(x)
        except KeyboardInterrupt:
            caught = 1
        assert (engine(x) == 1).all()
        print("caught", caught, flush=True)
        while True:
            engine(x)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "caught 1\n"
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status in (-signal.SIGINT, 130, 1)
    assert "KeyboardInterrupt" in err and "Fatal" not in err


def test_sigterm_while_running() -> None:
    process = python(
        """
        engine = Engine(tiny.chain_plan(), threads=2)
        engine(tiny.ramp(5))
        print("ready", flush=True)
        while True:
            engine(tiny.ramp(5))
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == -signal.SIGTERM
