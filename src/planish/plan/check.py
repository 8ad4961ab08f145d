"""The plan's verifier: references inside bounds, sizes that can be known, names that are unique.

`read_plan` runs it on every file, and a build may run it on what it made. It knows nothing of how
plans come about. What it cannot check is the code itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from planish.base.dtypes import DType
from planish.base.errors import PlanFileError
from planish.base.shapes import Dim, Shape, name_of, symbols_of
from planish.plan.records import (
    FACTS,
    HostStep,
    HostTensor,
    NativeStep,
    Plan,
    Ref,
    Step,
    TensorInfo,
)

_SYMBOL = re.compile(r"[A-Za-z_.$][A-Za-z0-9_.$]{0,254}")
_MOST_AXES = 64  # NumPy's limit
_LOOSE_KINDS = ("heap", "input", "output")


def check_plan(plan: Plan, origin: str = "plan") -> None:
    """Hold a plan against its rules.

    Args:
        plan: What to check.
        origin: What error messages call it, e.g. its path.

    Raises:
        PlanFileError: A rule is broken; says which and where.
    """
    try:
        known = _check_interface(plan)
        _check_profiles(plan, known)
        for number, step in enumerate(plan.steps):
            known |= _check_step(plan, f"steps[{number}] ({step.name})", step, known)
        _check_groups(plan)
        for number, buffer in enumerate(plan.heap):
            _known(f"heap[{number}].size", [buffer.size], known)
        for tensor in plan.outputs:
            _known(f"output {tensor.name!r}", tensor.shape, known)
        for number, (kind, _, _) in enumerate(plan.facts):
            if kind not in FACTS:
                raise _Broken(f"facts[{number}]: {kind!r} is not one of {FACTS}")
    except _Broken as broken:
        raise PlanFileError(
            f"{origin}: plan record: {broken}", hint="build the plan again from its model"
        ) from None


class _Broken(Exception):
    """A rule that does not hold."""


def _check_interface(plan: Plan) -> set[str]:
    """The symbols that the inputs' shapes give."""
    known: set[str] = set()
    for kind, tensors in (("input", plan.inputs), ("output", plan.outputs)):
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names):
            raise _Broken(f"two {kind}s have one name: {names}")
        for tensor in tensors:
            _check_tensor(f"{kind} {tensor.name!r}", tensor)
    for tensor in plan.inputs:
        known |= {name for dim in tensor.shape for name in _bare(dim)}
    for tensor in plan.inputs:
        _known(f"input {tensor.name!r}", tensor.shape, known)
    return known


def _check_tensor(where: str, tensor: TensorInfo) -> None:
    _check_shape(where, tensor.shape)


def _check_shape(where: str, shape: Shape) -> None:
    if len(shape) > _MOST_AXES:
        raise _Broken(f"{where}: {len(shape)} axes, the limit is {_MOST_AXES}")
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        raise _Broken(f"{where}: a negative size in {shape}")


def _bare(dim: Dim) -> list[str]:
    """The symbol that a size is, so that a tensor's shape tells its value."""
    return [name_of(dim)] if name_of(dim) else []


def _known(where: str, dims: Iterable[Dim], known: set[str]) -> None:
    for dim in dims:
        missing = symbols_of(dim) - known
        if missing:
            raise _Broken(f"{where}: nothing gives the value of {sorted(missing)} in {dim}")


def _check_profiles(plan: Plan, known: set[str]) -> None:
    for number, profile in enumerate(plan.profiles):
        for name, low, opt, high in profile.dims:
            if not 0 <= low <= opt <= high:
                raise _Broken(f"profiles[{number}]: {name}: {low} <= {opt} <= {high} does not hold")
            if name not in known:
                raise _Broken(f"profiles[{number}]: no input has a dim {name!r}")


def _check_step(plan: Plan, where: str, step: Step, known: set[str]) -> set[str]:
    """Checks a step; gives the symbols that it defines."""
    if isinstance(step, HostStep):
        return _check_host(plan, where, step, known)
    if not step.phases:
        raise _Broken(f"{where}: a native step has at least one phase")
    for number, phase in enumerate(step.phases):
        if not _SYMBOL.fullmatch(phase.symbol):
            raise _Broken(f"{where}.phases[{number}]: {phase.symbol!r} is no symbol")
        _known(f"{where}.phases[{number}].units", [phase.units], known)
    _known(f"{where}.params", step.params, known)
    for number, ref in enumerate(step.args):
        if ref is not None:
            _check_ref(plan, f"{where}.args[{number}]", ref, known)
            tensors = {"input": plan.inputs, "output": plan.outputs}.get(ref.kind)
            if tensors is not None and tensors[ref.number].dtype in (DType.STRING, DType.OBJECT):
                raise _Broken(f"{where}.args[{number}]: native code takes no text and no objects")
    return set()


def _check_host(plan: Plan, where: str, step: HostStep, known: set[str]) -> set[str]:
    for number, operand in enumerate(step.inputs):
        if operand is not None:
            _check_operand(plan, f"{where}.inputs[{number}]", operand, known)
    defined: set[str] = set()
    for operand in step.outputs:
        if operand is not None and operand.shape is not None:
            defined |= {name for dim in operand.shape for name in _bare(dim)}
    for number, operand in enumerate(step.outputs):
        if operand is None:
            continue
        if operand.ref.kind in ("input", "weight"):
            raise _Broken(f"{where}.outputs[{number}]: cannot write to an {operand.ref.kind}")
        _check_operand(plan, f"{where}.outputs[{number}]", operand, known | defined)
    return defined


def _check_operand(plan: Plan, where: str, operand: HostTensor, known: set[str]) -> None:
    if operand.loose and operand.ref.kind not in _LOOSE_KINDS:
        raise _Broken(f"{where}: a loose operand cannot lie in {operand.ref.kind!r}")
    _check_shape(where, operand.shape or ())
    _known(where, operand.shape or (), known)
    _check_ref(plan, where, operand.ref, known)


def _check_ref(plan: Plan, where: str, ref: Ref, known: set[str]) -> None:
    counts = {
        "arena": 1,
        "input": len(plan.inputs),
        "output": len(plan.outputs),
        "weight": len(plan.weights),
        "heap": len(plan.heap),
    }
    if ref.kind not in counts:
        raise _Broken(f"{where}: kind {ref.kind!r} is not one of {sorted(counts)}")
    if not 0 <= ref.number < counts[ref.kind]:
        raise _Broken(f"{where}: {ref.kind} {ref.number} of {counts[ref.kind]}")
    _known(where, [ref.offset, 0 if ref.span is None else ref.span], known)
    if ref.kind == "output":
        _known(f"{where}: output {ref.number}", plan.outputs[ref.number].shape, known)
    if ref.kind == "heap":
        _known(f"{where}: heap {ref.number}", [plan.heap[ref.number].size], known)
    limit = {"arena": plan.arena, "weight": 0}.get(ref.kind)
    if ref.kind == "weight":
        limit = plan.weights[ref.number].nbytes
    if not isinstance(ref.offset, int):
        return
    end = ref.offset + (ref.span if isinstance(ref.span, int) else 0)
    if ref.offset < 0 or (limit is not None and end > limit):
        raise _Broken(f"{where}: bytes {ref.offset} to {end} of {ref.kind}, which has {limit}")


def _check_groups(plan: Plan) -> None:
    """A group's steps stand together."""
    seen: set[int] = set()
    before: int | None = None
    for step in plan.steps:
        group = step.group if isinstance(step, NativeStep) else None
        if group is not None and group != before and group in seen:
            raise _Broken(f"group {group} is in two places; at {step.name!r}")
        if group is not None:
            seen.add(group)
        before = group
