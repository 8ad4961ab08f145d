"""Measures peers in lock-step rounds: one child process a peer, one of them running at a time.

Thread pools spin for a while after a run, and a spinning pool slows whoever runs next. So each peer
has its own process, which sleeps in a read between its turns, and a turn begins only when no other
child uses any CPU.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fma_peak import PeakLoop
from peer_adapters import PEERS, Arrays, Job, PeerError, Streams

PEAK = "fma_peak"  # the pseudo-peer that measures the ceiling in the same rounds
MIN_RUNS = 5  # a turn of latency
WARM_SECONDS = 0.3
SETTLE_LIMIT = 5.0  # seconds to wait for the others' pools to fall asleep
SETTLE_STEP = 0.02
QUIET = 0.05  # share of all CPU time that others may use in a quiet moment
QUIET_STEP = 0.1


class _Worker:
    """The child's side: one peer, one model; the methods are the commands."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._streams: Streams | None = None
        self._peak: PeakLoop | None = None

    def load(self, job: Job) -> float:
        """Prepares latency turns; the seconds that took."""
        begin = time.perf_counter()
        self._job = job
        if self._name == PEAK:
            self._peak = PeakLoop("int8" if job.precision == "int8" else "f32")
        else:
            self._loaded = PEERS[self._name].load(job)
            self._loaded.run(job.feeds)
        seconds = time.perf_counter() - begin
        if self._peak is None:
            self.latency(WARM_SECONDS)
        return seconds

    def outputs(self, feeds: Arrays) -> Arrays:
        return {name: value.copy() for name, value in self._loaded.run(feeds).items()}

    def latency(self, seconds: float) -> list[float]:
        """Milliseconds of each run of one turn."""
        run, feeds = self._loaded.run, self._job.feeds
        times: list[float] = []
        deadline = time.perf_counter() + seconds
        while len(times) < MIN_RUNS or time.perf_counter() < deadline:
            begin = time.perf_counter_ns()
            run(feeds)
            times.append((time.perf_counter_ns() - begin) / 1e6)
        return times

    def prepare_streams(self) -> str:
        """Tries the peer's usual setups for throughput and keeps the fastest; its label."""
        if self._name == PEAK:
            return "all cores"
        del self._loaded
        setups = PEERS[self._name].streams(self._job)
        rates = [setup.run(WARM_SECONDS) for setup in setups]
        self._streams = setups[rates.index(max(rates))]
        return self._streams.label

    def throughput(self, seconds: float) -> float:
        """Inferences a second in one turn."""
        assert self._streams is not None, "prepare_streams comes first"
        return self._streams.run(seconds)

    def peak(self, threads: int, seconds: float) -> float:
        assert self._peak is not None, "only the pseudo-peer measures the peak"
        return self._peak.gflops(threads, seconds)


def _serve(name: str, connection: Connection, log: Path) -> None:
    """Runs in the child: answers commands until the pipe closes. Chatter goes to `log`."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    worker = _Worker(name)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            command, arguments = connection.recv()
            try:
                answer = (True, getattr(worker, command)(*arguments))
            except Exception as error:  # whatever a peer raises becomes its column's entry
                lines = str(error).strip().splitlines() or [""]
                kind = "" if isinstance(error, PeerError) else f"{type(error).__name__}: "
                answer = (False, kind + lines[0])
            connection.send(answer)


@dataclass
class Child:
    """The parent's side of one peer."""

    name: str
    process: Any
    connection: Connection
    failure: str = ""  # why it takes no further part
    facts: dict[str, Any] = field(default_factory=dict)

    def ask(self, command: str, *arguments: Any) -> Any:
        """The answer, or None once the peer has failed."""
        if self.failure:
            return None
        try:
            self.connection.send((command, arguments))
            fine, answer = self.connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            fine, answer = False, "its process died"
        if not fine:
            self.failure = answer
        return answer if fine else None

    def cpu_seconds(self) -> float:
        """CPU time of all its threads; 0.0 where the system does not tell."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # a thread may end while we look
                total += int(task.read_text().split()[0])
        return total / 1e9


class CpuClock:
    """How much of the machine's CPU time others used while a child had its turn."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._child_start = child.cpu_seconds()
        self._start = self._machine()

    @staticmethod
    def _machine() -> tuple[float, float] | None:
        """Seconds of (busy, all) CPU time since the machine started."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return None
        ticks = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]  # idle and iowait
        second = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - idle) / second, sum(ticks) / second

    def others_share(self) -> float | None:
        """Share of all CPU time since the start, 0 to 1; None where the system does not tell."""
        now = self._machine()
        if now is None or self._start is None or now[1] <= self._start[1]:
            return None
        others = (now[0] - self._start[0]) - (self._child.cpu_seconds() - self._child_start)
        return max(0.0, others / (now[1] - self._start[1]))


@contextlib.contextmanager
def children(names: list[str], folder: Path) -> Iterator[list[Child]]:
    """A process for each of `names`, ended on the way out."""
    context = multiprocessing.get_context("spawn")
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    born: list[Child] = []
    try:
        for name in names:
            ours, theirs = context.Pipe()
            arguments = (name, theirs, logs / f"{name}.log")
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            born.append(Child(name, process, ours))
        yield born
    finally:
        for child in born:
            child.connection.close()
        for child in born:
            child.process.join(timeout=5)
            if child.process.is_alive():
                child.process.kill()
                child.process.join()


def settle(idle: list[Child]) -> None:
    """Waits until none of `idle` uses CPU time, so that no sleeping pool still spins."""
    if not Path("/proc/self/schedstat").exists():
        time.sleep(0.2)
        return
    deadline = time.perf_counter() + SETTLE_LIMIT
    before = [child.cpu_seconds() for child in idle]
    while time.perf_counter() < deadline:
        time.sleep(SETTLE_STEP)
        now = [child.cpu_seconds() for child in idle]
        if all(b - a < 0.0005 for a, b in zip(before, now, strict=True)):
            return
        before = now


def wait_for_quiet(child: Child, patience: float) -> None:
    """Waits, `patience` seconds at most, until processes that are not ours leave the cores free."""
    deadline = time.perf_counter() + patience
    while time.perf_counter() < deadline:
        clock = CpuClock(child)
        time.sleep(QUIET_STEP)
        if (clock.others_share() or 0.0) <= QUIET:
            return


def turns(group: list[Child], rounds: int, patience: float) -> Iterator[Child]:
    """Each child once a round, the first one changing, after the others have settled."""
    for number in range(rounds):
        first = number % len(group)
        for child in group[first:] + group[:first]:
            if child.failure:
                continue
            settle([other for other in group if other is not child])
            wait_for_quiet(child, patience)
            yield child
