"""Turns the figures of `peers.py` into ratios, geometric means and tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any

from rich.table import Table

OURS = "planish"
OURS_QUANTISED = ("planish", "planish-qdq")  # by its own calibration; the peers' quantised file
FLOAT_SELF = "planish-fp32"
RIVALS = ("onnxruntime", "openvino")  # the ratio is against the faster of these
TOLERANCE = 1e-3  # of an output, relative to its largest magnitude
LOSS_TOLERANCE = 3.0  # dB of signal to noise that an int8 result may lie below onnxruntime's
NOISE = 0.1  # share of the CPU time of a turn that others may take before we warn
# figure -> (key of the facts, higher is better)
FIGURES = {"latency": ("min_ms", False), "throughput": ("max_per_s", True)}


def ratio(entry: dict[str, Any], figure: str, name: str = OURS) -> float | None:
    """How many times as fast as the faster rival `name` is; None where one was not measured."""
    key, higher = FIGURES[figure]
    ours = _figure(entry, name, key)
    others = [_figure(entry, rival, key) for rival in RIVALS if rival != name]
    known = [value for value in others if value is not None]
    if ours is None or not known:
        return None
    return ours / max(known) if higher else min(known) / ours


def is_wrong(facts: dict[str, Any]) -> bool:
    """Whether a peer's outputs were compared and found off; None is beyond measure.

    In floats they are held against onnxruntime's. At int8 runtimes differ by whole quanta; there
    each is held against the float network's, and must be about as near as onnxruntime's.
    """
    error, loss = facts.get("error", 0.0), facts.get("lost_db", 0.0)
    return error is None or error > TOLERANCE or loss is None or loss > LOSS_TOLERANCE


def ours(entry: dict[str, Any]) -> list[str]:
    """The peers of an entry that are planish and count against the others."""
    return [name for name in OURS_QUANTISED if name in entry["peers"]]


def speed_up(entry: dict[str, Any], figure: str) -> float | None:
    """How many times as fast as in floats planish is; the file's figure where its own is none."""
    key, higher = FIGURES[figure]
    floats = _figure(entry, FLOAT_SELF, key)
    known = [value for name in ours(entry) if (value := _figure(entry, name, key)) is not None]
    if floats is None or not known:
        return None
    return known[0] / floats if higher else floats / known[0]


def _figure(entry: dict[str, Any], name: str, key: str) -> float | None:
    facts = entry["peers"].get(name, {})
    return None if is_wrong(facts) else facts.get(key)


def summary(models: dict[str, Any]) -> dict[str, Any]:
    """Geometric mean and worst model of every figure, for planish against the faster rival.

    The peers' quantised file has figures of its own: "latency, planish-qdq".
    """
    result = {}
    for name in OURS_QUANTISED:
        for figure in FIGURES:
            ratios = {model: ratio(entry, figure, name) for model, entry in models.items()}
            known = {model: value for model, value in ratios.items() if value is not None}
            if known:
                worst = min(known, key=lambda model: known[model])
                result[figure if name == OURS else f"{figure}, {name}"] = {
                    "geometric_mean": statistics.geometric_mean(known.values()),
                    "models": len(known),
                    "worst": worst,
                    "worst_ratio": known[worst],
                    "below_1": sorted(model for model, value in known.items() if value < 1.0),
                }
    return result


def wrong(models: dict[str, Any]) -> list[str]:
    """The models on which outputs of planish are off by more than the tolerance."""
    return [
        model
        for model, entry in models.items()
        if any(is_wrong(entry["peers"][name]) for name in ours(entry))
    ]


def line(name: str, entry: dict[str, Any]) -> str:
    """One model in one line, as it is measured."""
    parts = []
    for peer, facts in entry["peers"].items():
        if "min_ms" in facts:
            parts.append(f"{peer} {facts['min_ms']:.2f} ms")
        elif "max_per_s" in facts:
            parts.append(f"{peer} {facts['max_per_s']:.1f}/s")
    return f"{name}: {', '.join(parts) or 'nothing could be measured'}"


def tables(result: dict[str, Any]) -> Iterable[Table]:
    """A table a figure, and one of what could not be measured."""
    models = result["models"]
    peers = list(dict.fromkeys(peer for entry in models.values() for peer in entry["peers"]))
    for figure, (key, _) in FIGURES.items():
        if any(key in facts for entry in models.values() for facts in entry["peers"].values()):
            yield _table(result, figure, peers)
    troubles: dict[tuple[str, str], list[str]] = {}
    for name, entry in models.items():
        for peer, facts in entry["peers"].items():
            if reason := facts.get("failure") or _verdict(facts):
                troubles.setdefault((peer, reason), []).append(name)
    if troubles:
        table = Table("peer", "why", "models", title="not measured, or wrong")
        for (peer, reason), names in troubles.items():
            table.add_row(peer, reason, ", ".join(names))
        yield table


def _verdict(facts: dict[str, Any]) -> str:
    if not is_wrong(facts):
        return ""
    if (loss := facts.get("lost_db")) is not None:
        return f"signal to noise is {loss:.0f} dB below onnxruntime's"
    return f"outputs are off by {facts['error']:.1e}" if facts.get("error") else "no numbers"


def _table(result: dict[str, Any], figure: str, peers: list[str]) -> Table:
    models, options = result["models"], result["options"]
    unit, share = {
        "latency": (f"ms, batch {options['batch']}, {options['threads']} threads", "peak_share"),
        "throughput": (f"a second, {result['cores']} cores", "peak_share_all_cores"),
    }[figure]
    title = f"{figure} ({unit}): best [dim]median[/] of interleaved rounds, {options['precision']}"
    table = Table(title=title, caption=_caption(result))
    mine = [name for name in OURS_QUANTISED if name in peers] or [OURS]
    ratios = ["ratio" if name == OURS else f"ratio {name}" for name in mine]
    gains = ["x fp32"] if FLOAT_SELF in peers else []
    for heading in ("model", "GMAC", *peers, *ratios, *gains, "of peak"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for name, entry in models.items():
        table.add_row(
            name,
            f"{entry['macs'] / 1e9:.2f}",
            *(_cell(entry["peers"].get(peer, {}), figure) for peer in peers),
            *(_ratio_text(ratio(entry, figure, one)) for one in mine),
            *(_times_text(speed_up(entry, figure)) for _ in gains),
            _share_text(entry, share),
        )
    keys = [figure if name == OURS else f"{figure}, {name}" for name in mine]
    means = [result["summary"].get(key, {}).get("geometric_mean") for key in keys]
    if any(mean is not None for mean in means):
        gap = [""] * (len(peers) + 1)
        table.add_section()
        table.add_row("geometric mean", *gap, *map(_ratio_text, means), *gains and [""], "")
    return table


def _caption(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {text or '-'}" for name, text in result["versions"].items())
    keys = ("peak_gflops", "peak_gflops_all_cores")
    peak = max(entry.get(key, 0.0) for entry in result["models"].values() for key in keys)
    shares = [x for entry in result["models"].values() for x in entry.get("others_cpu", [])]
    known = [share for share in shares if share is not None]
    noise = ""
    if known and max(known) > NOISE:
        noise = (
            f"\n[red]unreliable: other processes took up to {max(known):.0%} of the CPU time "
            f"of a turn (median {statistics.median(known):.0%})[/]"
        )
    if result["options"]["precision"] == "int8":
        noise = f"\n{_signal_text(result)}{noise}"
    meaning = f"ratio: {OURS} against the faster of {' and '.join(RIVALS)}"
    return f"{meaning}; {result['cpu']}, peak {peak:.0f} G operations/s\n{versions}{noise}"


def _signal_text(result: dict[str, Any]) -> str:
    """The least signal to noise of each peer, against the float network."""
    worst: dict[str, float] = {}
    for entry in result["models"].values():
        for peer, facts in entry["peers"].items():
            if "sqnr_fp32_db" in facts:
                worst[peer] = min(worst.get(peer, math.inf), facts["sqnr_fp32_db"])
    told = ", ".join(f"{peer} {decibels:.0f}" for peer, decibels in worst.items())
    return f"least signal to noise of the outputs against FP32, dB: {told}"


def _cell(facts: dict[str, Any], figure: str) -> str:
    best, median, form = {
        "latency": ("min_ms", "median_ms", "{:.2f}"),
        "throughput": ("max_per_s", "median_per_s", "{:.1f}"),
    }[figure]
    if best not in facts:
        return "-"
    text = f"{form.format(facts[best])} [dim]{form.format(facts[median])}[/]"
    return f"[red]wrong[/] {text}" if _verdict(facts) else text


def _ratio_text(value: float | None) -> str:
    if value is None:
        return "-"
    colour = "green" if value >= 1.0 else "red"
    return f"[{colour}]{value:.2f}[/]"


def _times_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share_text(entry: dict[str, Any], key: str) -> str:
    """planish's share, or the best one of the others in brackets."""
    shares = {p: f[key] for p, f in entry["peers"].items() if key in f and not _verdict(f)}
    if not shares:
        return "-"
    for name in OURS_QUANTISED:
        if name in shares:
            return f"{shares[name]:.0%}"
    return f"[dim]({max(shares.values()):.0%})[/]"
