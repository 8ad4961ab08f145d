"""A team of workers: threads parked inside native code that run jobs together.

Worker 0 is whoever calls `Team.run`; the others start with the first job and stay until `close`.
They hold no Python object but the team's shared state, so a team that nobody uses any more is
collected, and its threads leave. The same happens when the interpreter exits. In a forked child
the team starts over with new threads at its first job.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import weakref
from dataclasses import dataclass, field

from planish.base import knobs
from planish.base.errors import PlanishError
from planish.runtime.buffers import Pages
from planish.targets import driver
from planish.targets.cpu import usable_cores
from planish.targets.link import LinkedCode

_JOIN_SECONDS = 10.0


class Driver:
    """The driver's functions, found in a plan's object code.

    Raises:
        PlanFileError: The plan carries no driver of this version.
    """

    def __init__(self, linked: LinkedCode) -> None:
        self.linked = linked
        two_pointers = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
        self.run = two_pointers(linked.address(driver.RUN))
        self.work = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(
            linked.address(driver.WORK)
        )
        self.stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(linked.address(driver.STOP))


@dataclass
class _State:
    """What threads and finalizer share."""

    driver: Driver
    workers: int
    control: Pages
    threads: list[threading.Thread] = field(default_factory=list)
    cores: tuple[int, ...] = ()  # worker n is pinned to cores[n - 1]

    def set(self, name: str, value: int) -> None:
        """Write a field of the control block."""
        width = ctypes.c_int64 if name.endswith("_ns") else ctypes.c_int32
        width.from_address(self.control.address + driver.CONTROL[name]).value = value


class Team:
    """Workers that share each job. One job at a time: the owner holds a lock around `run`.

    Args:
        functions: The plan's driver.
        workers: How many, the calling thread included.
    """

    def __init__(self, functions: Driver, workers: int) -> None:
        self.workers = workers
        self._state = _fresh_state(functions, workers)
        self._control = self._state.control.address
        self._native_run = functions.run
        self._started = workers == 1
        self._finalizer = weakref.finalize(self, _stop, self._state)
        with _LOCK:
            _TEAMS.add(self)
            _share_cores()

    def run(self, job: int) -> None:
        """Run one job to its end.

        Args:
            job: Address of `workers` job records.
        """
        if not self._started:
            self._start()
        self._native_run(self._control, job)

    def close(self) -> None:
        """Let the threads leave, and wait for them."""
        self._finalizer()
        with _LOCK:
            _TEAMS.discard(self)
            _share_cores()

    def _start(self) -> None:
        state = self._state
        if knobs.PIN.value:
            with _LOCK:
                state.cores = _free_cores(self.workers - 1)
        try:
            for worker in range(1, self.workers):
                thread = threading.Thread(
                    target=_live,
                    args=(state, worker),
                    name=f"planish-worker-{worker}",
                    daemon=True,
                )
                thread.start()
                state.threads.append(thread)
        except RuntimeError as error:
            _stop(state)
            self._start_over()
            raise PlanishError(
                f"the system refused a thread, {self.workers - 1} are needed: {error}",
                hint="use fewer threads, or raise the limit (ulimit -u, cgroup pids.max)",
            ) from error
        except BaseException:
            _stop(state)
            self._start_over()
            raise
        self._started = True

    def _start_over(self) -> None:
        """A fresh control block and no threads, as after the constructor."""
        self._finalizer.detach()
        self._state = _fresh_state(self._state.driver, self.workers)
        self._control = self._state.control.address
        self._started = self.workers == 1
        self._finalizer = weakref.finalize(self, _stop, self._state)


def _fresh_state(functions: Driver, workers: int) -> _State:
    state = _State(functions, workers, Pages(driver.CONTROL_BYTES, "a control block"))
    state.set("workers", workers)
    state.set("spin_ns", knobs.SPIN_US.value * 1000)
    state.set("yield_ns", knobs.YIELD_US.value * 1000)
    return state


def _live(state: _State, worker: int) -> None:
    """The life of a worker thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if state.cores:
        with contextlib.suppress(OSError):  # the mask shrank since; unpinned works as well
            os.sched_setaffinity(0, {state.cores[worker - 1]})
    state.driver.work(state.control.address, worker)


def _stop(state: _State) -> None:
    """Let all threads of a team leave. No job may start after this."""
    if not state.threads:
        return
    state.driver.stop(state.control.address)
    for thread in state.threads:
        thread.join(_JOIN_SECONDS)
    if any(thread.is_alive() for thread in state.threads):
        # A job still runs (a thread of the caller's that the exiting interpreter abandoned): the
        # memory that its workers look at must outlive them.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(state))
    state.threads.clear()


# ---- all teams of the process -------------------------------------------------------------------

_TEAMS: weakref.WeakSet[Team] = weakref.WeakSet()
_LOCK = threading.Lock()  # around every look at it


def _share_cores() -> None:
    """Spinning helps only while every worker of the process has a core to itself."""
    teams = list(_TEAMS)
    crowded = sum(team.workers for team in teams) > usable_cores()
    for team in teams:
        team._state.set("spin_ns", 0 if crowded else knobs.SPIN_US.value * 1000)


def _free_cores(count: int) -> tuple[int, ...]:
    """Cores that no other team has; () when there are not enough, so that nothing is pinned.

    The first core is left to the calling thread.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    taken = {core for team in _TEAMS for core in team._state.cores}
    free = [core for core in sorted(os.sched_getaffinity(0))[1:] if core not in taken]
    return tuple(free[:count]) if len(free) >= count else ()


def _forget_threads() -> None:
    """In a forked child: the threads of the parent do not exist here."""
    global _LOCK
    _LOCK = threading.Lock()  # the old one may have been held when the process forked
    for team in list(_TEAMS):
        team._state.threads.clear()
        team._start_over()
    _share_cores()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
