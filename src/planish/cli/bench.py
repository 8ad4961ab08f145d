"""planish bench: throughput, latency and memory of a plan, or of a model that is built first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli import arguments

if TYPE_CHECKING:
    from pathlib import Path

    from planish.cli.terminal import Terminal
    from planish.measure import BenchReport
    from planish.plan import Plan
    from planish.runtime.profile import ProfileReport

_STEP_ROWS = 40  # of the profile that people see; JSON has all


def bench(
    path: arguments.ModelOrPlan,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Length of the latency and of the throughput part.")
    ] = 3.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds run first, not counted.")] = 0.2,
    threads: arguments.Threads = 0,
    streams: Annotated[
        int, typer.Option(min=0, help="Contexts at once for throughput; 0: one a thread.")
    ] = 0,
    shape: arguments.Shapes = [],  # noqa: B006  # typer copies it
    profile: Annotated[bool, typer.Option("--profile", help="Also the time of each step.")] = False,
    level: arguments.Level = 3,
    isa: arguments.Isa = "",
    timing_cache: arguments.TimingCache = None,
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Measure a plan on random inputs. A model is built in memory first."""
    from planish.cli.files import is_plan
    from planish.cli.terminal import Terminal
    from planish.measure import bench_engine, parse_shapes, random_feeds
    from planish.plan.read import read_plan
    from planish.runtime import Engine

    terminal = Terminal(json, quiet)
    shapes = parse_shapes(shape)
    if is_plan(path):
        plan = read_plan(path)
    else:
        plan = _build(terminal, path, shapes, threads, level, isa, timing_cache)
    with Engine(plan, threads=threads) as engine:
        feeds = random_feeds(plan, _dims(plan, shapes))
        report = bench_engine(engine, feeds, seconds=seconds, warmup=warmup, streams=streams)
        steps = engine.profile(feeds) if profile else None
        tell_bench(terminal, str(path), plan, report)
        if steps is not None:
            tell_profile(terminal, steps)
        for warning in report.warnings:
            terminal.warn(warning)
        record = {"path": str(path), "inputs": {n: list(a.shape) for n, a in feeds.items()}}
        record |= bench_record(plan, report)
        if steps is not None:
            record["profile"] = asdict(steps)
        terminal.finish(record)


def _build(
    terminal: Terminal,
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    threads: int,
    level: int,
    isa: str,
    timing_cache: Path | None,
) -> Plan:
    """Build for exactly the shapes asked for, or for the assumed ranges."""
    from planish import pipeline

    profiles = {name: sizes if len(sizes) > 1 else sizes[0] for name, sizes in shapes.items()}
    with terminal.progress() as progress:
        return pipeline.build(
            path,
            threads=threads or None,
            profiles=profiles or None,
            level=level,
            isa=isa,
            timing_cache=timing_cache,
            progress=progress,
        )


def _dims(plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The dims to run at. Those that were fixed at the build are dims no more."""
    from planish.measure import dims_of

    inputs = {tensor.name for tensor in plan.inputs}
    if not plan.profiles:
        shapes = {name: sizes for name, sizes in shapes.items() if name in inputs}
    return dims_of(plan, shapes)


def bench_record(plan: Plan, report: BenchReport) -> dict[str, Any]:
    """A report as data."""
    return {
        "model": plan.name,
        "planish": plan.provenance.get("planish"),
        "target": {key: plan.target.get(key) for key in ("isa", "cpu", "machine")},
        "stable": report.latency.is_stable,
        **asdict(report),
    }


def tell_bench(terminal: Terminal, name: str, plan: Plan, report: BenchReport) -> None:
    """Print a report for people."""
    from planish.cli.terminal import size_text

    times = report.latency
    words = " ".join(str(plan.target.get(key, "")) for key in ("isa", "cpu"))
    terminal.say(f"{name}: {len(plan.steps)} steps for {words}, batch {report.batch}")
    terminal.table(
        f"Latency, ms (one stream of {report.threads} threads, {times.runs} runs)",
        ("first", "min", "mean", "median", "p90", "p95", "p99", "max"),
        [(report.first_ms, times.min, times.mean, times.median, times.p90, times.p95, times.p99,
          times.max)],
        ("first", "min", "mean", "median", "p90", "p95", "p99", "max"),
    )  # fmt: skip
    terminal.say(
        f"throughput: {report.throughput:,.1f} inferences/s, {report.per_second:,.1f} items/s "
        f"({report.streams} streams of {report.stream_threads} threads)"
    )
    memory = report.memory
    names = ("weights", "code", "arena", "scratch", "heap", "peak_rss")
    parts = [
        f"{n.replace('_rss', ' resident')} {size_text(memory[n])}" for n in names if n in memory
    ]
    terminal.say(f"memory: {', '.join(parts)}")
    if report.joules:
        terminal.say(f"energy: {1 / report.joules:,.1f} items a joule (whole CPU package)")


def tell_profile(terminal: Terminal, report: ProfileReport) -> None:
    """Print each step's time, slowest first."""
    total = sum(step.micros for step in report.steps) or 1.0
    rows = [
        (step.number, f"{step.kernel} {step.tactic}".strip(), step.micros,
         f"{step.micros / total:.1%}", step.name)
        for step in sorted(report.steps, key=lambda step: -step.micros)
    ]  # fmt: skip
    terminal.table(
        f"Steps, slowest first: {report.native:,.1f} us in steps, {report.total:,.1f} us a run",
        ("step", "kernel", "us", "share", "layer"),
        rows[:_STEP_ROWS],
        ("step", "us", "share"),
    )
    if len(rows) > _STEP_ROWS:
        terminal.say(f"and {len(rows) - _STEP_ROWS} more; --json has them all")
