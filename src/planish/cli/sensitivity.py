"""planish sensitivity: what 8 bits do to each layer of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planish.cli import arguments, quantised

if TYPE_CHECKING:
    from planish.cli.terminal import Terminal
    from planish.pipeline.sensitivity import Sensitivity


def sensitivity(
    model: arguments.Model,
    calibrate: quantised.Calibrate,
    preprocess: quantised.PreprocessSpec = "",
    labels: quantised.LabelsOption = "",
    first_class: quantised.FirstClass = 0,
    observer: quantised.Observer = [],  # noqa: B006  # typer copies it
    layer_precision: quantised.LayerPrecision = [],  # noqa: B006  # as above
    calibration_cache: quantised.CalibrationCache = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples that ratios are taken on.")] = 16,
    plot: Annotated[Path | None, typer.Option("--plot", help="File for a picture, SVG.")] = None,
    level: Annotated[
        int,
        typer.Option(min=0, max=5, help="Above 0: build and time plans, for the time saved."),
    ] = 0,
    profile: arguments.Profiles = [],  # noqa: B006  # as above
    threads: arguments.Threads = 0,
    isa: arguments.Isa = "",
    timing_cache: arguments.TimingCache = None,
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Show for each layer the noise of 8 bits, what they cost the outputs and what they save."""
    from planish.cli.terminal import Terminal
    from planish.pipeline.analyse import analyse_model

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        found = analyse_model(
            model,
            calibrate,
            **quantised.parse_quantising(preprocess, observer, layer_precision, calibration_cache),
            labels=quantised.parse_labels(labels, first_class),
            samples=samples,
            profiles=profile or None,
            threads=threads or None,
            level=level,
            isa=isa,
            timing_cache=timing_cache,
            progress=progress,
        )
    _tell(terminal, model, found)
    if plot is not None:
        _write_plot(plot, found, model.name)
        terminal.say(f"wrote {plot}")
    terminal.finish({"model": str(model), **found.record()})


def _tell(terminal: Terminal, model: Path, found: Sensitivity) -> None:
    scored = found.drop is not None
    timed = any(row.saved is not None for row in found.layers)
    columns = ["layer", "operator", "alone dB", "input dB", "weights dB", "saturated", "underflow"]
    columns += ["drop"] * scored + ["saves us"] * timed
    rows = [
        (row.name, row.op, row.output_sqnr, row.noise.input_sqnr, row.noise.weight_sqnr,
         f"{row.noise.saturated:.2%}", f"{row.noise.underflown:.2%}",
         *([row.drop] * scored), *([row.saved] * timed))
        for row in found.layers
    ]  # fmt: skip
    terminal.table(
        f"{model}: layers in int8, most harmful first ({found.samples} samples)",
        columns, rows, columns[2:],
    )  # fmt: skip
    whole = f"all of them in int8: {found.output_sqnr:.1f} dB of signal to noise in the outputs"
    if found.drop is not None:
        whole += f", {found.drop:.3g} {found.unit} lost"
    terminal.say(whole)
    for name, op, why in found.others:
        terminal.say(f"in fp32: {name} ({op}): {why}")


def _write_plot(path: Path, found: Sensitivity, title: str) -> None:
    """Write the picture.

    Raises:
        PlanishError: The system refuses.
    """
    from planish.base.errors import PlanishError
    from planish.measure.sensitivity_plot import sensitivity_svg

    try:
        path.write_text(sensitivity_svg(found, title), encoding="utf-8")
    except OSError as error:
        raise PlanishError(f"cannot write {path}: {error.strerror}") from error
