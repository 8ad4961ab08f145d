"""From steps to the driver's tables: who calls what on which units, between which barriers.

Steps of one group run between two barriers. Their phases are lined up in *rounds*: a step's first
phase is in the group's round 0, and each further phase with a barrier is one round later. A round's
items are dealt out together by weight. A phase without a barrier follows the one before it on the
same worker and the same units when both have as many, so unit u may read what unit u wrote.

A `Segment` is what can be known of a run of native steps once; binding it to the symbols' values
gives the tables. Pointers to inputs, outputs and heap buffers change with each run and are patched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np

from planish.base.errors import PlanFileError
from planish.base.shapes import Dim, evaluate, symbols_of
from planish.plan.records import NativeStep, PhaseCall, Ref
from planish.runtime.deal import deal
from planish.targets.driver import BARRIER, JOB_BYTES

_JOB = JOB_BYTES // 8  # in i64
_Row = tuple[int, int, int, int, int]  # an entry of the driver's table
_NOTHING: _Row = (0, 0, 0, 0, 0)
_FIXED = ("arena", "weight")  # addresses that stay the same for the life of a context


@dataclass(frozen=True)
class Item:
    """Functions that a worker runs one after another on its share of the units."""

    step: int  # number in the plan
    functions: tuple[int, ...]  # addresses
    slot: int  # the step's first slot of arguments
    units: Dim
    weight: float  # of one unit


@dataclass(frozen=True)
class Round:
    """Items between two barriers; `barrier` tells whether one comes first."""

    barrier: bool
    items: tuple[Item, ...]


class Patch(NamedTuple):
    """A slot that takes a pointer of this run: input, output or heap buffer `number` + offset."""

    slot: int
    number: int
    offset: int


@dataclass
class Bound:
    """A segment with all sizes known, for one context.

    Attributes:
        job: Job records of all workers.
        slots: Arguments of all steps; the patches are written here before each run.
        tables: A table for each worker.
        steps: For each worker the step of each table entry; -1: a mere barrier.
        inputs, outputs, heap: Slots to patch.
        job_address: Where `job` is.
    """

    job: np.ndarray
    slots: memoryview
    tables: list[np.ndarray]
    steps: list[list[int]]
    inputs: list[Patch] = field(default_factory=list)
    outputs: list[Patch] = field(default_factory=list)
    heap: list[Patch] = field(default_factory=list)
    job_address: int = 0


@dataclass(frozen=True)
class Places:
    """What a context's memory is: addresses and sizes in bytes, by kind and number.

    Sizes of inputs, outputs and heap buffers are those of this binding.
    """

    arena: int
    weights: Sequence[int]
    sizes: Mapping[str, Sequence[int]]
    scratch: Sequence[int]  # private scratch of each worker


class Segment:
    """A run of native steps between two host steps.

    Args:
        steps: (number in the plan, step).
        address: Gives a function's address.
    """

    def __init__(
        self, steps: Sequence[tuple[int, NativeStep]], address: Callable[[str], int]
    ) -> None:
        self.steps = tuple(steps)
        self.slots: list[tuple[Ref | Dim | None, int]] = []  # (what, number of the step)
        first: dict[int, int] = {}
        for number, step in steps:
            first[number] = len(self.slots)
            self.slots += [(what, number) for what in (*step.args, *step.params)]
        self.rounds = _rounds(self.steps, first, address)
        refs = [what for what, _ in self.slots if isinstance(what, Ref)]
        dims = [d for r in refs for d in (r.offset, 0 if r.span is None else r.span)]
        dims += [what for what, _ in self.slots if what is not None and not isinstance(what, Ref)]
        dims += [item.units for round_ in self.rounds for item in round_.items]
        self.symbols = tuple(sorted({name for dim in set(dims) for name in symbols_of(dim)}))
        self.outputs = _numbers(refs, "output")
        self.heap = _numbers(refs, "heap")

    def bind(self, env: Mapping[str, int], places: Places) -> Bound:
        """Tables for these sizes.

        Args:
            env: Values of (at least) `symbols`.
            places: The context's memory.

        Raises:
            PlanFileError: A reference leaves its memory, or a size is negative.
        """
        sizes = _Sizes(env)
        slots = np.zeros(max(len(self.slots), 1), np.int64)
        patches: dict[str, list[Patch]] = {"input": [], "output": [], "heap": []}
        for slot, (what, number) in enumerate(self.slots):
            if isinstance(what, Ref):
                offset = self._offset(what, number, sizes, places)
                if what.kind in _FIXED:
                    base = places.arena if what.kind == "arena" else places.weights[what.number]
                    slots[slot] = base + offset
                else:
                    patches[what.kind].append(Patch(slot, what.number, offset))
            elif what is not None:
                slots[slot] = sizes.value(what)
        tables, steps = self._tables(sizes, int(slots.ctypes.data), len(places.scratch))
        job = np.zeros((len(tables), _JOB), np.int64)
        for worker, table in enumerate(tables):
            job[worker, :3] = table.ctypes.data, len(steps[worker]), places.scratch[worker]
        return Bound(
            job=job,
            slots=slots.data,
            tables=tables,
            steps=steps,
            inputs=patches["input"],
            outputs=patches["output"],
            heap=patches["heap"],
            job_address=int(job.ctypes.data),
        )

    def _offset(self, ref: Ref, number: int, sizes: _Sizes, places: Places) -> int:
        offset, span = sizes.value(ref.offset), sizes.value(0 if ref.span is None else ref.span)
        limit = places.sizes[ref.kind][ref.number]
        if offset < 0 or span < 0 or offset + span > limit:
            name = next(step.name for n, step in self.steps if n == number)
            raise PlanFileError(
                f"step {name!r} reaches bytes {offset} to {offset + span} of {ref.kind} "
                f"{ref.number}, which has {limit}, where {sizes}",
                hint="build the plan again from its model",
            )
        return offset

    def _tables(
        self, sizes: _Sizes, slots: int, workers: int
    ) -> tuple[list[np.ndarray], list[list[int]]]:
        rows: list[list[_Row]] = [[] for _ in range(workers)]
        steps: list[list[int]] = [[] for _ in range(workers)]
        worked: set[int] = set()  # workers with work since the last barrier
        due = False  # a barrier was asked for since then
        for round_ in self.rounds:
            due |= round_.barrier
            cuts = deal([(self._units(i, sizes), i.weight) for i in round_.items], workers)
            busy = {w for cut in cuts for w in range(workers) if cut[w] < cut[w + 1]}
            # What one worker wrote and the same one reads needs no barrier. It stays due, though:
            # a later round without one may count on it.
            if due and worked and busy and len(worked | busy) > 1:
                for row, step in zip(rows, steps, strict=True):
                    row.append((0, 0, 0, 0, BARRIER))
                    step.append(-1)
                worked = set()
            due = due and bool(worked)
            worked |= busy
            for item, cut in zip(round_.items, cuts, strict=True):
                args = slots + 8 * item.slot
                for w in range(workers):
                    if cut[w] < cut[w + 1]:
                        rows[w] += [(f, args, cut[w], cut[w + 1], 0) for f in item.functions]
                        steps[w] += [item.step] * len(item.functions)
        return [np.array(row or [_NOTHING], np.int64) for row in rows], steps

    def _units(self, item: Item, sizes: _Sizes) -> int:
        units = sizes.value(item.units)
        if units < 0:
            name = next(step.name for n, step in self.steps if n == item.step)
            raise PlanFileError(f"step {name!r} has {units} units of work, where {sizes}")
        return units


class _Sizes:
    """Evaluates sizes, each once."""

    def __init__(self, env: Mapping[str, int]) -> None:
        self._env = env
        self._known: dict[Dim, int] = {}

    def value(self, dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        if dim not in self._known:
            self._known[dim] = size_of(dim, self._env)
        return self._known[dim]

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value}" for name, value in sorted(self._env.items()))


def size_of(dim: Dim, env: Mapping[str, int]) -> int:
    """The value of a size of a plan.

    Raises:
        PlanFileError: It divides by zero or is beyond 64 bits.
    """
    try:
        value = evaluate(dim, env)
    except ZeroDivisionError:
        raise PlanFileError(f"the size {dim} divides by zero, where {dict(env)}") from None
    if not -(2**62) < value < 2**62:
        raise PlanFileError(f"the size {dim} is {value}, where {dict(env)}")
    return value


def _numbers(refs: Iterable[Ref], kind: str) -> tuple[int, ...]:
    return tuple(sorted({ref.number for ref in refs if ref.kind == kind}))


def _rounds(
    steps: Sequence[tuple[int, NativeStep]],
    first_slot: Mapping[int, int],
    address: Callable[[str], int],
) -> tuple[Round, ...]:
    rounds: list[Round] = []
    for _, members in groupby(steps, key=lambda pair: pair[1].group):
        group = list(members)
        lined: list[list[Item]] = []
        for number, step in group:
            for late, phases in enumerate(_by_barrier(step.phases)):
                if late == len(lined):
                    lined.append([])
                for functions, units in _chains(phases):
                    found = tuple(address(symbol) for symbol in functions)
                    lined[late].append(Item(number, found, first_slot[number], units, step.weight))
        barrier = any(step.phases[0].barrier for _, step in group)
        rounds += [Round(barrier or late > 0, tuple(items)) for late, items in enumerate(lined)]
    return tuple(rounds)


def _by_barrier(phases: Sequence[PhaseCall]) -> list[list[PhaseCall]]:
    """Phases of a step, a list for each round."""
    made: list[list[PhaseCall]] = []
    for phase in phases:
        if not made or phase.barrier:
            made.append([])
        made[-1].append(phase)
    return made


def _chains(phases: Sequence[PhaseCall]) -> list[tuple[list[str], Dim]]:
    """Phases of one round; those in a row with as many units share each worker's units."""
    made: list[tuple[list[str], Dim]] = []
    for phase in phases:
        if made and made[-1][1] == phase.units:
            made[-1][0].append(phase.symbol)
        else:
            made.append(([phase.symbol], phase.units))
    return made
