"""From steps to the driver's tables: who calls what on which units, between which barriers.

Steps of one group run between two barriers. Their phases are lined up in *rounds*: a step's first
phase is in the group's round 0, and each further phase with a barrier is one round later. A round's
items are dealt out together by weight. A phase without a barrier follows the one before it on the
same worker and the same units when both have as many, so unit u may read what unit u wrote.

The units of a long step that stands between two barriers are shared out in pieces, see the driver:
each worker does its own part, then helps the others.

A `Segment` is what can be known of a run of native steps once; binding it to the symbols' values
gives the tables. Pointers to inputs, outputs and heap buffers change with each run and are patched.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np

from planish.base.errors import PlanFileError
from planish.base.shapes import Dim, evaluate, symbols_of
from planish.plan.records import NativeStep, PhaseCall
from planish.runtime.deal import deal
from planish.targets.driver import BARRIER, JOB_BYTES, OTHERS, OWN, SHARE_BYTES

_JOB, _SHARE = JOB_BYTES // 8, SHARE_BYTES // 8  # in i64
_PIECES = 8  # of each worker's part of a shared step
_LONG = 20.0  # microseconds from which a step is worth sharing: some ten pieces of 100 ns a taking
_FLOPS_PER_US, _BYTES_PER_US = 1e5, 1e4  # of one worker, roughly, where a step was not timed
_Row = tuple[int, int, int, int, int]  # an entry of the driver's table
_NOTHING: _Row = (0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Item:
    """Functions that a worker runs one after another on its share of the units."""

    step: int  # number in the plan
    functions: tuple[int, ...]  # addresses
    slot: int  # the step's first slot of arguments
    units: int  # number of the size
    weight: float  # of one unit
    long: bool  # worth sharing in pieces


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


class _Pointer(NamedTuple):
    """A slot that takes an address."""

    slot: int
    kind: str
    number: int
    offset: int  # number of the size
    span: int  # number of the size
    step: int  # number in the plan


@dataclass
class Bound:
    """A segment with all sizes known, for one context.

    Attributes:
        job: Job records of all workers.
        slots: Arguments of all steps; the patches are written here before each run.
        tables: A table for each worker.
        shares: Share records, on lines of their own.
        steps: For each worker the step of each table entry; -1: a mere barrier.
        inputs, outputs, heap: Slots to patch.
        job_address: Where `job` is.
    """

    job: np.ndarray
    slots: memoryview
    tables: list[np.ndarray]
    shares: np.ndarray
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
        self._names = {number: step.name for number, step in steps}
        self._sizes = _Sizes()
        self._pointers: list[_Pointer] = []
        self._params: list[tuple[int, int]] = []  # (slot, number of its size)
        self._count = 0  # slots
        first: dict[int, int] = {}
        for number, step in steps:
            first[number] = self._count
            self._add_slots(number, step)
        self._rounds = _rounds(steps, first, self._sizes, address)
        self.symbols = self._sizes.symbols()
        self.outputs = self._used("output")
        self.heap = self._used("heap")

    def _add_slots(self, number: int, step: NativeStep) -> None:
        for slot, ref in enumerate(step.args, self._count):
            if ref is not None:
                span = 0 if ref.span is None else ref.span
                place = self._sizes.add(ref.offset), self._sizes.add(span)
                self._pointers.append(_Pointer(slot, ref.kind, ref.number, *place, number))
        self._count += len(step.args)
        self._params += [
            (slot, self._sizes.add(d)) for slot, d in enumerate(step.params, self._count)
        ]
        self._count += len(step.params)

    def _used(self, kind: str) -> tuple[int, ...]:
        return tuple(sorted({at.number for at in self._pointers if at.kind == kind}))

    def bind(self, env: Mapping[str, int], places: Places) -> Bound:
        """Tables for these sizes.

        Args:
            env: Values of (at least) `symbols`.
            places: The context's memory.

        Raises:
            PlanFileError: A reference leaves its memory, or a size is negative.
        """
        sizes = self._sizes.values(env)
        slots = np.zeros(max(self._count, 1), np.int64)
        values = slots.data
        for slot, size in self._params:
            values[slot] = sizes[size]
        patches: dict[str, list[Patch]] = {"input": [], "output": [], "heap": []}
        fixed = {"arena": [places.arena], "weight": places.weights}
        for at in self._pointers:
            offset, span = sizes[at.offset], sizes[at.span]
            if offset < 0 or span < 0 or offset + span > places.sizes[at.kind][at.number]:
                raise self._outside(at, offset, span, env, places)
            if at.kind in fixed:
                values[at.slot] = fixed[at.kind][at.number] + offset
            else:
                patches[at.kind].append(Patch(at.slot, at.number, offset))
        tables, steps, shares = self._tables(sizes, int(slots.ctypes.data), len(places.scratch))
        job = np.zeros((len(tables), _JOB), np.int64)
        for worker, table in enumerate(tables):
            job[worker, :3] = table.ctypes.data, len(steps[worker]), places.scratch[worker]
        job[0, 4:6] = shares.ctypes.data, len(shares)
        return Bound(
            job=job,
            slots=values,
            tables=tables,
            shares=shares,
            steps=steps,
            inputs=patches["input"],
            outputs=patches["output"],
            heap=patches["heap"],
            job_address=int(job.ctypes.data),
        )

    def _outside(
        self, at: _Pointer, offset: int, span: int, env: Mapping[str, int], places: Places
    ) -> PlanFileError:
        return PlanFileError(
            f"step {self._names[at.step]!r} reaches bytes {offset} to {offset + span} of {at.kind} "
            f"{at.number}, which has {places.sizes[at.kind][at.number]}, where {_where(env)}",
            hint="build the plan again from its model",
        )

    def _tables(
        self, sizes: Sequence[int], slots: int, workers: int
    ) -> tuple[list[np.ndarray], list[list[int]], np.ndarray]:
        shares = _Shares(self._rounds, workers)
        rows: list[list[_Row]] = [[] for _ in range(workers)]
        steps: list[list[int]] = [[] for _ in range(workers)]
        worked: set[int] = set()  # workers with work since the last barrier
        due = False  # a barrier was asked for since then
        for number, round_ in enumerate(self._rounds):
            for item in round_.items:
                if sizes[item.units] < 0:
                    raise PlanFileError(
                        f"step {self._names[item.step]!r} has {sizes[item.units]} units of work"
                    )
            due |= round_.barrier
            cuts = deal([(sizes[item.units], item.weight) for item in round_.items], workers)
            alone = self._between_barriers(number)
            shared = [
                alone and _shareable(item, cut)
                for item, cut in zip(round_.items, cuts, strict=True)
            ]
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
            helped: list[list[tuple[_Row, int]]] = [[] for _ in range(workers)]
            for item, cut, share in zip(round_.items, cuts, shared, strict=True):
                args = slots + 8 * item.slot
                records = shares.add(cut) if share else []
                for w in busy:
                    if share:
                        function, place = item.functions[0], records[w]
                        rows[w].append((function, args, place, 0, OWN))
                        steps[w].append(item.step)
                        helped[w].append(((function, args, place, 0, OTHERS), item.step))
                    elif cut[w] < cut[w + 1]:
                        for function in item.functions:
                            rows[w].append((function, args, cut[w], cut[w + 1], 0))
                            steps[w].append(item.step)
            for w, entries in enumerate(helped):
                rows[w] += [row for row, _ in entries]
                steps[w] += [step for _, step in entries]
        return [np.array(row or [_NOTHING], np.int64) for row in rows], steps, shares.records

    def _between_barriers(self, number: int) -> bool:
        """Whether who does which unit of a round is nobody else's business."""
        after = self._rounds[number + 1 : number + 2]
        return self._rounds[number].barrier and all(round_.barrier for round_ in after)


def _shareable(item: Item, cut: Sequence[int]) -> bool:
    """Whether a step is long enough, and in enough units, to be shared in pieces."""
    least = min(end - begin for begin, end in itertools.pairwise(cut))
    return item.long and len(item.functions) == 1 and len(cut) > 2 and least >= _PIECES // 2


class _Shares:
    """Share records of all shared steps, one a worker and step."""

    def __init__(self, rounds: Sequence[Round], workers: int) -> None:
        most = workers * sum(len(round_.items) for round_ in rounds)
        memory = np.zeros((most + 1) * _SHARE, np.int64)
        skip = -memory.ctypes.data % SHARE_BYTES // 8
        self._all = memory[skip : skip + most * _SHARE].reshape(most, _SHARE)
        self._used = 0

    @property
    def records(self) -> np.ndarray:
        """Those that are used."""
        return self._all[: self._used]

    def add(self, cut: Sequence[int]) -> list[int]:
        """Addresses of the records of a step that is cut so."""
        workers = len(cut) - 1
        made = self._all[self._used : self._used + workers]
        self._used += workers
        places = [int(made.ctypes.data) + SHARE_BYTES * w for w in range(workers)]
        for w, (begin, end) in enumerate(itertools.pairwise(cut)):
            piece = max(1, -(-(end - begin) // _PIECES))
            made[w, :5] = 0, begin, end, piece, places[(w + 1) % workers]
        return places


class _Sizes:
    """The sizes of a segment, each kept once, so that each is evaluated once."""

    def __init__(self) -> None:
        self._numbers: dict[Dim, int] = {}

    def add(self, dim: Dim) -> int:
        """The number of a size."""
        return self._numbers.setdefault(dim, len(self._numbers))

    def symbols(self) -> tuple[str, ...]:
        """Names of all symbols in the sizes."""
        return tuple(sorted({name for dim in self._numbers for name in symbols_of(dim)}))

    def values(self, env: Mapping[str, int]) -> list[int]:
        """The values of all sizes, by number."""
        return [dim if isinstance(dim, int) else size_of(dim, env) for dim in self._numbers]


def size_of(dim: Dim, env: Mapping[str, int]) -> int:
    """The value of a size of a plan.

    Raises:
        PlanFileError: It divides by zero or is beyond 64 bits.
    """
    try:
        value = evaluate(dim, env)
    except ZeroDivisionError:
        raise PlanFileError(f"the size {dim} divides by zero, where {_where(env)}") from None
    if not -(2**62) < value < 2**62:
        raise PlanFileError(f"the size {dim} is {value}, where {_where(env)}")
    return value


def _where(env: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in sorted(env.items())) or "all is fixed"


def _rounds(
    steps: Sequence[tuple[int, NativeStep]],
    first_slot: Mapping[int, int],
    sizes: _Sizes,
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
                    size = sizes.add(units)
                    slot, long = first_slot[number], _is_long(step)
                    lined[late].append(Item(number, found, slot, size, step.weight, long))
        barrier = any(step.phases[0].barrier for _, step in group)
        rounds += [Round(barrier or late > 0, tuple(items)) for late, items in enumerate(lined)]
    return tuple(rounds)


def _is_long(step: NativeStep) -> bool:
    """Whether a step takes long enough for its units to be shared in pieces."""
    guess = max(step.flops / _FLOPS_PER_US, step.bytes / _BYTES_PER_US)
    return (step.micros or guess) >= _LONG


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
