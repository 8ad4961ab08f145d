"""A context: a stream of runs with its own arena, workers and tables. Contexts run side by side.

A run takes the caller's arrays, finds (or makes) the tables for their shapes, writes the arrays'
addresses into them and makes one native call. Only host steps, and sizes that they define, bring
Python between the layers.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from planish.base import knobs
from planish.base.dtypes import DType
from planish.base.errors import EngineClosedError, PlanFileError
from planish.base.shapes import Shape, symbols_of
from planish.plan.records import Plan, Ref
from planish.runtime.address import address_of
from planish.runtime.buffers import Pages, heap_array, padded
from planish.runtime.host import HostCall, Place
from planish.runtime.interface import LOOSE, Shapes, new_output
from planish.runtime.profile import Trace
from planish.runtime.schedule import Bound, Places, Segment, size_of
from planish.runtime.workers import Team

if TYPE_CHECKING:
    from planish.runtime.engine import Code

_SCRATCH_ALIGN = 4096  # so that two workers never write to one cache line, or one page


@dataclass
class _Binding:
    """What is known of a tuple of input shapes."""

    env: dict[str, int]
    whole: Bound | None  # the only segment, where there is neither host step nor heap
    outputs: tuple[tuple[int, ...], ...]  # their shapes, with `whole`


@dataclass
class _Run:
    """One run of a plan with host steps or heap buffers."""

    env: dict[str, int]
    inputs: list[np.ndarray]
    outputs: list[np.ndarray | None]
    given: list[np.ndarray | None]
    heap: dict[int, np.ndarray] = field(default_factory=dict)  # bytes, this run's sizes
    loose: dict[Place, Any] = field(default_factory=dict)  # values without memory in the plan


class Context:
    """A stream of runs. Make one with `Engine.context`. Runs of one context queue up.

    Args:
        code: The engine's linked code.
        threads: Workers, the calling thread included.
    """

    def __init__(self, code: Code, threads: int) -> None:
        plan = code.plan
        self.threads = threads
        self._code = code
        self._interface = code.interface
        self._lock = threading.Lock()
        self._closed = False
        self._ending = False  # `close` was called; what was submitted before still runs
        self._executor: ThreadPoolExecutor | None = None
        self._arena = Pages(plan.arena, "the activation arena")
        stride = padded(plan.worker_scratch, _SCRATCH_ALIGN)
        self._scratch = Pages(stride * threads, "the workers' scratch")
        self._scratches = [self._scratch.address + stride * n for n in range(threads)]
        self._parts: list[Segment | HostCall] = [
            part if isinstance(part, Segment) else HostCall(*part) for part in code.parts
        ]
        self._names = tuple(tensor.name for tensor in plan.outputs)
        self._bindings: OrderedDict[Shapes, _Binding] = OrderedDict()
        self._bounds: OrderedDict[tuple[int, ...], Bound] = OrderedDict()
        self._heap: dict[int, np.ndarray] = {}  # grown buffers, kept for the next run
        self._heap_peak = 0
        self._most_shapes = knobs.SHAPE_CACHE.value
        self._trace: Trace | None = None
        self._team = Team(code.driver, threads)
        survive_fork(self)

    # ---- the public side ------------------------------------------------------------------------

    def run(
        self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Run the plan once.

        Args:
            feeds: An array for each input, by name: NumPy's, or any object with DLPack. Dense
                row-major arrays are read in place, others are copied first.
            outputs: Buffers for some or all outputs; the others are allocated.

        Returns:
            Every output by name; where a buffer was given, an array over it.

        Raises:
            InputError: An input or a buffer is missing, unknown or of the wrong kind.
            ShapeError: A shape does not fit the plan or its profiles.
            EngineClosedError: The context is closed.
        """
        with self._lock:
            return self._run(feeds, outputs)

    def submit(
        self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
    ) -> Future[dict[str, np.ndarray]]:
        """Queue a run; it happens in a thread of the context, in the order of submission.

        The arrays must not change until the future is done. Arguments and errors are those of
        `run`; an error is raised by `Future.result`.

        Raises:
            EngineClosedError: The context is closed.
        """
        with self._lock:
            if self._ending:
                raise _closed_error()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(
                    1, "planish-context", initializer=_mark_thread, initargs=(id(self),)
                )
            return self._executor.submit(self.run, feeds, outputs)

    def close(self) -> None:
        """Finish what was submitted, let the workers leave, free the arena. Twice is harmless."""
        with self._lock:
            self._ending = True
            executor = self._executor
        if executor is not None:
            # A callback of one of its futures may close the context: a thread cannot await itself.
            executor.shutdown(wait=getattr(_THREAD, "serves", None) != id(self))
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._team.close()
            self._bindings.clear()
            self._bounds.clear()
            self._heap.clear()
            del self._arena, self._scratch

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def memory(self) -> dict[str, int]:
        """Bytes that the context holds: arena, worker scratch, heap buffers now and at the peak."""
        plan = self._code.plan
        return {
            "arena": plan.arena,
            "scratch": plan.worker_scratch * self.threads,
            "heap": sum(buffer.nbytes for buffer in list(self._heap.values())),
            "heap_peak": self._heap_peak,
        }

    @property
    def plan(self) -> Plan:
        """The plan that it runs."""
        return self._code.plan

    def traced_run(self, feeds: Mapping[str, Any]) -> Trace:
        """Run once with every step timed; see `Engine.profile`."""
        with self._lock:
            self._trace = trace = Trace(len(self.plan.steps), self.threads)
            try:
                self._run(feeds, None)
            finally:
                self._trace = None
        return trace

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- running --------------------------------------------------------------------------------

    def _run(
        self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None
    ) -> dict[str, np.ndarray]:
        if self._closed:
            raise _closed_error()
        arrays = self._interface.take(feeds)
        key = tuple([array.shape for array in arrays])
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bind(key)
        elif len(self._bindings) > 1:
            self._bindings.move_to_end(key)
        bound = binding.whole
        if bound is None:
            return self._run_parts(binding, arrays, outputs)
        if outputs:
            given = self._interface.given_outputs(outputs, arrays)
            made = [self._interface.output(n, g, binding.env) for n, g in enumerate(given)]
        else:
            made = [
                new_output(tensor, shape)
                for tensor, shape in zip(self._interface.outputs, binding.outputs, strict=True)
            ]
        slots = bound.slots
        for slot, number, offset in bound.inputs:
            slots[slot] = address_of(arrays[number]) + offset
        for slot, number, offset in bound.outputs:
            slots[slot] = address_of(made[number]) + offset
        if self._trace is None:
            self._team.run(bound.job_address)
        else:
            self._launch(bound)
        return dict(zip(self._names, made, strict=True))

    def _bind(self, key: Shapes) -> _Binding:
        env = self._interface.symbols(key)
        whole: Bound | None = None
        shapes: Shapes = ()
        only = self._parts[0] if len(self._parts) == 1 else None
        if isinstance(only, Segment) and not only.heap:
            whole = only.bind(env, self._places(env, {}))
            outputs = self._interface.outputs
            shapes = tuple(tuple([size_of(d, env) for d in t.shape]) for t in outputs)
        binding = _Binding(env, whole, shapes)
        _remember(self._bindings, key, binding, self._most_shapes)
        return binding

    def _run_parts(
        self,
        binding: _Binding,
        arrays: list[np.ndarray],
        outputs: Mapping[str, Any] | None,
    ) -> dict[str, np.ndarray]:
        given = self._interface.given_outputs(outputs, arrays)
        run = _Run(dict(binding.env), arrays, [None] * len(given), given)
        for number, tensor in enumerate(self._interface.inputs):
            if tensor.dtype in LOOSE:
                value = arrays[number]
                run.loose["input", number] = value[()] if tensor.dtype is DType.OBJECT else value
        for number, part in enumerate(self._parts):
            if isinstance(part, HostCall):
                begin = time.perf_counter_ns()
                self._run_host(part, run)
                if self._trace is not None:
                    self._trace.host(part.number, begin, time.perf_counter_ns())
            else:
                self._run_segment(number, part, run)
        made: dict[str, Any] = {
            name: run.loose.get(("output", n)) if t.dtype in LOOSE else self._output(n, run)
            for n, (name, t) in enumerate(zip(self._names, self._interface.outputs, strict=True))
        }
        loose = sum(v.nbytes for v in run.loose.values() if isinstance(v, np.ndarray))
        self._heap_peak = max(self._heap_peak, loose)
        return made

    def _run_segment(self, number: int, segment: Segment, run: _Run) -> None:
        made = {n: self._output(n, run) for n in segment.outputs}
        heap = {n: self._heap_bytes(n, run) for n in segment.heap}
        key = (number, *(run.env[name] for name in segment.symbols))
        sizes = tuple(array.nbytes for array in (*run.inputs, *made.values(), *heap.values()))
        bound = self._bounds.get((*key, *sizes))
        if bound is None:
            bound = segment.bind(run.env, self._places(run.env, heap))
            _remember(self._bounds, (*key, *sizes), bound, self._most_shapes * len(self._parts))
        else:
            self._bounds.move_to_end((*key, *sizes))
        for slot, n, offset in bound.inputs:
            bound.slots[slot] = address_of(run.inputs[n]) + offset
        for slot, n, offset in bound.outputs:
            bound.slots[slot] = address_of(made[n]) + offset
        for slot, n, offset in bound.heap:
            bound.slots[slot] = address_of(heap[n]) + offset
        self._launch(bound)

    def _launch(self, bound: Bound) -> None:
        if self._trace is not None:
            self._trace.arm(bound)
        self._team.run(bound.job_address)
        if self._trace is not None:
            self._trace.take(bound)

    def _run_host(self, call: HostCall, run: _Run) -> None:
        def memory(ref: Ref) -> np.ndarray:
            return self._bytes(ref, run)

        known = set(run.env)
        results = call.compute(run.env, memory, run.loose)
        for operand, value in results:
            if operand.shape is not None and operand.dtype is not DType.OBJECT:
                call.define(operand, value, run.env)
        if len(run.env) > len(known):
            self._interface.check_facts(run.env, known)
        for operand, value in results:
            if operand.loose:
                run.loose[operand.ref.kind, operand.ref.number] = value
            else:
                np.copyto(call.operand(operand, run.env, memory), value)

    # ---- memory ---------------------------------------------------------------------------------

    def _output(self, number: int, run: _Run) -> np.ndarray:
        array = run.outputs[number]
        if array is None:
            array = self._interface.output(number, run.given[number], run.env)
            run.outputs[number] = array
        return array

    def _heap_bytes(self, number: int, run: _Run) -> np.ndarray:
        """This run's heap buffer, made when it is first asked for."""
        if number not in run.heap:
            size = max(size_of(self._code.plan.heap[number].size, run.env), 0)
            kept = self._heap.get(number)
            if kept is None or kept.nbytes < size:
                self._heap.pop(number, None)
                self._heap[number] = heap_array(size, f"heap buffer {number}")
                total = sum(buffer.nbytes for buffer in self._heap.values())
                self._heap_peak = max(self._heap_peak, total)
            run.heap[number] = self._heap[number][:size]
        return run.heap[number]

    def _bytes(self, ref: Ref, run: _Run) -> np.ndarray:
        """The bytes from a reference to the end of its memory."""
        match ref.kind:
            case "arena":
                whole = self._arena.array
            case "weight":
                whole = flat(self._code.plan.weights[ref.number])
            case "input":
                whole = flat(run.inputs[ref.number])
            case "output":
                whole = flat(self._output(ref.number, run))
            case _:
                whole = self._heap_bytes(ref.number, run)
        offset = size_of(ref.offset, run.env)
        if not 0 <= offset <= len(whole):
            raise PlanFileError(f"offset {offset} in {ref.kind} {ref.number} of {len(whole)} bytes")
        return whole[offset:]

    def _places(self, env: Mapping[str, int], heap: Mapping[int, np.ndarray]) -> Places:
        plan = self._code.plan
        sizes = {
            "arena": [plan.arena],
            "weight": [weight.nbytes for weight in plan.weights],
            "input": [_bytes_of(tensor.shape, tensor.dtype.size, env) for tensor in plan.inputs],
            "output": [_bytes_of(tensor.shape, tensor.dtype.size, env) for tensor in plan.outputs],
            "heap": [heap[n].nbytes if n in heap else 0 for n in range(len(plan.heap))],
        }
        return Places(self._arena.address, self._code.weights, sizes, self._scratches)

    def _start_over(self) -> None:
        """In a forked child: nobody holds the lock, and the executor's thread does not exist."""
        self._lock = threading.Lock()
        self._executor = None


_THREAD = threading.local()  # `serves`: id of the context whose submitted runs a thread does


def _mark_thread(context: int) -> None:
    _THREAD.serves = context


def _closed_error() -> EngineClosedError:
    return EngineClosedError("this context is closed", hint="make one with engine.context()")


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _remember(cache: OrderedDict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Keep a value, and drop the one that was not used for longest."""
    cache[key] = value
    if len(cache) > most:
        cache.popitem(last=False)


def flat(array: np.ndarray) -> np.ndarray:
    """The bytes of a dense array."""
    return array.reshape(-1).view(np.uint8)


def _bytes_of(shape: Shape, element: int, env: Mapping[str, int]) -> int:
    """Bytes of a tensor; 0 while its sizes are not known, so that nothing may point into it."""
    if any(name not in env for dim in shape for name in symbols_of(dim)):
        return 0
    return element * math.prod(size_of(dim, env) for dim in shape)


class _Forkable(Protocol):
    def _start_over(self) -> None: ...


_FORKABLE: weakref.WeakSet[Any] = weakref.WeakSet()


def survive_fork(thing: _Forkable) -> None:
    """Have `thing._start_over()` called in every forked child."""
    _FORKABLE.add(thing)


def _start_all_over() -> None:
    for thing in list(_FORKABLE):
        thing._start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_all_over)
