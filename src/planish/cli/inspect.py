"""planish inspect: what a plan or a model holds, without running it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.base.errors import ModelError
from planish.base.shapes import Dim, name_of
from planish.cli import arguments

if TYPE_CHECKING:
    from planish.cli.terminal import Terminal
    from planish.plan import HostStep, NativeStep

_NAMED = 8  # inputs that a line names


def inspect(
    path: arguments.ModelOrPlan,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Plan: why each kernel was chosen, not the others.")
    ] = False,
    text: Annotated[bool, typer.Option("--text", help="Plan: its text, as in dumps.")] = False,
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Show a plan (steps, kernels and why, sizes, provenance) or a model (operators, problems)."""
    from planish.cli.files import is_plan
    from planish.cli.terminal import Terminal

    terminal = Terminal(json, quiet)
    if is_plan(path):
        _plan(terminal, path, reasons, text)
    else:
        _model(terminal, path)


def _plan(terminal: Terminal, path: Path, reasons: bool, text: bool) -> None:
    from planish.cli.quantised import tell_choice, tell_layers
    from planish.cli.terminal import size_text
    from planish.plan import plan_text
    from planish.plan.read import read_plan

    plan = read_plan(path)
    record: dict[str, Any] = {
        "plan": str(path),
        "name": plan.name,
        "inputs": [_tensor(t) for t in plan.inputs],
        "outputs": [_tensor(t) for t in plan.outputs],
        "profiles": [list(map(list, profile.dims)) for profile in plan.profiles],
        "target": plan.target,
        "threads": plan.threads,
        "stages": list(map(list, plan.stages)),
        "memory": {
            "arena": plan.arena,
            **plan.memory,
            "weights": sum(weight.nbytes for weight in plan.weights),
            "code": sum(map(len, plan.objects)),
            "file": path.stat().st_size,
        },
        "provenance": plan.provenance,
        "steps": [_step(number, step) for number, step in enumerate(plan.steps)],
    }
    terminal.finish(record)
    if text:
        terminal.say(plan_text(plan, reasons=reasons, times=True))
        return
    terminal.say(f"{path}: {plan.name}, {len(plan.steps)} steps, {plan.threads} threads")
    for what, tensors in (("input", plan.inputs), ("output", plan.outputs)):
        for tensor in tensors:
            terminal.say(f"{what} {tensor.name}: {tensor.dtype}{_shape(tensor.shape)}")
    for profile in plan.profiles:
        ranges = ", ".join(f"{n} {low}:{opt}:{high}" for n, low, opt, high in profile.dims)
        terminal.say(f"profile {ranges} (min:opt:max)")
    terminal.table("Stages", ("stage", "left"), [tuple(row) for row in plan.stages], ("left",))
    terminal.table(
        "Steps",
        ("step", "precision", "kernel", "us", "layer"),
        [
            (r["step"], r["precision"], r["kernel"], r["micros"] or None, r["name"])
            for r in record["steps"]
        ],
        ("step", "us"),
    )
    for row in record["steps"] if reasons else ():
        terminal.say(f"{row['step']} {row['name']}")
        for line in row["why"]:
            terminal.say(f"   - {line}")
    sizes = ", ".join(f"{n.replace('_', ' ')} {size_text(v)}" for n, v in record["memory"].items())
    terminal.say(f"sizes: {sizes}")
    converting = [row["micros"] for row in record["steps"] if row["conversion"]]
    if converting:
        timed = f": {sum(converting):.1f} us" if any(converting) else ""
        terminal.say(f"{len(converting)} steps only convert between floats and 8 bits{timed}")
    tell_choice(terminal, plan.provenance)
    if plan.provenance.get("quantization"):
        tell_layers(terminal, plan.provenance["quantization"]["layers"])
    for name, value in plan.provenance.items():
        if name not in ("choice", "quantization"):  # told above
            terminal.say(f"{name}: {value}")


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": str(tensor.dtype), "shape": list(map(_dim, tensor.shape))}


def _dim(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else name_of(dim) or str(dim)


def _shape(shape: tuple[object, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _step(number: int, step: NativeStep | HostStep) -> dict[str, Any]:
    from planish.pipeline.conversions import is_conversion, step_precision
    from planish.plan import NativeStep

    row: dict[str, Any] = {"step": number, "name": step.name, "origin": list(step.origin)}
    if isinstance(step, NativeStep):
        kernel = f"{step.kernel} {step.tactic}".strip()
        return row | {
            "kernel": kernel,
            "precision": step_precision(step.workload),
            "conversion": is_conversion(step),
            "why": list(step.reason),
            "workload": step.workload,
            "micros": step.micros,
        }
    return row | {
        "kernel": f"host {step.op}",
        "precision": "host",
        "conversion": False,
        "why": [step.reason],
        "workload": "",
        "micros": step.micros,
    }


def _model(terminal: Terminal, path: Path) -> None:
    """Every operator, native or why not. Problems of a bad file are raised, all of them."""
    from planish.pipeline import read_graph
    from planish.pipeline.listing import list_operators

    listing = list_operators(path)
    if listing.problems or listing.unsupported:
        unknown = [f"{who}: no implementation is known" for who in listing.unsupported]
        problems = [*listing.problems, *unknown]
        terminal.finish({"model": str(path), "problems": problems})
        raise ModelError("the model cannot be imported:", problems)
    graph = read_graph(path)
    before = Counter(row.op for row in listing.rows)
    host = [
        {"name": row.name, "op": row.op, "domain": row.domain, "opset": row.version,
         "origin": [row.name], "why": row.reason}
        for row in listing.rows
        if not row.native
    ]  # fmt: skip
    on_host = Counter(row["op"] for row in host)
    operators = [
        {"op": op, "nodes": count, "native": max(0, count - on_host[op]), "host": on_host[op]}
        for op, count in sorted(before.items())
    ]
    terminal.say(f"{path}: {graph.name}, {sum(before.values())} nodes")
    for what, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            shape = "?" if value.type.shape is None else _shape(value.type.shape)
            terminal.say(f"{what} {value.name}: {value.dtype}{shape}")
    if graph.folded:
        names = ", ".join(graph.folded[:_NAMED]) + (", …" if len(graph.folded) > _NAMED else "")
        terminal.say(
            f"{len(graph.folded)} inputs have values in the model and become constants: {names}; "
            "`planish build --input NAME` keeps one as an input"
        )
    terminal.table(
        "Operators",
        ("operator", "nodes", "native", "host"),
        [(r["op"], r["nodes"], r["native"], r["host"] or None) for r in operators],
        ("nodes", "native", "host"),
    )
    if host:
        terminal.warn(f"{len(host)} nodes will run on the host through onnx.reference:")
    for row in host:
        terminal.warn(f"  {row['op']} ({row['name']}): {row['why']}")
    if not host:
        terminal.say("every node runs natively")
    terminal.finish(
        {
            "model": str(path),
            "name": graph.name,
            "inputs": [_value(v) for v in graph.inputs],
            "outputs": [_value(v) for v in graph.outputs],
            "folded": list(graph.folded),
            "operators": operators,
            "host": host,
            "problems": [],
        }
    )


def _value(value: Any) -> dict[str, Any]:
    shape = value.type.shape
    return {
        "name": value.name,
        "dtype": str(value.dtype),
        "shape": None if shape is None else list(map(_dim, shape)),
    }
