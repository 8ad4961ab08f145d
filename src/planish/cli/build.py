"""planish build: a model becomes a plan file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli import arguments, quantised

if TYPE_CHECKING:
    from planish.cli.terminal import Terminal
    from planish.plan import HostStep, Plan


def build(
    model: arguments.Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The plan; MODEL.plan by default.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 (weights), int8-weights or int8.")
    ] = "fp32",
    calibrate: quantised.Calibrate = "",
    preprocess: quantised.PreprocessSpec = "",
    observer: quantised.Observer = [],  # noqa: B006  # typer copies it
    layer_precision: quantised.LayerPrecision = [],  # noqa: B006  # as above
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            "--max-accuracy-drop",
            min=0.0,
            help="How much worse int8 may be: points of top-1 with --labels, else percent of noise "
            "in the outputs. Layers go back to fp32 until it holds.",
            show_default=False,
        ),
    ] = None,
    labels: quantised.LabelsOption = "",
    first_class: quantised.FirstClass = 0,
    calibration_cache: quantised.CalibrationCache = None,
    threads: arguments.Threads = 0,
    profile: arguments.Profiles = [],  # noqa: B006  # typer copies it
    keep: Annotated[
        list[str],
        typer.Option(
            "--input",
            help="Keep this input an input though the model has a value for it; may be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006  # typer copies it
    level: arguments.Level = 3,
    timing_cache: arguments.TimingCache = None,
    time_budget: Annotated[
        float, typer.Option(min=0.0, help="Seconds that timing may take; 0: no limit.")
    ] = 0.0,
    isa: arguments.Isa = "",
    pin: Annotated[
        list[str],
        typer.Option(
            "--pin",
            help="LAYER=TACTIC: run a layer (a name or a pattern with *) by one tactic, as "
            "`inspect` names them; may be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006  # typer copies it
    unoptimised: Annotated[
        bool, typer.Option("--unoptimised", help="Each node by itself: a yardstick.")
    ] = False,
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Turn an ONNX model into a plan: fused, tuned on this machine, planned in memory."""
    from planish import pipeline
    from planish.cli.terminal import Terminal

    terminal = Terminal(json, quiet)
    target = output or model.with_suffix(".plan")
    started = time.perf_counter()
    with terminal.progress() as progress:
        plan = pipeline.build(
            model,
            precision=precision,
            calibration=calibrate or None,
            **quantised.parse_quantising(preprocess, observer, layer_precision, calibration_cache),
            max_accuracy_drop=max_accuracy_drop,
            labels=quantised.parse_labels(labels, first_class),
            threads=threads or None,
            profiles=profile or None,
            inputs=keep,
            level=level,
            timing_cache=timing_cache,
            isa=isa,
            time_budget=time_budget,
            pins=parse_pins(pin),
            optimised=not unoptimised,
            progress=progress,
        )
    plan.save(target)
    seconds = time.perf_counter() - started
    report = build_report(plan, target.stat().st_size, seconds, assumed=not profile)
    report = {"model": str(model), "plan": str(target), **report}
    tell_build(terminal, plan, report)
    terminal.finish(report)


def parse_pins(texts: list[str]) -> dict[str, str]:
    """LAYER=TACTIC as pairs; the layer's name ends at the first "=".

    Raises:
        BuildError: A text has no "=".
    """
    from planish.base.errors import BuildError

    pins = {}
    for text in texts:
        layer, given, tactic = text.partition("=")
        if not given or not layer.strip() or not tactic.strip():
            raise BuildError(
                f"pin {text!r}: expected LAYER=TACTIC",
                hint='write it like --pin "conv1=cpu.conv_f32.direct mr=6 nr=4"',
            )
        pins[layer.strip()] = tactic.strip()
    return pins


def build_report(plan: Plan, file_size: int, seconds: float, assumed: bool) -> dict[str, Any]:
    """What a build did, as data."""
    from planish.plan import HostStep, NativeStep

    native = [step for step in plan.steps if isinstance(step, NativeStep)]
    kernels: dict[str, list[float]] = {}
    for step in native:
        kernels.setdefault(step.kernel, []).append(step.micros)
    host = [step for step in plan.steps if isinstance(step, HostStep)]
    costs = _host_costs(plan) if host else ({}, "")
    return {
        "seconds": seconds,
        "target": plan.target,
        "threads": plan.threads,
        "stages": [{"stage": stage, "left": left} for stage, left in plan.stages],
        "steps": len(plan.steps),
        "host": [_host_row(step, costs[0]) for step in host],
        "host_cost_unknown": costs[1],
        "quantization": plan.provenance.get("quantization"),
        "choice": plan.provenance.get("choice"),
        "profiles": [
            [{"dim": n, "min": low, "opt": opt, "max": high} for n, low, opt, high in p.dims]
            for p in plan.profiles
        ],
        "profiles_assumed": assumed and bool(plan.profiles),
        "kernels": [
            {"kernel": name, "layers": len(times), "micros": sum(times)}
            for name, times in sorted(kernels.items(), key=lambda row: -sum(row[1]))
        ],
        "memory": {
            "arena": plan.arena,
            **plan.memory,
            "worker_scratch": plan.worker_scratch,
            "weights": sum(weight.nbytes for weight in plan.weights),
            "code": sum(map(len, plan.objects)),
        },
        "file_bytes": file_size,
    }


def _host_row(step: HostStep, costs: dict[str, float]) -> dict[str, Any]:
    return {
        "name": step.name,
        "op": step.op,
        "origin": list(step.origin),
        "why": step.reason,
        "micros": costs.get(step.name),
    }


def _host_costs(plan: Plan) -> tuple[dict[str, float], str]:
    """Microseconds of each host step at the opt shapes on random inputs, or why there are none."""
    from planish.base.errors import PlanishError
    from planish.measure import random_feeds
    from planish.runtime import Engine

    try:
        with Engine(plan) as engine:
            report = engine.profile(random_feeds(plan), runs=3)
    except PlanishError as error:  # random indices or counts may well be illegal
        return {}, error.message
    return {step.name: step.micros for step in report.steps if step.kernel == "host"}, ""


def tell_build(terminal: Terminal, plan: Plan, report: dict[str, Any]) -> None:
    """Print a build report for people."""
    from planish.cli.terminal import size_text

    words = [str(plan.target.get(key, "")) for key in ("isa", "cpu")]
    terminal.say(
        f"{report['model']} -> {report['plan']}: {report['steps']} steps for "
        f"{' '.join(words)}, {plan.threads} threads, in {report['seconds']:.1f} s"
    )
    terminal.table(
        "Stages", ("stage", "left"), [(r["stage"], r["left"]) for r in report["stages"]], ("left",)
    )
    if report["profiles_assumed"]:
        ranges = "; ".join(
            ", ".join(f"{d['dim']} {d['min']}:{d['opt']}:{d['max']}" for d in profile)
            for profile in report["profiles"]
        )
        terminal.warn(f"no --profile given, assumed {ranges} (min:opt:max)")
    quantised.tell_choice(terminal, plan.provenance)
    tell_host(terminal, report["host"], report["host_cost_unknown"])
    total = sum(row["micros"] for row in report["kernels"])
    terminal.table(
        "Kernels",
        ("kernel", "layers", "us", "share"),
        [
            (r["kernel"], r["layers"], r["micros"], f"{r['micros'] / total:.0%}" if total else None)
            for r in report["kernels"]
        ],
        ("layers", "us", "share"),
    )
    memory = report["memory"]
    bound = memory.get("lower_bound", 0)
    ratio = f", {memory['planned'] / bound:.3f} x the lower bound" if bound else ""
    terminal.say(
        f"memory: arena {size_text(memory['arena'])} (without reuse "
        f"{size_text(memory.get('naive', 0))}{ratio}), weights {size_text(memory['weights'])}, "
        f"code {size_text(memory['code'])}"
    )
    terminal.say(f"plan: {size_text(report['file_bytes'])}")


def tell_host(terminal: Terminal, rows: list[dict[str, Any]], unknown: str) -> None:
    """Say loudly what runs on the host, why and what it costs."""
    lines = []
    for row in rows:
        cost = "" if row["micros"] is None else f" [{row['micros']:,.0f} us a run]"
        lines.append(f"{row['op']} ({row['name']}): {row['why']}{cost}")
    terminal.warn_host(lines)
    if unknown:
        terminal.warn(f"  what they cost could not be measured on random inputs: {unknown}")
