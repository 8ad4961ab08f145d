"""When steps run, and how long buffers live: groups between barriers, in-place results."""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.expr import Load, Var, loads_of, walk
from planish.base.shapes import Dim
from planish.lower.lowering import LoweredStep
from planish.lower.storage import Buffer, Storage


@dataclass(frozen=True)
class Life:
    """A buffer of the arena with its lifetime in groups, half-open."""

    buffer: Buffer
    lower: int
    upper: int
    size: Dim  # bytes


def group_steps(steps: list[LoweredStep]) -> list[int]:
    """The group of each step: consecutive steps without data flow between them share one."""
    groups: list[int] = []
    current = -1
    written: set[int] = set()
    read: set[int] = set()
    host_before = True
    for step in steps:
        reads = {id(b) for b in read_buffers(step)}
        writes = {id(b) for b in written_buffers(step)}
        # Two steps that write one buffer write different slices of it: a concat's producers.
        clash = reads & written or writes & read
        if step.host is not None or host_before or clash:
            current += 1
            written, read = set(), set()
        host_before = step.host is not None
        written |= writes
        read |= reads
        groups.append(current)
    return groups


def read_buffers(step: LoweredStep) -> list[Buffer]:
    """Buffers a step reads."""
    host = step.host
    views = [v for _, v in host.inputs] if host else [source.storage for source in step.inputs]
    return [view.buffer.root() for view in views]


def written_buffers(step: LoweredStep) -> list[Buffer]:
    """Buffers a step writes."""
    if step.host:
        return [out[1].buffer.root() for out in step.host.outputs if out is not None]
    return [view.buffer.root() for view in step.outputs]


def reuse_in_place(steps: list[LoweredStep]) -> int:
    """Let results take over the memory of an operand that dies with the step.

    Only where element i of the operand is read to make element i of the result and nothing else,
    with equal strides, and where both fill their buffers. Returns how many buffers were saved.
    """
    last_use: dict[int, int] = {}
    writers: dict[int, int] = {}
    for position, step in enumerate(steps):
        for buffer in (*read_buffers(step), *written_buffers(step)):
            last_use[id(buffer)] = position
        for buffer in written_buffers(step):
            writers[id(buffer)] = writers.get(id(buffer), 0) + 1
    saved = 0
    for position, step in enumerate(steps):
        if step.workload is None or len(step.outputs) != 1:
            continue
        target = step.outputs[0]
        if target.buffer.kind != "arena" or target.buffer.alias or writers[id(target.buffer)] != 1:
            continue
        for number in _same_index_inputs(step):
            source = step.inputs[number].storage
            root = source.buffer.root()
            fits = (
                root.kind == "arena"
                and root is not target.buffer
                and last_use[id(root)] == position
                and source.dtype is target.dtype
                and root.dtype is target.dtype
                and source.shape == target.shape
                and source.strides == target.strides
                and source.offset == 0
                and target.offset == 0
                and root.elements == target.buffer.elements
            )
            if fits and _reads_once(step, root):
                target.buffer.alias = root
                last_use[id(root)] = last_use[id(target.buffer)]
                saved += 1
                break
    return saved


def _reads_once(step: LoweredStep, root: Buffer) -> bool:
    return sum(1 for s in step.inputs if s.storage.buffer.root() is root) == 1


def _same_index_inputs(step: LoweredStep) -> list[int]:
    """Operands of which each element is read only to make the result's element of that index."""
    workload = step.workload
    assert workload is not None
    if workload.op == "nest":
        nest = workload.nest
        assert nest is not None
        if len(nest.stages) != 1 or nest.stages[0].reduce or nest.stages[0].store is None:
            return []
        store = nest.stages[0].store.index
        return _only_at(store, loads_of(nest.stages[0].expr), 0)
    if len(workload.epilogue) != 1 or workload.op == "attention":
        return []
    at = tuple(Var(f"o{n}") for n in range(len(workload.outputs[0].shape)))
    return _only_at(at, loads_of(workload.epilogue[0]), 2)


def _only_at(at: tuple[object, ...], loads: list[Load], first: int) -> list[int]:
    numbers = {load.tensor for load in loads if load.tensor >= first}
    nested = {
        e.tensor for load in loads for i in load.index for e in walk(i) if isinstance(e, Load)
    }
    return sorted(
        n
        for n in numbers
        if n not in nested and all(load.index == at for load in loads if load.tensor == n)
    )


def lifetimes(steps: list[LoweredStep], groups: list[int]) -> list[Life]:
    """The arena's buffers with their lives."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for step, group in zip(steps, groups, strict=True):
        for view in _views(step):
            root = view.buffer.root()
            if root.kind == "arena":
                first.setdefault(root, group)
                last[root] = group
    return [Life(b, first[b], last[b] + 1, b.elements * b.dtype.size) for b in first]


def _views(step: LoweredStep) -> list[Storage]:
    if step.host:
        outs = (out[1] for out in step.host.outputs if out is not None)
        return [*(view for _, view in step.host.inputs), *outs]
    return [*(source.storage for source in step.inputs), *step.outputs]
