"""A plan as pure data: steps, tensors, code, weights, provenance. The file holds nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, Shape
from planish.plan.write import write_plan

FACTS = ("equal", "broadcast")


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the plan.

    Attributes:
        name: The model's name for it.
        dtype: Element type; OBJECT for what is no tensor (a sequence, an optional value, a map).
        shape: Shape; symbolic dims are named as in the model. () for an OBJECT.
    """

    name: str
    dtype: DType
    shape: Shape


@dataclass(frozen=True)
class Profile:
    """Ranges of the symbolic dims: a run outside is refused; tactics were timed at `opt`."""

    dims: tuple[tuple[str, int, int, int], ...]  # (name, min, opt, max)


@dataclass(frozen=True)
class Ref:
    """Where an operand's element with all indices 0 lies.

    Attributes:
        kind: "arena" (bytes from the arena's start), "input"/"output" (a tensor of the caller),
            "weight" (an entry of Plan.weights), "heap" (a buffer sized at run time, see Plan.heap).
        number: Which input, output, weight or heap buffer; 0 for the arena.
        offset: Bytes from its start.
        span: Bytes from the offset on that the step touches, so that a reader can check bounds;
            None: not told.
    """

    kind: str
    number: int
    offset: Dim = 0
    span: Dim | None = None


@dataclass(frozen=True)
class PhaseCall:
    """One native function of a step: `units` are dealt out to the workers.

    Attributes:
        symbol: Function with the signature void(void** args, i64 begin, i64 end, void* scratch).
        units: Units of work.
        barrier: The workers meet before this phase starts. Without it, unit u may read what unit u
            of the phase before wrote, and nothing else of what was written since the last barrier;
            and this holds only where both phases have as many units and, if they belong to two
            steps, each step is alone in its group.
    """

    symbol: str
    units: Dim
    barrier: bool = True


@dataclass(frozen=True)
class NativeStep:
    """A layer that runs as native code.

    Attributes:
        name: The layer's name.
        origin: ONNX nodes it stands for.
        args: Pointers, in the order of the kernel's slots: inputs, outputs, scratch (None: null).
        params: Run-time sizes that follow the pointers in the slots.
        phases: Functions in order.
        group: Steps of one group have no data flow between them and run between two barriers,
            their units dealt out together. Consecutive; 0-based over the plan. Phases number k
            (counting those with a barrier) of all steps of a group run side by side.
        weight: Relative cost of one unit, for dealing out a group.
        kernel: Name of the catalogue entry.
        tactic: Its config as text.
        reason: Why this tactic, and why each other one was refused or lost.
        workload: The workload's text.
        micros: Measured time at build, microseconds; 0.0 where nothing was timed.
        flops: Floating-point operations at the opt shape.
        bytes: Bytes read and written at the opt shape, counting each operand once.
        precision: dtype the arithmetic runs in.
    """

    name: str
    origin: tuple[str, ...]
    args: tuple[Ref | None, ...]
    params: tuple[Dim, ...]
    phases: tuple[PhaseCall, ...]
    group: int
    weight: float
    kernel: str
    tactic: str
    reason: tuple[str, ...]
    workload: str
    micros: float = 0.0
    flops: int = 0
    bytes: int = 0
    precision: str = "f32"


@dataclass(frozen=True)
class HostTensor:
    """An operand of a host step: where it lies and how it is typed. Always dense, row-major.

    `shape` may hold symbols that this very step defines (outputs whose size depends on data): the
    runtime binds them from what the step gave. A loose operand is one that only host steps touch:
    of unknown rank (`shape` None), text, or no tensor at all; `ref` is then an input, an output or
    a heap buffer of size 0, which stands for the value and gives it no memory.
    """

    ref: Ref
    dtype: DType
    shape: Shape | None

    @property
    def loose(self) -> bool:
        """True for a value that is handed on as an object and has no memory in the plan."""
        return self.shape is None or self.dtype in (DType.STRING, DType.OBJECT)


@dataclass(frozen=True)
class HostStep:
    """A layer that runs on the host through `onnx.reference`.

    Attributes:
        name, origin: As in `NativeStep`.
        op: Operator name.
        model: A serialised one-node ONNX model (weights that are plan inputs excluded), inputs and
            outputs in the order of `inputs` and `outputs`.
        inputs, outputs: Operands; None: an optional one left out.
        reason: Why it does not run natively.
        micros: Measured time at build, microseconds.
    """

    name: str
    origin: tuple[str, ...]
    op: str
    model: bytes
    inputs: tuple[HostTensor | None, ...]
    outputs: tuple[HostTensor | None, ...]
    reason: str
    micros: float = 0.0


Step = NativeStep | HostStep


@dataclass(frozen=True)
class HeapBuffer:
    """A buffer whose size has no bound at build time; allocated for each run, `size` in bytes."""

    size: Dim


@dataclass
class Plan:
    """Everything that an engine needs to run, and everything a reader wants to know.

    Attributes:
        name: The model's name.
        inputs, outputs: Tensors of the caller, in the model's order.
        profiles: Ranges of the symbolic dims; () when all shapes are static.
        steps: What to do, in order.
        objects: Object code, the driver's (targets.driver) among it.
        weights: Packed constants, each stored aligned and read-only.
        arena: Bytes of the activation arena (all profiles).
        worker_scratch: Bytes of private scratch of each worker.
        heap: Buffers allocated at run time.
        threads: Workers the units were tuned for.
        target: What the code needs of a CPU, as `targets.requirements` gives it.
        provenance: Model digest, versions, machine, options, build time: for people and checks.
        stages: The optimiser's counters: (stage, layers left).
        memory: Planned, naive and lower-bound bytes of the arena.
        history: What became of each ONNX node: (pass, note, origin).
        facts: (kind, a, b): sizes that must be "equal", or fit by "broadcast" (equal, or one of
            them 1), for the results to be right; checked when the symbols have values.
        folded: Inputs of the model that are constants of the plan, for the model has values for
            them.
    """

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    profiles: tuple[Profile, ...]
    steps: tuple[Step, ...]
    objects: tuple[bytes, ...]
    weights: tuple[np.ndarray, ...]
    arena: int
    worker_scratch: int
    heap: tuple[HeapBuffer, ...]
    threads: int
    target: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    stages: tuple[tuple[str, int], ...] = ()
    memory: dict[str, int] = field(default_factory=dict)
    history: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    facts: tuple[tuple[str, Dim, Dim], ...] = ()
    folded: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to a file, atomically. Equal plans give equal bytes.

        Raises:
            PlanFileError: A field holds something that is not data, or the system refused.
        """
        write_plan(self, path)
