"""A plan as text: what people read and golden tests compare.

The text leaves out what differs between two builds of one plan: measured times unless asked for,
and addresses never. `[*]` marks a step that starts behind a barrier.
"""

from __future__ import annotations

from planish.base.shapes import Shape
from planish.plan.records import HostStep, HostTensor, NativeStep, Plan, Ref, TensorInfo


def plan_text(plan: Plan, *, reasons: bool = False, times: bool = False) -> str:
    """The text of a plan, a line a step.

    Args:
        plan: The plan.
        reasons: Also tell why each kernel was chosen, and why the others were not.
        times: Also tell the times measured at build.
    """
    lines = [f"plan {plan.name}"]
    lines += [f"  target {_target(plan)}"]
    lines += [f"  input  {_tensor(tensor)}" for tensor in plan.inputs]
    lines += [f"  output {_tensor(tensor)}" for tensor in plan.outputs]
    for profile in plan.profiles:
        ranges = ", ".join(f"{name} {low}..{opt}..{high}" for name, low, opt, high in profile.dims)
        lines.append(f"  profile {ranges}")
    lines.append(f"  memory {_memory(plan)}")
    if plan.stages:
        lines.append("  stages " + ", ".join(f"{name} {left}" for name, left in plan.stages))
    for number, step in enumerate(plan.steps):
        lines.append(f"  {number:>4} {_step(step, times)}")
        lines += [f"         - {reason}" for reason in _reasons(step)] if reasons else []
    return "\n".join(lines) + "\n"


def _target(plan: Plan) -> str:
    words = [str(plan.target.get(key, "")) for key in ("isa", "machine", "cpu")]
    return f"{' '.join(filter(None, words)) or 'unknown'}, {plan.threads} threads"


def _tensor(tensor: TensorInfo) -> str:
    return f"{tensor.name}: {tensor.dtype}[{_shape(tensor.shape)}]"


def _shape(shape: Shape) -> str:
    return ",".join(map(str, shape))


def _memory(plan: Plan) -> str:
    weights = sum(weight.nbytes for weight in plan.weights)
    code = sum(len(data) for data in plan.objects)
    parts = [f"arena {plan.arena:,}", f"scratch {plan.worker_scratch:,} a worker"]
    parts += [f"weights {weights:,} in {len(plan.weights)}", f"code {code:,}"]
    parts += [f"{name} {size:,}" for name, size in sorted(plan.memory.items())]
    parts += [f"heap {buffer.size}" for buffer in plan.heap]
    return ", ".join(parts)


def _step(step: NativeStep | HostStep, times: bool) -> str:
    time = f" {step.micros:.1f} us" if times else ""
    origin = f" from {', '.join(step.origin)}" if step.origin else ""
    if isinstance(step, HostStep):
        operands = f"({_host(step.inputs)}) -> {_host(step.outputs)}"
        return f"[*] {step.name} = host {step.op}{operands}{time}{origin}"
    mark = "[*]" if step.phases[0].barrier else "[ ]"
    args = ", ".join("-" if ref is None else _ref(ref) for ref in step.args)
    params = f"; {', '.join(map(str, step.params))}" if step.params else ""
    units = "+".join(str(phase.units) for phase in step.phases)
    kernel = f"{step.kernel} {step.tactic}".strip()
    return (
        f"{mark} g{step.group} {step.name} = {kernel} ({args}{params}) "
        f"units {units} {step.precision}{time}{origin}"
    )


def _ref(ref: Ref) -> str:
    offset = "" if ref.offset == 0 else f"+{ref.offset}"
    return ("arena" if ref.kind == "arena" else f"{ref.kind}{ref.number}") + offset


def _host(operands: tuple[HostTensor | None, ...]) -> str:
    texts = []
    for operand in operands:
        if operand is None:
            texts.append("-")
        else:
            shape = "?" if operand.shape is None else _shape(operand.shape)
            texts.append(f"{_ref(operand.ref)}: {operand.dtype}[{shape}]")
    return ", ".join(texts)


def _reasons(step: NativeStep | HostStep) -> tuple[str, ...]:
    return (step.reason,) if isinstance(step, HostStep) else step.reason
