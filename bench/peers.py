"""Compares planish with onnxruntime, OpenVINO, ncnn and torch.compile on the zoo's models.

    python bench/peers.py                                   everything
    python bench/peers.py --models 'light_*' --rounds 9     some models, more rounds

Latency is batch 1 with --threads threads; throughput keeps all cores busy in each peer's best usual
setup. Rounds are interleaved: in each round every peer has one turn. README.md says more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peer_report
import zoo
import zoo_quantised
from macs import count_macs
from peer_adapters import PEERS, Arrays, Job, installed_version
from peer_errors import relative_error, signal_to_noise
from peer_rounds import PEAK, Child, CpuClock, children, turns

RESULTS = Path(__file__).resolve().parent / "results"
REFERENCE = "onnxruntime"
FLOAT_SELF = "planish-fp32"  # planish in floats, beside the quantised ones
CHECK_SEEDS = (1, 2, 3)
PEAK_SECONDS = 0.05
PLAIN_WIDTH = 160  # columns where the output is no terminal
FIGURES = ("latency", "throughput")


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """The CPU as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def measure(model: zoo.ZooModel, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model: the JSON entry of it."""
    batched = zoo.with_batch(model, options.batch, options.dir)
    feeds = zoo.random_inputs(batched, options.batch)
    job = Job(
        name=model.name,
        batch=options.batch,
        path=batched.path,
        feeds=feeds,
        threads=options.threads,
        cores=usable_cores(),
        precision=options.precision,
        folder=options.dir,
        qdq=_quantised_file(model, options),
        calibration=options.calibration,
    )
    entry: dict[str, Any] = {"macs": count_macs(batched.path, feeds), "peers": {}}
    with children([PEAK, *names], options.dir) as group:
        for child in group:
            child.facts["prepare_s"] = child.ask("load", job)
        _compare(group, batched, options)
        if options.precision == "int8":
            _compare_quantised(group, batched, options)
        if "latency" in options.figures:
            _latency(group, entry, options)
        if "throughput" in options.figures:
            _throughput(group, entry, options)
        for child in group[1:]:
            failed = {"failure": child.failure} if child.failure else {}
            entry["peers"][child.name] = {**child.facts, **failed}
    return entry


def _quantised_file(model: zoo.ZooModel, options: argparse.Namespace) -> Path | None:
    if options.precision != "int8":
        return None
    made = zoo_quantised.quantised(model, folder=options.dir)
    return zoo.with_batch(made, options.batch, options.dir).path


def _compare(group: list[Child], model: zoo.ZooModel, options: argparse.Namespace) -> None:
    reference = next((child for child in group if child.name == REFERENCE), None)
    if reference is None or options.precision == "int8":
        return
    for seed in CHECK_SEEDS:
        feeds = zoo.random_inputs(model, options.batch, seed)
        expected = reference.ask("outputs", feeds)
        if expected is None:
            return
        for child in group[1:]:
            found = child.ask("outputs", feeds)
            if found is not None and child is not reference:
                error = relative_error(found, expected)
                child.facts["error"] = max(error, child.facts.get("error", 0.0))
                if not math.isfinite(error):
                    child.facts["error"] = None
                    child.failure = "outputs have other shapes, or are not finite"


def _compare_quantised(
    group: list[Child], model: zoo.ZooModel, options: argparse.Namespace
) -> None:
    """Signal to noise of each peer's outputs, against the float network's and onnxruntime's."""
    inputs = zoo_quantised.check_feeds(model, options.batch, len(CHECK_SEEDS))
    floats = float_outputs(model.path, inputs)
    outputs: dict[str, list[Arrays]] = {}
    for child in group[1:]:
        found = [child.ask("outputs", feeds) for feeds in inputs]
        if all(one is not None for one in found):
            outputs[child.name] = found
            child.facts["sqnr_fp32_db"] = signal_to_noise(found, floats)
    for child in group[1:]:
        if child.name not in outputs or REFERENCE not in outputs:
            continue
        reference = next(other for other in group if other.name == REFERENCE)
        loss = reference.facts["sqnr_fp32_db"] - child.facts["sqnr_fp32_db"]
        child.facts["lost_db"] = loss if math.isfinite(loss) else None
        if child is not reference:
            found, expected = outputs[child.name], outputs[REFERENCE]
            child.facts["sqnr_ort_db"] = signal_to_noise(found, expected)
        if not math.isfinite(loss):
            child.failure = "outputs have other shapes, or are not finite"


def float_outputs(path: Path, inputs: list[Arrays]) -> list[Arrays]:
    """What onnxruntime makes of the inputs in floats. Its threads end with it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, feeds), strict=True)) for feeds in inputs]


def _latency(group: list[Child], entry: dict[str, Any], options: argparse.Namespace) -> None:
    for child in _peer_turns(group, entry, "peak_gflops", options.threads, options):
        if times := child.ask("latency", options.seconds):
            child.facts.setdefault("round_min_ms", []).append(min(times))
            child.facts.setdefault("round_median_ms", []).append(statistics.median(times))
    for child in group:
        if "round_min_ms" in child.facts:
            child.facts["min_ms"] = min(child.facts["round_min_ms"])
            child.facts["median_ms"] = statistics.median(child.facts["round_median_ms"])


def _throughput(group: list[Child], entry: dict[str, Any], options: argparse.Namespace) -> None:
    for child in group:
        child.facts["streams"] = child.ask("prepare_streams")
    for child in _peer_turns(group, entry, "peak_gflops_all_cores", usable_cores(), options):
        if rate := child.ask("throughput", options.seconds):
            child.facts.setdefault("round_per_s", []).append(rate * options.batch)
    for child in group:
        if "round_per_s" in child.facts:
            child.facts["max_per_s"] = max(child.facts["round_per_s"])
            child.facts["median_per_s"] = statistics.median(child.facts["round_per_s"])


def _peer_turns(
    group: list[Child], entry: dict[str, Any], peak: str, threads: int, options: argparse.Namespace
) -> Iterator[Child]:
    """The peers in turns. In between, the FMA peak of so many threads is measured, into
    `entry[peak]`; during each peer's turn, what others take of the CPU, into its "others_cpu".
    """
    ceiling: list[float] = []
    for child in turns(group, options.rounds, options.patience):
        if child.name == PEAK:
            ceiling.append(child.ask("peak", threads, PEAK_SECONDS) or 0.0)
            continue
        clock = CpuClock(child)
        yield child
        entry.setdefault("others_cpu", []).append(clock.others_share())
    entry[peak] = max(ceiling, default=0.0)


def add_shares(models: dict[str, Any], batch: int) -> None:
    """Share of the measured FMA peak: an FMA is two operations, a MAC one FMA.

    The peak is the best of the whole run: it is the machine's, and a disturbed turn lowers it.
    """
    peak = max((entry.get("peak_gflops", 0.0) for entry in models.values()), default=0.0)
    wide = max((entry.get("peak_gflops_all_cores", 0.0) for entry in models.values()), default=0.0)
    for entry in models.values():
        gflop = 2 * entry["macs"] / 1e9
        for facts in entry["peers"].values():
            if peak and "min_ms" in facts:
                facts["peak_share"] = gflop / (facts["min_ms"] / 1e3) / peak
            if wide and "max_per_s" in facts:
                facts["peak_share_all_cores"] = gflop * facts["max_per_s"] / batch / wide


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare planish with its peers.")
    add = parser.add_argument
    add("--models", nargs="+", metavar="NAME", help="models or globs; all of the zoo by default")
    add("--peers", nargs="+", choices=list(PEERS), help="all that know the precision by default")
    add("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    add("--rounds", type=int, default=5, help="turns of each peer (default 5)")
    add("--seconds", type=float, default=0.5, help="length of a turn (default 0.5)")
    add("--patience", type=float, default=0.0, help="seconds to wait for quiet cores before a turn")
    add("--threads", type=int, default=2, help="threads for latency (default 2)")
    add("--batch", type=int, default=1)
    add("--precision", choices=["fp32", "int8"], default="fp32")
    add("--with-fp32", action="store_true", help="int8: planish in floats too, and the speed-up")
    add("--calibration", type=int, default=32, help="int8: samples for planish's own calibration")
    add("--json", type=Path, help="where to write; default: bench/results/<time>.json")
    add("--dir", type=Path, default=zoo.default_dir(), help="the zoo's cache folder")
    options = parser.parse_args(arguments)
    if options.peers is None:
        options.peers = [
            name
            for name, peer in PEERS.items()
            if options.precision in peer.precisions and (options.with_fp32 or name != FLOAT_SELF)
        ]
    return options


def chosen(options: argparse.Namespace) -> list[str] | None:
    """The names of the models; None for all of the zoo.

    Raises:
        KeyError: A name that fits no model of the precision.
    """
    if options.precision != "int8":
        return options.models
    return zoo_quantised.select(options.models)


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes; 1 where an output of planish is wrong."""
    from rich.console import Console

    options = parse(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    versions = {name: installed_version(name) for name in options.peers}
    names = [
        name
        for name, version in versions.items()
        if version and options.precision in PEERS[name].precisions
    ]
    if REFERENCE not in names:
        console.print(f"[yellow]outputs are not checked: {REFERENCE} is not among the peers[/]")
    result: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "versions": versions,
        "options": {key: str(value) for key, value in vars(options).items()},
        "models": {},
    }
    target = options.json or RESULTS / f"peers-{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    for model in zoo.models(chosen(options), options.dir, progress=console.print):
        with console.status(f"{model.name} ..."):
            result["models"][model.name] = measure(model, names, options)
        target.write_text(json.dumps(result, indent=1))  # what is measured is kept, come what may
        console.print(peer_report.line(model.name, result["models"][model.name]))
    add_shares(result["models"], options.batch)
    result["summary"] = peer_report.summary(result["models"])
    target.write_text(json.dumps(result, indent=1))
    for table in peer_report.tables(result):
        console.print(table)
    console.print(f"written: {target}")
    return 1 if peer_report.wrong(result["models"]) else 0


if __name__ == "__main__":
    sys.exit(main())
