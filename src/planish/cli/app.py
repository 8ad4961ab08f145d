"""The table of verbs."""

from __future__ import annotations

from collections.abc import Callable

import typer

from planish.cli import bench, build, cache, compare, demo, doctor, explain, inspect, run

VERBS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("build", build.build),
    ("run", run.run),
    ("bench", bench.bench),
    ("inspect", inspect.inspect),
    ("explain", explain.explain),
    ("compare", compare.compare),
    ("demo", demo.demo),
    ("doctor", doctor.doctor),
)

app = typer.Typer(
    name="planish",
    help="An ONNX file becomes a plan, fused, tuned and planned in memory for this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from planish import __version__

        typer.echo(f"planish {__version__}")
        raise typer.Exit()


for _name, _verb in VERBS:
    app.command(_name)(_verb)
app.add_typer(cache.app, name="cache")
