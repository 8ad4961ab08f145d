"""Compiles many tactics on all cores: in processes, since LLVM compiles one at a time in each."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue

from planish.base.errors import CompileError
from planish.kernels.kernel import Config, Kernel, Source, config_text
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget, compile_object
from planish.tune.compile_worker import read_message, write_message


@dataclass(frozen=True)
class Tactic:
    """A kernel with one config."""

    kernel: Kernel
    config: Config

    @property
    def text(self) -> str:
        """As caches and people write it: "cpu.conv_f32.direct mr=6 nr=4"."""
        return f"{self.kernel.name} {config_text(self.config)}".strip()


@dataclass(frozen=True)
class Compiled:
    """A tactic's code for one workload."""

    source: Source
    object: bytes


def compile_tactic(tactic: Tactic, workload: Workload, target: CpuTarget) -> Compiled:
    """Compile in this process.

    Raises:
        CompileError: There is no code for it, or LLVM refused the code.
    """
    try:
        source = tactic.kernel.emit(workload, tactic.config, target)
        return Compiled(source, compile_object(source.text, target))
    except Exception as error:  # as the worker processes do: one tactic must not end a build
        what = f"{type(error).__name__}: {error}"
        raise CompileError(f"tactic {tactic.text} does not compile: {what}\n{workload}") from error


def compile_here(
    work: Iterable[tuple[Tactic, Workload]],
    target: CpuTarget,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Compiled | CompileError]:
    """Compile many in this process; a failure stands in the place of its result."""
    results: list[Compiled | CompileError] = []
    for tactic, workload in work:
        try:
            results.append(compile_tactic(tactic, workload, target))
        except CompileError as error:
            results.append(error)
        progress(len(results))
    return results


class CompilePool:
    """Worker processes that emit and compile. Started when first used; a context manager.

    Args:
        workers: Processes.
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="compile")
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._started: list[subprocess.Popen[bytes]] = []
        self._workers = workers
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> CompilePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; unfinished work is dropped."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # of what a dead process did not read
                        pipe.close()

    def submit(self, tactic: Tactic, workload: Workload, target: CpuTarget) -> Future[Compiled]:
        """Compile a tactic in the background."""
        return self._threads.submit(self._compile, tactic, workload, target)

    def map(
        self,
        work: Iterable[tuple[Tactic, Workload]],
        target: CpuTarget,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Compiled | CompileError]:
        """Compile many; a failure stands in the place of its result."""
        futures = [self.submit(tactic, workload, target) for tactic, workload in work]
        results: list[Compiled | CompileError] = []
        for future in futures:
            try:
                results.append(future.result())
            except CompileError as error:
                results.append(error)
            progress(len(results))
        return results

    def _compile(self, tactic: Tactic, workload: Workload, target: CpuTarget) -> Compiled:
        process = self._take()
        try:
            request = (tactic.kernel.name, workload, tactic.config, target)
            assert process.stdin is not None and process.stdout is not None
            write_message(process.stdin, pickle.dumps(request))
            message = read_message(process.stdout)
        except (BrokenPipeError, ValueError, OSError):
            message = None
        if message is None:
            raise CompileError(f"the compiler process ended on tactic {tactic.text}\n{workload}")
        self._idle.put(process)
        source, code, problem = pickle.loads(message)
        if problem:
            raise CompileError(f"tactic {tactic.text} does not compile: {problem}\n{workload}")
        return Compiled(source, code)

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if not self._idle.empty():
                return self._idle.get()
            command = [sys.executable, "-m", "planish.tune.compile_worker"]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=-1
            )
            self._started.append(process)
            return process
