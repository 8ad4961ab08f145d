"""An engine: a plan that is linked and ready to run. Threads may share it.

    engine = load("model.plan")
    result = engine.run({"data": image})["prob"]

`Engine.run` uses one context of the engine's own, and calls from several threads queue up. For runs
side by side make a context for each stream.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from itertools import groupby
from typing import Any

import numpy as np

from planish.base import knobs
from planish.base.errors import EngineClosedError, PlanishError
from planish.plan.check import check_plan
from planish.plan.read import read_plan
from planish.plan.records import HostStep, NativeStep, Plan, Profile, TensorInfo
from planish.runtime.buffers import heap_array
from planish.runtime.context import Context, survive_fork
from planish.runtime.interface import Interface
from planish.runtime.profile import ProfileReport, profile_runs
from planish.runtime.schedule import Segment
from planish.runtime.workers import Driver
from planish.targets.cpu import usable_cores
from planish.targets.link import LinkedCode
from planish.targets.requirements import check_host

_MOST_THREADS = 1024
_WEIGHT_ALIGN = 64


class Code:
    """A plan's code and constants in this process; what the contexts of an engine share.

    Args:
        plan: The plan; it must not change any more.

    Raises:
        PlanFileError: The plan breaks a rule, is for another CPU, or its code does not link.
    """

    def __init__(self, plan: Plan) -> None:
        check_plan(plan, plan.name)
        check_host(plan.target, plan.name)
        self.plan = plan
        self.interface = Interface(plan)
        self.linked = LinkedCode(plan.objects)
        self.driver = Driver(self.linked)
        self.parts: list[Segment | tuple[int, HostStep]] = []
        numbered = enumerate(plan.steps)
        for native, members in groupby(numbered, key=lambda pair: isinstance(pair[1], NativeStep)):
            run = list(members)
            if native:
                steps = [(n, step) for n, step in run if isinstance(step, NativeStep)]
                self.parts.append(Segment(steps, self.linked.address))
            else:
                self.parts += [(n, step) for n, step in run if isinstance(step, HostStep)]
        self._constants = [_aligned(weight) for weight in plan.weights]
        self.weights = [int(weight.ctypes.data) for weight in self._constants]


def _aligned(weight: np.ndarray) -> np.ndarray:
    """The same values, dense and at a cache line; weights from a file are so already."""
    if weight.flags.c_contiguous and weight.ctypes.data % _WEIGHT_ALIGN == 0:
        return weight
    raw = heap_array(weight.nbytes, "a weight")
    copy = np.ndarray(weight.shape, weight.dtype, raw.data)
    copy[...] = weight
    return copy


class Engine:
    """A loaded plan.

    Args:
        plan: From `read_plan` or a build.
        threads: Workers of the engine's own context and the default of others; 0: as many as the
            plan was tuned for, at most the cores that the process may use.

    Raises:
        PlanFileError: The plan cannot run here.
    """

    def __init__(self, plan: Plan, *, threads: int = 0) -> None:
        self.threads = _threads(threads, plan)
        self._code: Code | None = Code(plan)
        self._plan = plan
        self._lock = threading.Lock()
        self._own: Context | None = None
        self._contexts: weakref.WeakSet[Context] = weakref.WeakSet()
        survive_fork(self)

    # ---- what it is -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The model's name."""
        return self._plan.name

    @property
    def plan(self) -> Plan:
        """The plan: steps, reasons, provenance. Read it, do not change it."""
        return self._plan

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each input."""
        return self._plan.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each output."""
        return self._plan.outputs

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """Ranges of the symbolic dims; () when all shapes are fixed."""
        return self._plan.profiles

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.threads} threads"
        return f"<planish.Engine {self.name!r}, {len(self._plan.steps)} steps, {state}>"

    # ---- running --------------------------------------------------------------------------------

    def run(
        self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Run the plan once, in the engine's own context; see `Context.run`."""
        return (self._own or self._open()).run(feeds, outputs)

    def __call__(self, *inputs: Any) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run on inputs in the plan's order; gives the output, or a tuple of several."""
        context = self._own or self._open()
        made = tuple(context.run(self._live().interface.positional(inputs)).values())
        return made[0] if len(made) == 1 else made

    def submit(
        self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
    ) -> Future[dict[str, np.ndarray]]:
        """Queue a run in the engine's own context; see `Context.submit`."""
        return (self._own or self._open()).submit(feeds, outputs)

    def context(self, threads: int = 0) -> Context:
        """A new stream with its own arena and workers; it runs beside the others.

        Args:
            threads: Workers, the calling thread included; 0: the engine's number. Several streams
                give the best throughput when their workers together are as many as the cores.

        Raises:
            PlanishError: There is no memory, or an illegal number of threads.
            EngineClosedError: The engine is closed.
        """
        code = self._live()
        made = Context(code, _threads(threads, self._plan) if threads else self.threads)
        with self._lock:
            if self._code is None:
                made.close()
            self._contexts.add(made)
        self._live()
        return made

    def profile(self, feeds: Mapping[str, Any], runs: int = 20) -> ProfileReport:
        """Time each step.

        Args:
            feeds: Inputs, as for `run`.
            runs: Timed runs; two more go before them.

        Raises:
            EngineClosedError: The engine is closed.
        """
        return profile_runs(self._own or self._open(), feeds, runs)

    def memory(self) -> dict[str, int]:
        """Bytes of the weights and, over all open contexts, of arenas, scratch and heap."""
        total = {"weights": sum(weight.nbytes for weight in self._plan.weights)}
        total["code"] = sum(len(data) for data in self._plan.objects)
        for name in ("arena", "scratch", "heap", "heap_peak"):
            total[name] = 0
        with self._lock:
            contexts = [context for context in self._contexts if not context.closed]
        for context in contexts:
            for name, size in context.memory().items():
                total[name] += size
        return total

    # ---- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every context, waiting for their runs. Twice is harmless."""
        with self._lock:
            contexts = list(self._contexts)
            self._code = None
            self._own = None
        for context in contexts:
            context.close()

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._code is None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _live(self) -> Code:
        code = self._code
        if code is None:
            raise EngineClosedError(
                f"the engine of {self.name!r} is closed", hint="load the plan again"
            )
        return code

    def _open(self) -> Context:
        """The engine's own context, made at its first use."""
        code = self._live()
        with self._lock:
            if self._own is None and self._code is not None:
                self._own = Context(code, self.threads)
                self._contexts.add(self._own)
            own = self._own
        if own is None:
            self._live()
            raise EngineClosedError(f"the engine of {self.name!r} is closed")
        return own

    def _start_over(self) -> None:
        """In a forked child: nobody holds the lock."""
        self._lock = threading.Lock()


def load(path: str | os.PathLike[str], *, threads: int = 0) -> Engine:
    """Read a plan file and make it ready to run. No compiler runs.

    A plan holds machine code: load only plans that you would run as a program.

    Args:
        path: A file that `Plan.save` wrote.
        threads: As for `Engine`.

    Raises:
        PlanFileError: The file is no plan, damaged, of a newer format, or for another CPU.
    """
    return Engine(read_plan(path), threads=threads)


def _threads(asked: int, plan: Plan) -> int:
    if isinstance(asked, bool) or not isinstance(asked, int) or not 0 <= asked <= _MOST_THREADS:
        raise PlanishError(
            f"threads: expected an integer from 0 to {_MOST_THREADS}, found {asked!r}"
        )
    return asked or knobs.THREADS.value or max(1, min(plan.threads, usable_cores()))
