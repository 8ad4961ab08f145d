"""planish compare: a model's results held against another runtime's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli import arguments

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from planish.cli.terminal import Terminal
    from planish.measure import Comparison
    from planish.plan import Plan


def compare(
    model: arguments.Model,
    input: Annotated[
        list[str],
        typer.Option("--input", "-i", help="NAME=FILE.npy or FILE.npz; random inputs without any.",
                     show_default=False),
    ] = [],  # noqa: B006  # typer copies it
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Compare this plan; else one is built.")
    ] = None,
    per_layer: Annotated[
        bool,
        typer.Option("--per-layer", help="Also every tensor inside. Less is fused in that build."),
    ] = False,
    against: Annotated[
        str, typer.Option(help="onnxruntime or reference; the first that is installed.")
    ] = "",
    rtol: Annotated[
        float, typer.Option(min=0.0, help="Allowed difference, of the largest magnitude.")
    ] = 1e-3,
    atol: Annotated[float, typer.Option(min=0.0, help="Allowed difference besides.")] = 0.0,
    runs: Annotated[int, typer.Option(min=1, help="Random inputs to compare on.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    shape: arguments.Shapes = [],  # noqa: B006  # as above
    threads: arguments.Threads = 0,
    level: arguments.Level = 0,
    isa: arguments.Isa = "",
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:  # fmt: skip
    """Compare each output with another runtime's; the exit code is 1 where one is off."""
    from planish import pipeline
    from planish.cli.terminal import Terminal
    from planish.measure.reference import pick_runtime, with_inner_outputs
    from planish.plan.read import read_plan

    terminal = Terminal(json, quiet)
    runtime = pick_runtime(against)
    source: onnx.ModelProto | str = str(model)
    inner: list[str] = []
    if per_layer:
        source, inner = with_inner_outputs(_read(model))
    if plan is not None and not per_layer:
        made = read_plan(plan)
    else:
        with terminal.progress() as progress:
            made = pipeline.build(
                source, threads=threads or None, level=level, isa=isa, progress=progress
            )
    results = _results(terminal, made, source, runtime, input, shape, runs, seed, (rtol, atol))
    merged = _worst_of(results)
    failed = [row for row in merged if not row.passed]
    _tell(terminal, model, runtime, merged, inner, len(results))
    terminal.finish(
        {
            "model": str(model),
            "against": runtime,
            "runs": len(results),
            "rtol": rtol,
            "atol": atol,
            "passed": not failed,
            "outputs": [asdict(row) | {"inner": row.name in inner} for row in merged],
        }
    )
    if failed:
        raise typer.Exit(1)


def _read(path: Path) -> onnx.ModelProto:
    """The model with its external data.

    Raises:
        ModelError: The file is no model.
    """
    import onnx

    from planish.base.errors import ModelError

    try:
        return onnx.load(str(path))
    except Exception as error:  # what onnx and protobuf raise
        raise ModelError(f"cannot read {path}: {error}") from error


def _results(
    terminal: Terminal,
    plan: Plan,
    source: onnx.ModelProto | str,
    runtime: str,
    files: list[str],
    shapes: list[str],
    runs: int,
    seed: int,
    tolerance: tuple[float, float],
) -> list[list[Comparison]]:
    from planish.cli.files import read_arrays
    from planish.measure import compare_outputs, dims_of, parse_shapes, random_feeds
    from planish.measure.reference import run_reference
    from planish.runtime import Engine

    only = plan.inputs[0].name if len(plan.inputs) == 1 else ""
    dims = dims_of(plan, parse_shapes(shapes))
    if files:
        feeds: list[Mapping[str, np.ndarray]] = [read_arrays(files, only)]
    else:
        terminal.note("no --input given: the inputs are random numbers")
        feeds = [random_feeds(plan, dims, seed=seed + n) for n in range(runs)]
    results = []
    with Engine(plan) as engine:
        for one in feeds:
            found = engine.run(one)
            expected = run_reference(source, one, runtime)
            results.append(compare_outputs(found, expected, *tolerance))
    return results


def _worst_of(results: list[list[Comparison]]) -> list[Comparison]:
    """For each output the run in which it was worst."""
    return [
        min(rows, key=lambda row: (row.passed, -row.relative))
        for rows in zip(*results, strict=True)
    ]


def _tell(
    terminal: Terminal,
    model: Path,
    runtime: str,
    rows: list[Comparison],
    inner: list[str],
    runs: int,
) -> None:
    terminal.table(
        f"{model} against {runtime}, {runs} inputs",
        ("output", "shape", "worst", "relative", "mean", "cosine", ""),
        [_row(row, "inside " if row.name in inner else "") for row in rows],
        ("worst", "relative", "mean", "cosine"),
    )
    failed = [row for row in rows if not row.passed]
    for row in failed:
        terminal.warn(f"{row.name}: {row.why}")
    first = next((row for row in rows if row.name in inner and not row.passed), None)
    if first is not None:
        terminal.say(f"the first tensor that is off, in the model's order: {first.name}")
    terminal.say(f"{len(rows) - len(failed)} of {len(rows)} within the tolerance")


def _row(row: Comparison, mark: str) -> tuple[Any, ...]:
    shape = "x".join(map(str, row.shape)) or "scalar"
    verdict = "ok" if row.passed else "OFF"
    figures = (f"{row.worst:.2e}", f"{row.relative:.2e}", f"{row.mean:.2e}", f"{row.cosine:.7f}")
    return f"{mark}{row.name}", shape, *figures, verdict
