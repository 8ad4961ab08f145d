"""Splices an epilogue into a template: from accumulators in registers to stored outputs.

Lanes run along one logical axis of the output. The values of all cells are computed before the
first store, so that LLVM may share the loads of cells that read the same elements. An operand that
is added to the accumulator first, and depends on the lane alone, can be what accumulators start
from instead (`Bias`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.expr import Call, Expr, Load, Temp, Var, transform, walk
from planish.kernels.cpu.expression import ExprEmitter, Memory
from planish.kernels.cpu.frame import Frame
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Val

Cell = tuple[Val, Val, Sequence[Val]]  # accumulator, address of its first lane, output index


def accumulator_dtype(w: Workload, output: int) -> DType:
    """The type of the value that the epilogue of an output starts from."""
    if w.epilogue:
        for part in walk(w.epilogue[output]):
            if isinstance(part, Temp):
                return part.dtype
    return w.outputs[output].dtype


def finish(
    frame: Frame,
    target: CpuTarget,
    expr: Expr,
    value: Val,
    index: Sequence[Val],
    *,
    lane_axis: int,
    mask: Val | None = None,
) -> Val:
    """What an epilogue makes of a vector of accumulators, in registers.

    Args:
        frame: The phase.
        target: What the code is for.
        expr: The epilogue.
        value: The accumulators.
        index: Output index of the first lane.
        lane_axis: The output's logical axis along which the lanes lie.
        mask: Lanes that exist; None for all.
    """
    return _emitter(frame, target, value, index, lane_axis, mask).emit(expr)


def _emitter(
    frame: Frame,
    target: CpuTarget,
    value: Val,
    index: Sequence[Val],
    lane_axis: int,
    mask: Val | None,
) -> ExprEmitter:
    operands = [
        Memory(pointer, operand.strides, operand.dtype)
        for pointer, operand in zip(frame.inputs, frame.workload.inputs, strict=True)
    ]
    return ExprEmitter(
        frame.f,
        target,
        frame.size,
        lanes=value.lanes,
        lane_var=f"o{lane_axis}",
        vars={f"o{axis}": position for axis, position in enumerate(index)},
        operands=operands,
        temps={0: value},
        mask=mask,
    )


@dataclass(frozen=True)
class Store:
    """The end of one output's tiles.

    Attributes:
        target: What the code is for.
        expr: The epilogue; None stores the accumulators.
        output: Number of the output.
        lane_axis: The output's logical axis along which lanes lie.
    """

    target: CpuTarget
    expr: Expr | None
    output: int
    lane_axis: int

    def run(self, frame: Frame, cells: Sequence[Cell], mask: Val | None = None) -> None:
        """Finish and store vectors of accumulators; `mask` has the lanes that exist."""
        operand = frame.workload.outputs[self.output]
        memory = Memory(frame.outputs[self.output], operand.strides, operand.dtype)
        done = []
        for value, place, index in cells:
            emitter = _emitter(frame, self.target, value, index, self.lane_axis, mask)
            done.append((emitter, emitter.emit(self.expr) if self.expr else value, place))
        for emitter, value, place in done:
            if value.lanes > 1 and operand.strides[self.lane_axis] != 1:
                axes = [Var(f"o{axis}") for axis in range(len(operand.shape))]
                emitter.store(memory, axes, value)
                continue
            raw = emitter.arithmetic.to_memory(value, operand.dtype)
            if mask is None or value.lanes == 1:
                frame.f.store(raw, place)
            else:
                frame.f.masked_store(raw, place, mask)


def store_for(w: Workload, target: CpuTarget, output: int, lane_axis: int) -> Store:
    """The whole epilogue of an output."""
    return Store(target, w.epilogue[output] if w.epilogue else None, output, lane_axis)


@dataclass(frozen=True)
class Bias:
    """An epilogue without the operand that its accumulators start from.

    Attributes:
        load: The operand, a function of the lane axis alone; None where accumulators start at zero.
        store: The rest of the epilogue.
    """

    load: Load | None
    store: Store

    def start(self, frame: Frame, zero: Val, lane: Val, mask: Val | None = None) -> Val:
        """What a vector of accumulators starts from, `lane` being its first index."""
        if self.load is None:
            return zero
        axis = self.store.lane_axis
        index = [lane] * (axis + 1)
        return finish(frame, self.store.target, self.load, zero, index, lane_axis=axis, mask=mask)


def split_bias(w: Workload, target: CpuTarget, output: int, lane_axis: int) -> Bias:
    """Take the bias out of an epilogue where it is added to the accumulator before all else."""
    store = store_for(w, target, output, lane_axis)
    if store.expr is None:
        return Bias(None, store)
    expr, lane = store.expr, f"o{lane_axis}"
    temps = [part for part in walk(expr) if isinstance(part, Temp)]
    loads = [load for load in (_added(part, lane) for part in walk(expr)) if load is not None]
    if len(temps) != 1 or not loads or loads[0].dtype is not temps[0].dtype:
        return Bias(None, store)
    rest = transform(expr, lambda e: temps[0] if _added(e, lane) == loads[0] else e)
    return Bias(loads[0], Store(target, rest, output, lane_axis))


def added_operand(part: Expr) -> Load | None:
    """The operand of `acc + operand` or `operand + acc`; None for anything else."""
    match part:
        case Call(fn="add", args=(Temp(), Load() as load) | (Load() as load, Temp())):
            return load
    return None


def _added(part: Expr, lane: str) -> Load | None:
    """An operand that is added to the accumulator, when it varies along the lanes alone."""
    load = added_operand(part)
    if load is None:
        return None
    used = {e.name for e in walk(load) if isinstance(e, Var)}
    return load if used <= {lane} else None
