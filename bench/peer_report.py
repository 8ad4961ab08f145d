"""Turns the figures of `peers.py` into ratios, geometric means and tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from rich.table import Table

OURS = "planish"
RIVALS = ("onnxruntime", "openvino")  # the ratio is against the faster of these
TOLERANCE = 1e-3  # of an output, relative to its largest magnitude
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
    """Whether a peer's outputs were compared and found off; an error of None is beyond measure."""
    error = facts.get("error", 0.0)
    return error is None or error > TOLERANCE


def _figure(entry: dict[str, Any], name: str, key: str) -> float | None:
    facts = entry["peers"].get(name, {})
    return None if is_wrong(facts) else facts.get(key)


def summary(models: dict[str, Any]) -> dict[str, Any]:
    """Geometric mean and worst model of every figure, for planish against the faster rival."""
    result = {}
    for figure in FIGURES:
        ratios = {name: ratio(entry, figure) for name, entry in models.items()}
        known = {name: value for name, value in ratios.items() if value is not None}
        if known:
            worst = min(known, key=lambda name: known[name])
            result[figure] = {
                "geometric_mean": statistics.geometric_mean(known.values()),
                "models": len(known),
                "worst": worst,
                "worst_ratio": known[worst],
                "below_1": sorted(name for name, value in known.items() if value < 1.0),
            }
    return result


def wrong(models: dict[str, Any]) -> list[str]:
    """The models on which outputs of planish are off by more than the tolerance."""
    return [name for name, entry in models.items() if is_wrong(entry["peers"].get(OURS, {}))]


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
    return f"outputs are off by {facts['error']:.1e}" if is_wrong(facts) else ""


def _table(result: dict[str, Any], figure: str, peers: list[str]) -> Table:
    models, options = result["models"], result["options"]
    unit, share = {
        "latency": (f"ms, batch {options['batch']}, {options['threads']} threads", "peak_share"),
        "throughput": (f"a second, {result['cores']} cores", "peak_share_all_cores"),
    }[figure]
    title = f"{figure} ({unit}): best [dim]median[/] of interleaved rounds, {options['precision']}"
    table = Table(title=title, caption=_caption(result))
    for heading in ("model", "GMAC", *peers, "ratio", "of peak"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for name, entry in models.items():
        cells = [_cell(entry["peers"].get(peer, {}), figure) for peer in peers]
        table.add_row(
            name,
            f"{entry['macs'] / 1e9:.2f}",
            *cells,
            _ratio_text(ratio(entry, figure)),
            _share_text(entry, share),
        )
    mean = result["summary"].get(figure)
    if mean:
        gap = [""] * (len(peers) + 1)
        table.add_section()
        table.add_row("geometric mean", *gap, _ratio_text(mean["geometric_mean"]), "")
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
    meaning = f"ratio: {OURS} against the faster of {' and '.join(RIVALS)}"
    return f"{meaning}; {result['cpu']}, FMA peak {peak:.0f} GFLOP/s\n{versions}{noise}"


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


def _share_text(entry: dict[str, Any], key: str) -> str:
    """planish's share, or the best one of the others in brackets."""
    shares = {p: f[key] for p, f in entry["peers"].items() if key in f and not _verdict(f)}
    if not shares:
        return "-"
    if OURS in shares:
        return f"{shares[OURS]:.0%}"
    return f"[dim]({max(shares.values()):.0%})[/]"
