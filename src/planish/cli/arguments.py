"""Options that several verbs share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    str,
    typer.Option(
        "--json",
        metavar="[FILE]",
        help="Write the report as JSON to FILE; to standard output without one.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]
Threads = Annotated[
    int,
    typer.Option("--threads", min=0, max=1024, help="Workers; 0: every core the process may use."),
]
Level = Annotated[
    int,
    typer.Option("--level", min=0, max=5, help="0: nothing is timed, to 5: every tactic is."),
]
Isa = Annotated[
    str, typer.Option("--isa", help="Cap on vector instructions: avx512, avx2, generic, neon.")
]
Profiles = Annotated[
    list[str],
    typer.Option(
        "--profile",
        help="Range of the dynamic shapes, NAME=MIN:OPT:MAX, "
        "e.g. data=1x3x224x224:8x3x224x224:32x3x224x224; may be repeated.",
        show_default=False,
    ),
]
Shapes = Annotated[
    list[str],
    typer.Option(
        "--shape",
        help="Shape to run at: data=8x3x224x224 (an input) or batch=8 (a dim); may be repeated.",
        show_default=False,
    ),
]
TimingCache = Annotated[
    Path | None,
    typer.Option("--timing-cache", help="File of measured times; the user's own by default."),
]
ModelOrPlan = Annotated[Path, typer.Argument(help="An ONNX model or a plan.", show_default=False)]
Model = Annotated[Path, typer.Argument(help="An ONNX model.", show_default=False)]
PlanFile = Annotated[Path, typer.Argument(help="A plan.", show_default=False)]
