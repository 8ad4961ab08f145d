"""The native driver by itself: other machines' code, barriers under load, teams of raw threads."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from planish.base.errors import PlanFileError
from planish.targets import driver
from planish.targets.cpu import compile_object, host_target
from planish.targets.driver import CONTROL, driver_object, driver_text
from planish.targets.ir import Module
from planish.targets.link import LinkedCode
from planish.targets.requirements import check_host, requirements

TARGET = host_target(threads=1)


def count_kernel() -> bytes:
    """count(args, begin, end, scratch): adds 1 to begin's own cell, then copies a neighbour's."""
    module = Module()
    params = [("ptr", "args"), ("i64", "begin"), ("i64", "end"), ("ptr", "scratch")]
    f = module.function("bump", params)
    cells = f.load("ptr", f.params["args"])
    cell = f.offset(cells, f.mul(f.params["begin"], 8))
    f.store(f.add(f.load("i64", cell), 1), cell)
    f.ret()
    # bump_each(args: cells): one more in each unit's cell
    f = module.function("bump_each", params)
    cells = f.load("ptr", f.params["args"])
    with f.loop(f.params["begin"], f.params["end"]) as unit:
        cell = f.offset(cells, f.mul(unit.index, 8))
        f.store(f.add(f.load("i64", cell), 1), cell)
    f.ret()
    # check(args: cells, errors; begin = own number, end = neighbour): both must be equal now
    f = module.function("check", params)
    args = f.params["args"]
    cells, errors = f.load("ptr", args), f.load("ptr", f.offset(args, 8))
    own = f.load("i64", f.offset(cells, f.mul(f.params["begin"], 8)))
    other = f.load("i64", f.offset(cells, f.mul(f.params["end"], 8)))
    with f.when(f.icmp("ne", own, other)):
        f.line(f"atomicrmw add ptr {errors.ref}, i64 1 monotonic")
    f.ret()
    return compile_object(module.text(), TARGET)


class RawTeam:
    """A team without the runtime around it."""

    def __init__(self, workers: int, spin_ns: int, yield_ns: int) -> None:
        self.linked = LinkedCode([driver_object(TARGET), count_kernel()])
        self.control = np.zeros(driver.CONTROL_BYTES + 64, np.uint8)
        self.base = self.control.ctypes.data + -self.control.ctypes.data % 64
        for name, value in (("workers", workers), ("spin_ns", spin_ns), ("yield_ns", yield_ns)):
            width = ctypes.c_int32 if name == "workers" else ctypes.c_int64
            width.from_address(self.base + CONTROL[name]).value = value
        two = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
        work = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(
            self.linked.address(driver.WORK)
        )
        self.run = two(self.linked.address(driver.RUN))
        self.stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.linked.address(driver.STOP))
        self.threads = [
            threading.Thread(target=work, args=(self.base, n), daemon=True)
            for n in range(1, workers)
        ]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        self.stop(self.base)
        for thread in self.threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self.threads)


def tables(rows: Sequence[Sequence[tuple[int, ...]]]) -> tuple[np.ndarray, list[np.ndarray]]:
    made = [np.array(row, np.int64) for row in rows]
    job = np.zeros((len(made), driver.JOB_BYTES // 8), np.int64)
    for worker, table in enumerate(made):
        job[worker, :2] = table.ctypes.data, len(table)
    return job, made


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize(("spin_ns", "yield_ns"), [(100_000, 2_000_000), (0, 100_000), (0, 0)])
def test_barriers_hold(workers: int, spin_ns: int, yield_ns: int) -> None:
    """Each worker bumps its cell and, behind a barrier, compares it with its neighbour's."""
    rounds, jobs = 30, 20
    team = RawTeam(workers, spin_ns, yield_ns)
    cells, errors = np.zeros(workers, np.int64), np.zeros(1, np.int64)
    args = np.array([cells.ctypes.data, errors.ctypes.data], np.int64)
    bump, check = (team.linked.address(name) for name in ("bump", "check"))
    meet = driver.BARRIER if workers > 1 else 0
    rows = [
        [
            (bump, args.ctypes.data, w, w + 1, meet),
            (check, args.ctypes.data, w, (w + 1) % workers, meet),
        ]
        * rounds
        for w in range(workers)
    ]
    job, keep = tables(rows)
    for _ in range(jobs):
        team.run(team.base, job.ctypes.data)
    team.close()
    assert errors[0] == 0
    assert (cells == rounds * jobs).all()
    assert len(keep) == workers


def test_stamps() -> None:
    team = RawTeam(1, 0, 0)
    cells, stamps = np.zeros(1, np.int64), np.zeros((3, 2), np.int64)
    args = np.array([cells.ctypes.data, 0], np.int64)
    bump = team.linked.address("bump")
    job, _keep = tables([[(bump, args.ctypes.data, 0, 1, 0)] * 3])
    job[0, 3] = stamps.ctypes.data
    team.run(team.base, job.ctypes.data)
    team.close()
    times = stamps.reshape(-1)
    assert times[0] > 0 and (np.diff(times) >= 0).all()


def test_code_is_the_same_each_time() -> None:
    assert driver_text(TARGET) == driver_text(TARGET)
    assert driver_object(TARGET) == compile_object(driver_text(TARGET), TARGET)


@pytest.mark.parametrize(
    ("triple", "has", "lacks"),
    [
        ("x86_64-unknown-linux-gnu", "i64 202", "usleep"),
        ("aarch64-unknown-linux-gnu", "i64 98", "usleep"),
        ("arm64-apple-darwin23.0.0", "usleep", "@syscall"),
        ("x86_64-apple-macosx13.0", "usleep", "@syscall"),
        ("riscv64-unknown-linux-gnu", "usleep", "@syscall"),
    ],
)
def test_other_machines(triple: str, has: str, lacks: str) -> None:
    text = driver_text(replace(TARGET, triple=triple))
    assert has in text
    assert lacks not in text


# ---- requirements -------------------------------------------------------------------------------


def test_this_machine_runs_its_own_code() -> None:
    for isa in ("", "avx2", "generic"):
        try:
            target = host_target(isa)
        except Exception:  # this CPU has no such level
            continue
        check_host(requirements(target), "m")


def test_what_is_missing_is_told() -> None:
    own = requirements(TARGET)
    with pytest.raises(PlanFileError, match=r"m.plan: the plan is for .* this CPU lacks aaa, bbb"):
        check_host({**own, "needs": ["bbb", "aaa"]}, "m.plan")
    with pytest.raises(PlanFileError, match="the plan is for vax on Linux; this is"):
        check_host({**own, "machine": "vax", "system": "Linux"}, "m.plan")
    for broken in ({}, {**own, "needs": 3}, {**own, "needs": [3]}, {**own, "isa": None}):
        with pytest.raises(PlanFileError, match="does not say which CPU"):
            check_host(broken, "m.plan")


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("units", [5, 64, 1000])
def test_shared_units_are_done_once(workers: int, units: int) -> None:
    """Pieces of everybody's part, whoever takes them; the counts start anew with each job."""
    team = RawTeam(workers, 100_000, 2_000_000)
    cells = np.zeros(units, np.int64)
    args = np.array([cells.ctypes.data, 0], np.int64)
    cuts = [w * units // workers for w in range(workers + 1)]
    share = np.zeros((workers, driver.SHARE_BYTES // 8), np.int64)
    places = [share.ctypes.data + w * driver.SHARE_BYTES for w in range(workers)]
    for w in range(workers):
        share[w, :5] = 0, cuts[w], cuts[w + 1], 3, places[(w + 1) % workers]
    each = team.linked.address("bump_each")
    rows = [
        [(each, args.ctypes.data, places[w], 0, flag) for flag in (driver.OWN, driver.OTHERS)]
        for w in range(workers)
    ]
    job, _keep = tables(rows)
    job[0, 4:6] = share.ctypes.data, workers
    for _ in range(50):
        share[:, 0] = 0 if workers == 1 else share[:, 0]
        team.run(team.base, job.ctypes.data)
    team.close()
    assert (cells == 50).all()
