"""The table of verbs."""

from __future__ import annotations

from collections.abc import Callable

import typer

from planish.cli.bench import bench
from planish.cli.build import build
from planish.cli.cache import app as cache
from planish.cli.compare import compare
from planish.cli.demo import demo
from planish.cli.doctor import doctor
from planish.cli.explain import explain
from planish.cli.inspect import inspect
from planish.cli.run import run
from planish.cli.sensitivity import sensitivity

VERBS: tuple[Callable[..., None], ...] = (
    build,
    run,
    bench,
    inspect,
    explain,
    compare,
    sensitivity,
    demo,
    doctor,
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


for _verb in VERBS:
    app.command(_verb.__name__)(_verb)
app.add_typer(cache, name="cache")
