"""planish explain: what becomes of a model, stage by stage and node by node, and by which pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli import arguments, quantised

if TYPE_CHECKING:
    from planish.cli.terminal import Terminal
    from planish.pipeline.explain import Explanation


def explain(
    model: arguments.Model,
    profile: arguments.Profiles = [],  # noqa: B006  # typer copies it
    node: Annotated[
        str, typer.Option("--node", help="Only the nodes whose name or operator holds this text.")
    ] = "",
    time: Annotated[
        bool,
        typer.Option(
            "--time", help="Run it with the kernels of level 0, and show what each layer takes."
        ),
    ] = False,
    layers: Annotated[bool, typer.Option(help="The table of layers.")] = True,
    nodes: Annotated[bool, typer.Option(help="What became of each node.")] = True,
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    calibrate: quantised.Calibrate = "",
    preprocess: quantised.PreprocessSpec = "",
    observer: quantised.Observer = [],  # noqa: B006  # as above
    layer_precision: quantised.LayerPrecision = [],  # noqa: B006  # as above
    calibration_cache: quantised.CalibrationCache = None,
    threads: arguments.Threads = 0,
    isa: arguments.Isa = "",
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Show the optimiser's stages, the fused layers, and what became of each node."""
    from planish import pipeline
    from planish.cli.terminal import Terminal
    from planish.pipeline.analyse import quantiser_for
    from planish.pipeline.explain import explain_build

    terminal = Terminal(json, quiet)
    graph = pipeline.read_graph(model)
    with terminal.progress() as progress:
        quantiser = quantiser_for(
            graph,
            precision,
            calibrate,
            **quantised.parse_quantising(preprocess, observer, layer_precision, calibration_cache),
            profiles=profile or None,
            threads=threads,
            isa=isa,
            progress=progress,
        )
        made = explain_build(graph, profile or None, threads, isa, quantiser, time, progress)
    record = {"model": str(model), **made.record()}
    terminal.say(f"{model}: {len(made.nodes)} nodes become {made.stages[-1].left} steps")
    terminal.table("Stages", ("stage", "left"), [(s.name, s.left) for s in made.stages], ("left",))
    if layers:
        tell_layers(terminal, record["layers"])
    if record["precisions"]:
        quantised.tell_layers(
            terminal, [[p["layer"], p["op"], p["precision"], p["why"], ""]
                       for p in record["precisions"]]
        )  # fmt: skip
    if precision != "fp32" or record["conversions"]:
        _tell_conversions(terminal, made)
    if nodes:
        _tell_nodes(terminal, record["nodes"], node)
    _tell_missed(terminal, record["missed"], node)
    host = [row for row in record["layers"] if row["host"]]
    terminal.warn_host([f"{r['ops']} ({r['name']}): {r['host']}" for r in host])
    terminal.finish(record)


def tell_layers(terminal: Terminal, rows: list[dict[str, Any]]) -> None:
    """The table of fused layers; with microseconds where they were timed."""
    timed = any(row["micros"] is not None for row in rows)
    terminal.table(
        "Layers",
        ("layer", "kind", "operators", "how", *(["us"] if timed else []), "ONNX nodes"),
        [
            (n, r["kind"], r["ops"], r["how"], *([f"{r['micros']:.1f}"] if timed else []),
             ", ".join(r["origin"]))
            for n, r in enumerate(rows)
        ],
        ("layer", "us"),
    )  # fmt: skip


def _tell_conversions(terminal: Terminal, made: Explanation) -> None:
    """The steps that only convert, and what they take of a run."""
    rows, whole = made.conversions, made.micros
    told = f"{len(rows)} steps only convert between floats and 8 bits"
    if whole is not None:
        told += f": {sum(row.micros or 0.0 for row in rows):.1f} us of {whole:.1f}"
    terminal.say(told)
    for row in rows:
        micros = "" if row.micros is None else f", {row.micros:.1f} us"
        terminal.say(f"    {row.what}: {row.step}{micros}")


def _tell_nodes(terminal: Terminal, rows: list[dict[str, Any]], wanted: str) -> None:
    terminal.say("Nodes", style="bold")
    for row in rows:
        if wanted and wanted not in row["name"] and wanted != row["op"]:
            continue
        terminal.say(f"{row['op']} {row['name']}: {row['fate']}")
        for event in row["history"]:
            terminal.say(f"    {event['pass']}: {event['note']}")


def _tell_missed(terminal: Terminal, rows: list[dict[str, Any]], wanted: str) -> None:
    rows = [row for row in rows if wanted in row["what"]]
    if not rows:
        return
    terminal.say()
    terminal.say("Not done, though one might expect it", style="bold")
    for row in rows:
        terminal.say(f"    {row['what']}: {row['why']}")
