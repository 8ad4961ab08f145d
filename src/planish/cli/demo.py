"""planish demo: the embedded network, each node by itself against the plan."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli import arguments

if TYPE_CHECKING:
    import numpy as np

    from planish.cli.terminal import Terminal
    from planish.pipeline.explain import Explanation
    from planish.plan import Plan

_PROFILE = {"batch": 1}


def demo(
    seconds: Annotated[
        float, typer.Option(min=0.05, help="Length of each latency and throughput part.")
    ] = 2.0,
    level: arguments.Level = 1,
    time_budget: Annotated[
        float, typer.Option(min=0.0, help="Seconds that timing may take; 0: no limit.")
    ] = 10.0,
    threads: arguments.Threads = 0,
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Build the embedded digit network and show what planish makes of it."""
    from planish import pipeline
    from planish.cli.terminal import Terminal
    from planish.demo import model_path, test_set
    from planish.pipeline.explain import explain_build

    terminal = Terminal(json, quiet)
    began = time.perf_counter()
    pictures, labels = test_set()
    made = explain_build(pipeline.read_graph(model_path()), _PROFILE, threads)
    tell_fused(terminal, made)
    plans: dict[str, Plan] = {}
    seconds_of: dict[str, float] = {}
    for name, optimised in (("unoptimised", False), ("plan", True)):
        started = time.perf_counter()
        with terminal.progress() as progress:
            plans[name] = pipeline.build(
                model_path(),
                profiles=_PROFILE,
                threads=threads or None,
                level=level if optimised else 0,
                time_budget=time_budget if optimised else 0.0,
                optimised=optimised,
                progress=progress,
            )
        seconds_of[name] = time.perf_counter() - started
    figures = {name: measure_plan(plan, pictures, labels, seconds) for name, plan in plans.items()}
    for name, built in seconds_of.items():
        figures[name]["build_seconds"] = built
    tell_figures(terminal, figures)
    record = {**made.record(), "figures": figures, "seconds": time.perf_counter() - began}
    terminal.say(f"all of it took {record['seconds']:.0f} s")
    terminal.finish(record)


def tell_fused(terminal: Terminal, made: Explanation) -> None:
    """Print what was fused, like layers on one line."""
    nodes = made.stages[0].left
    terminal.say(
        f"Handwritten digits, an Inception-style network: {nodes} ONNX nodes become "
        f"{made.stages[-1].left} steps"
    )
    terminal.table(
        "Stages", ("stage", "left"), [(stage.name, stage.left) for stage in made.stages], ("left",)
    )
    alike = Counter((layer.kind, layer.ops, layer.how) for layer in made.layers)
    ops = {node.name: node.op for node in made.nodes}
    source = {
        (layer.kind, layer.ops, layer.how): " + ".join(ops.get(n, n) for n in layer.origin)
        for layer in made.layers
    }
    terminal.table(
        "What was fused",
        ("layers", "ONNX nodes of each", "became", "how"),
        [(count, source[key], f"{key[0]}: {key[1]}", key[2]) for key, count in alike.items()],
        ("layers",),
    )


def measure_plan(
    plan: Plan, pictures: np.ndarray, labels: np.ndarray, seconds: float
) -> dict[str, Any]:
    """Throughput, latency, accuracy, memory and efficiency of a plan."""
    from planish.measure import bench_engine
    from planish.measure.energy import EnergyMeter
    from planish.runtime import Engine

    name = plan.inputs[0].name
    with Engine(plan) as engine:
        hits = sum(
            int(engine(picture[None]).argmax()) == label  # type: ignore[union-attr]  # one output
            for picture, label in zip(pictures, labels, strict=True)
        )
        report = bench_engine(engine, {name: pictures[:1]}, seconds=seconds, warmup=0.2)
    return {
        "steps": len(plan.steps),
        "accuracy": hits / len(labels),
        "pictures": len(labels),
        "energy_why_not": EnergyMeter().why_not,
        "without_reuse": plan.memory.get("naive", plan.arena),
        **asdict(report),
    }


def tell_figures(terminal: Terminal, figures: dict[str, dict[str, Any]]) -> None:
    """Print the figures side by side."""
    from planish.cli.terminal import size_text

    before, after = figures["unoptimised"], figures["plan"]
    lat = [row["latency"] for row in (before, after)]
    memory = [row["memory"] for row in (before, after)]
    rows: list[tuple[object, ...]] = [
        ("steps", before["steps"], after["steps"], None),
        ("throughput, pictures/s", before["per_second"], after["per_second"],
         _times(after["per_second"], before["per_second"])),
        ("latency median, ms", lat[0]["median"], lat[1]["median"],
         _times(lat[0]["median"], lat[1]["median"])),
        ("latency min, ms", lat[0]["min"], lat[1]["min"], _times(lat[0]["min"], lat[1]["min"])),
        ("latency p99, ms", lat[0]["p99"], lat[1]["p99"], _times(lat[0]["p99"], lat[1]["p99"])),
        ("accuracy (top-1)", f"{before['accuracy']:.1%}", f"{after['accuracy']:.1%}", None),
        ("memory, activations", *(size_text(m["arena"] + m["scratch"]) for m in memory), None),
        ("  without reuse", *(size_text(r["without_reuse"]) for r in (before, after)), None),
        ("memory, weights", *(size_text(m["weights"]) for m in memory), None),
        ("memory, code", *(size_text(m["code"]) for m in memory), None),
        ("build, s", before["build_seconds"], after["build_seconds"], None),
    ]  # fmt: skip
    if before["joules"] and after["joules"]:
        efficiency = [1 / row["joules"] for row in (before, after)]
        rows.append(("efficiency, pictures/J", *efficiency, _times(efficiency[1], efficiency[0])))
    terminal.table(
        f"Figures: {after['pictures']} pictures; latency with {after['threads']} threads, "
        f"throughput with {after['streams']} streams",
        ("", "unoptimised", "plan", "gain"),
        rows,
        ("unoptimised", "plan", "gain"),
    )
    if after["energy_why_not"]:
        terminal.say(f"efficiency: not readable here ({after['energy_why_not']})")
    for row in (before, after):
        for warning in row["warnings"]:
            terminal.warn(warning)


def _times(larger: float, smaller: float) -> str:
    return f"{larger / smaller:.2f} x" if smaller else "-"
