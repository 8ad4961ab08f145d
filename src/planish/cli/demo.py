"""planish demo: the embedded network, each node by itself against the plan."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli import arguments

if TYPE_CHECKING:
    import numpy as np

    from planish.cli.terminal import Terminal
    from planish.pipeline.explain import Explanation
    from planish.plan import Plan
    from planish.runtime import Engine

_PROFILE = {"batch": 1}


_UNOPTIMISED, _FP32, _INT8 = "unoptimised", "fp32 plan", "int8 plan"


def demo(
    seconds: Annotated[
        float,
        typer.Option(min=0.05, help="Length of the latency and of the throughput part of a plan."),
    ] = 1.5,
    level: arguments.Level = 1,
    time_budget: Annotated[
        float, typer.Option(min=0.0, help="Seconds that timing may take, a plan; 0: no limit.")
    ] = 10.0,
    threads: arguments.Threads = 0,
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Build the embedded digit network and show what planish makes of it."""
    from planish import pipeline
    from planish.cli.terminal import Terminal
    from planish.demo import calibration_set, model_path, test_set
    from planish.pipeline.explain import explain_build

    terminal = Terminal(json, quiet)
    began = time.perf_counter()
    pictures, labels = test_set()
    made = explain_build(pipeline.read_graph(model_path()), _PROFILE, threads)
    tell_fused(terminal, made)
    kinds: dict[str, dict[str, Any]] = {
        _UNOPTIMISED: {"level": 0, "optimised": False},
        _FP32: {"level": level, "time_budget": time_budget},
        _INT8: {
            "level": level,
            "time_budget": time_budget,
            "precision": "int8",
            "calibration": calibration_set(),
        },
    }
    plans: dict[str, Plan] = {}
    seconds_of: dict[str, float] = {}
    for name, options in kinds.items():
        started = time.perf_counter()
        with terminal.progress() as progress:
            plans[name] = pipeline.build(
                model_path(),
                profiles=_PROFILE,
                threads=threads or None,
                progress=progress,
                **options,
            )
        seconds_of[name] = time.perf_counter() - started
    figures = measure_plans(plans, pictures, labels, seconds)
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


def measure_plans(
    plans: dict[str, Plan], pictures: np.ndarray, labels: np.ndarray, seconds: float
) -> dict[str, dict[str, Any]]:
    """Throughput, latency, accuracy, memory and efficiency of plans, measured in turns."""
    from planish.measure import bench_engines
    from planish.measure.energy import EnergyMeter
    from planish.runtime import Engine

    with ExitStack() as stack:
        engines = {name: stack.enter_context(Engine(plan)) for name, plan in plans.items()}
        right = {name: _count_right(engine, pictures, labels) for name, engine in engines.items()}
        feeds = {next(iter(plans.values())).inputs[0].name: pictures[:1]}
        reports = bench_engines(list(engines.values()), feeds, seconds=seconds, warmup=0.2)
    return {
        name: {
            "steps": len(plan.steps),
            "accuracy": right[name] / len(labels),
            "pictures": len(labels),
            "energy_why_not": EnergyMeter().why_not,
            "without_reuse": plan.memory.get("naive", plan.arena),
            **asdict(report),
        }
        for (name, plan), report in zip(plans.items(), reports, strict=True)
    }


def _count_right(engine: Engine, pictures: np.ndarray, labels: np.ndarray) -> int:
    (image,), (logits,) = engine.inputs, engine.outputs
    return sum(
        int(engine.run({image.name: picture[None]})[logits.name].argmax()) == label
        for picture, label in zip(pictures, labels, strict=True)
    )


def tell_figures(terminal: Terminal, figures: dict[str, dict[str, Any]]) -> None:
    """Print the figures side by side, with each plan's gain over the first."""
    from planish.cli.terminal import size_text

    columns = list(figures.values())
    last = columns[-1]
    rows: list[list[object]] = [_plain("steps", [c["steps"] for c in columns])]
    rows.append(_ratio("throughput, pictures/s", [c["per_second"] for c in columns], more=True))
    for key in ("median", "min", "p99"):
        rows.append(_ratio(f"latency {key}, ms", [c["latency"][key] for c in columns], more=False))
    if all(c["joules"] for c in columns):
        rows.append(_ratio("efficiency, pictures/J", [1 / c["joules"] for c in columns], more=True))
    rows.append(_plain("accuracy (top-1)", [f"{c['accuracy']:.1%}" for c in columns]))
    memory = [c["memory"] for c in columns]
    for words, sizes in (
        ("memory, activations", [m["arena"] + m["scratch"] for m in memory]),
        ("  without reuse", [c["without_reuse"] for c in columns]),
        ("memory, weights", [m["weights"] for m in memory]),
        ("memory, code", [m["code"] for m in memory]),
    ):
        rows.append(_plain(words, [size_text(size) for size in sizes]))
    rows.append(_plain("build, s", [c["build_seconds"] for c in columns]))
    headings = ["", next(iter(figures))]
    for name in list(figures)[1:]:
        headings += [name, "gain"]
    terminal.table(
        f"Figures: {last['pictures']} pictures; latency with {last['threads']} threads, "
        f"throughput with {last['streams']} streams",
        headings,
        rows,
        headings[1:],
    )
    terminal.say(
        f"{_UNOPTIMISED}: each ONNX node by itself, nothing fused, no kernel timed. Its kernels "
        "are of the same catalogue, so the fp32 plan's gain is that of fusion and tuning alone."
    )
    if last["energy_why_not"]:
        terminal.say(f"efficiency: not readable here ({last['energy_why_not']})")
    for name, column in figures.items():
        for warning in column["warnings"]:
            terminal.warn(f"{name}: {warning}")


def _plain(words: str, values: list[Any]) -> list[object]:
    row: list[object] = [words, values[0]]
    for value in values[1:]:
        row += [value, None]
    return row


def _ratio(words: str, values: list[float], more: bool) -> list[object]:
    """A row with gains; `more` of it is better, or less."""
    row: list[object] = [words, values[0]]
    for value in values[1:]:
        larger, smaller = (value, values[0]) if more else (values[0], value)
        row += [value, f"{larger / smaller:.2f} x" if smaller else None]
    return row
