"""Steps + chosen tactics + offsets → Plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, dim_min, evaluate, product, substitute, symbol, symbols_of
from planish.graph.graph import Graph, Value
from planish.graph.infer import facts_of
from planish.kernels.kernel import Config, Kernel, Source, config_text
from planish.kernels.workload import flops
from planish.lower.lowering import LoweredStep
from planish.lower.operands import Source as OperandSource
from planish.lower.schedule import Life, group_steps, lifetimes, reuse_in_place
from planish.lower.storage import Buffer, Storage, touched_bytes
from planish.memory.problem import Buffer as Block
from planish.memory.problem import Problem
from planish.memory.solve import solve
from planish.memory.validate import validate
from planish.plan.records import (
    HeapBuffer,
    HostStep,
    HostTensor,
    NativeStep,
    PhaseCall,
    Plan,
    Profile,
    Ref,
    Step,
    TensorInfo,
)
from planish.targets.cpu import CpuTarget
from planish.targets.requirements import requirements

ALIGN = 64  # bytes; every buffer of the arena starts on such a border


@dataclass(frozen=True)
class Chosen:
    """The tactic of a workload.

    Attributes:
        kernel: Catalogue entry.
        config: Its config.
        source: Its code.
        object: Its compiled code.
        reason: Why this one, and why each other was refused or lost.
        micros: Measured time, microseconds; 0.0 untimed.
    """

    kernel: Kernel
    config: Config
    source: Source
    object: bytes
    reason: tuple[str, ...]
    micros: float = 0.0


Choose = Callable[[int], Chosen]  # step number -> its tactic


class Assembler:
    """Makes plans of one lowered graph under different choices of tactics.

    Packed weights are kept between plans, so that a tactic is packed once.

    Args:
        graph: The graph; for names, types and history.
        steps: Its steps.
        target: The CPU.
        profiles: Ranges of the symbolic dims.
        driver: Object code of the native driver.
    """

    def __init__(
        self,
        graph: Graph,
        steps: list[LoweredStep],
        target: CpuTarget,
        profiles: Sequence[Profile],
        driver: bytes,
    ) -> None:
        self.graph = graph
        self.steps = steps
        self.target = target
        self.profiles = tuple(profiles)
        self.driver = driver
        self.saved = reuse_in_place(steps)
        self.groups = group_steps(steps)
        self.opt = {n: m for p in reversed(self.profiles) for n, _, m, _ in p.dims}
        self.largest: dict[str, int] = {}
        for profile in self.profiles:
            for name, _, _, high in profile.dims:
                self.largest[name] = max(high, self.largest.get(name, 0))
        self.lives = lifetimes(steps, self.groups)
        self._packed: dict[tuple[int, str], np.ndarray] = {}

    def plan(self, choose: Choose) -> Plan:
        """The plan with these tactics. Everything but provenance is filled in."""
        chosen = [None if s.workload is None else choose(n) for n, s in enumerate(self.steps)]
        scratch, worker_scratch = self._scratch(chosen)
        lives = [*self.lives, *(life for life in scratch.values() if life.buffer.kind == "arena")]
        sizes, scale = block_sizes([life.size for life in lives], self.largest)
        blocks = tuple(
            Block(f"b{n}", life.lower, life.upper, size, ALIGN)
            for n, (life, size) in enumerate(zip(lives, sizes, strict=True))
        )
        layout = solve(Problem(blocks))
        validate(Problem(blocks), layout.offsets)
        offsets = {life.buffer: layout.offsets[f"b{n}"] * scale for n, life in enumerate(lives)}
        most = evaluate(scale, self.largest)
        weights = _Weights(self._packed)
        heap: dict[Buffer, int] = {}
        steps: list[Step] = []
        objects: dict[bytes, None] = {self.driver: None}
        for number, (step, tactic) in enumerate(zip(self.steps, chosen, strict=True)):
            refs = _Refs(offsets, heap, weights, step, tactic, self.target)
            if tactic is None:
                steps.append(_host_step(step, refs))
                continue
            objects.setdefault(tactic.object)
            scratch_life = scratch.get(number)
            at = None if scratch_life is None else refs.whole(scratch_life.buffer)
            group = self.groups[number]
            first = number == 0 or self.groups[number - 1] != group
            steps.append(_native_step(step, tactic, refs, at, (group, first), self.opt))
        return Plan(
            name=self.graph.name,
            inputs=_infos(self.graph.inputs),
            outputs=_infos(self.graph.outputs),
            profiles=self.profiles,
            steps=tuple(steps),
            objects=tuple(objects),
            weights=tuple(weights.arrays),
            arena=layout.height * most,
            worker_scratch=worker_scratch,
            heap=tuple(HeapBuffer(b.elements * b.dtype.size) for b in heap),
            threads=self.target.threads,
            target=requirements(self.target),
            memory={
                "planned": layout.height * most,
                "naive": layout.naive * most,
                "lower_bound": layout.lower_bound * most,
                "in_place": self.saved,
            },
            history=tuple((e.step, e.note, e.origin) for e in self.graph.history),
            facts=tuple((f.kind, f.a, f.b) for f in facts_of(self.graph)),
            folded=self.graph.folded,
        )

    def _scratch(self, chosen: Sequence[Chosen | None]) -> tuple[dict[int, Life], int]:
        """A buffer for the shared scratch of each step, and the largest private scratch."""
        lives: dict[int, Life] = {}
        worker = 0
        for number, tactic in enumerate(chosen):
            if tactic is None:
                continue
            worker = max(worker, tactic.source.worker_scratch)
            env = _symbols(self.steps[number])
            size = substitute(tactic.source.scratch, env)
            if size != 0:
                bounded = symbols_of(size) <= set(self.largest)
                kind = "arena" if bounded else "heap"
                buffer = Buffer(kind, DType.U8, size, f"{self.steps[number].name}.scratch")
                group = self.groups[number]
                lives[number] = Life(buffer, group, group + 1, size)
        return lives, worker


def block_sizes(sizes: Sequence[Dim], largest: Mapping[str, int]) -> tuple[list[int], Dim]:
    """Sizes to plan with, and what the planned offsets are multiplied by.

    Where every size grows at most in proportion to one symbol (the batch), the plan is made for a
    value of 1 and its offsets scale: so each batch lies as tightly as if it had a plan of its own.
    Otherwise the plan is made for the largest shapes.
    """
    names = {name for size in sizes for name in symbols_of(size)}
    if len(names) == 1:
        (name,) = names
        if all(_at_most_linear(size, name) for size in sizes):
            return [_round(evaluate(size, {name: 1})) for size in sizes], symbol(name)
    return [_round(evaluate(size, largest)) for size in sizes], 1


def _at_most_linear(size: Dim, name: str) -> bool:
    """True when size(n) <= n·size(1) for n >= 1: a + b·n with a, b >= 0."""
    if isinstance(size, int):
        return size >= 0
    return all(m in ((), (name,)) and factor >= 0 for m, factor in size.terms)


def _symbols(step: LoweredStep) -> dict[str, Dim]:
    """The values of a workload's params in the model's symbols."""
    assert step.workload is not None
    return dict(zip(step.workload.params, step.params, strict=True))


def _round(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


class _Weights:
    """The plan's constants, equal ones stored once."""

    def __init__(self, packed: dict[tuple[int, str], np.ndarray]) -> None:
        self._packed = packed
        self._numbers: dict[tuple[int, str], int] = {}
        self.arrays: list[np.ndarray] = []

    def number(
        self, source: OperandSource, position: int, step: LoweredStep, tactic: Chosen,
        target: CpuTarget,
    ) -> int:  # fmt: skip
        assert source.data is not None and step.workload is not None
        pack = tactic.kernel.pack if source.const else None
        format_ = f"{position} {tactic.kernel.name} {config_text(tactic.config)}" if pack else ""
        if pack:
            operand = step.workload.inputs[position]
            outs = [o.shape[1] if len(o.shape) > 1 else 0 for o in step.workload.outputs]
            format_ += f" {operand} {outs}"
        key = (id(source.data), format_)
        if key not in self._numbers:
            if key not in self._packed:
                data = np.asarray(source.data)
                if pack:
                    view = source.storage  # axes of stride 0 only repeat the constant
                    pairs = zip(view.shape, view.strides, strict=True)
                    data = data.reshape([1 if step == 0 else int(str(e)) for e, step in pairs])
                    data = pack(step.workload, tactic.config, target, position, data)
                self._packed[key] = np.ascontiguousarray(data)
            self._numbers[key] = len(self.arrays)
            self.arrays.append(self._packed[key])
        return self._numbers[key]


class _Refs:
    """Where the operands of one step lie in the plan."""

    def __init__(
        self,
        offsets: Mapping[Buffer, Dim],
        heap: dict[Buffer, int],
        weights: _Weights,
        step: LoweredStep,
        tactic: Chosen | None,
        target: CpuTarget,
    ) -> None:
        self.offsets, self.heap, self.weights = offsets, heap, weights
        self.step, self.tactic, self.target = step, tactic, target

    def source(self, position: int, source: OperandSource) -> Ref:
        if source.data is not None and self.tactic is not None:
            number = self.weights.number(source, position, self.step, self.tactic, self.target)
            return Ref("weight", number, source.storage.offset * source.storage.dtype.size)
        return self.view(source.storage)

    def whole(self, buffer: Buffer) -> Ref:
        """A buffer of its own, on the heap where its size has no bound."""
        if buffer.kind == "heap":
            return Ref("heap", self.heap.setdefault(buffer, len(self.heap)))
        return Ref("arena", 0, self.offsets[buffer])

    def view(self, view: Storage) -> Ref:
        root = view.buffer.root()
        offset = view.offset * view.dtype.size
        # What a select guards may seem to be read beyond the end.
        limit = root.elements * view.dtype.size - offset
        reach = touched_bytes(view)
        reach = None if reach is None else dim_min(reach, limit)
        if root.kind == "arena":
            return Ref("arena", 0, self.offsets[root] + offset, reach)
        if root.kind == "heap":
            return Ref("heap", self.heap.setdefault(root, len(self.heap)), offset, reach)
        return Ref(root.kind, root.number, offset, reach)


def _native_step(
    step: LoweredStep,
    tactic: Chosen,
    refs: _Refs,
    scratch: Ref | None,
    place: tuple[int, bool],
    opt: Mapping[str, int],
) -> NativeStep:
    workload = step.workload
    assert workload is not None
    group, first = place  # its group, and whether it opens it
    args: list[Ref | None] = [refs.source(n, s) for n, s in enumerate(step.inputs)]
    args += [refs.view(view) for view in step.outputs]
    args.append(scratch)
    env = _symbols(step)
    phases = tuple(
        PhaseCall(phase.symbol, substitute(phase.units, env), barrier=n > 0 or first)
        for n, phase in enumerate(tactic.source.phases)
    )
    return NativeStep(
        name=step.name,
        origin=step.origin,
        args=tuple(args),
        params=step.params,
        phases=phases,
        group=group,
        weight=1.0,
        kernel=tactic.kernel.name,
        tactic=config_text(tactic.config),
        reason=(*((step.note,) if step.note else ()), *tactic.reason),
        workload=str(workload),
        micros=tactic.micros,
        flops=likely(substitute(flops(workload), env), opt),
        bytes=total_bytes(step, opt),
        precision=str(workload.outputs[0].dtype),
    )


def likely(size: Dim, opt: Mapping[str, int]) -> int:
    """A size at the opt shapes; sizes that only data tell count as 1."""
    return evaluate(size, {name: opt.get(name, 1) for name in symbols_of(size)})


def _host_step(step: LoweredStep, refs: _Refs) -> HostStep:
    host = step.host
    assert host is not None

    def tensor(value: Value, view: Storage) -> HostTensor:
        return HostTensor(refs.view(view), value.dtype, value.type.shape)

    return HostStep(
        name=step.name,
        origin=step.origin,
        op=host.op,
        model=host.model,
        inputs=tuple(tensor(*operand) for operand in host.inputs),
        outputs=tuple(None if out is None else tensor(*out) for out in host.outputs),
        reason=host.reason,
    )


def _infos(values: Sequence[Value]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(v.name, DType.OBJECT, ())
        if v.type.shape is None
        else TensorInfo(v.name, v.dtype, v.shape)
        for v in values
    )


def total_bytes(step: LoweredStep, env: Mapping[str, int]) -> int:
    """Bytes read and written, counting each operand once."""
    views = [*(s.storage for s in step.inputs), *step.outputs]
    return sum(likely(product(v.shape), env) * v.dtype.size for v in views)
