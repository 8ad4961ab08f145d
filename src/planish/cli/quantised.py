"""What the verbs share that deal with 8 bits: options, parsing, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

if TYPE_CHECKING:
    from planish.cli.terminal import Terminal
    from planish.pipeline.goal import LabelsOrMetric

Calibrate = Annotated[
    str,
    typer.Option(
        "--calibrate",
        metavar="DATA",
        help="Data to calibrate with: a folder of pictures, a .npy or .npz file (FILE.npz:NAME for "
        "one of its arrays), module:function, or a saved calibration.",
        show_default=False,
    ),
]
PreprocessSpec = Annotated[
    str,
    typer.Option(
        "--preprocess",
        metavar="SPEC",
        help='What is done to pictures first, such as "resize=256 crop=224 scale=1/255 '
        'mean=.485,.456,.406 std=.229,.224,.225 order=rgb layout=nchw".',
        show_default=False,
    ),
]
Observer = Annotated[
    list[str],
    typer.Option(
        "--observer",
        help="How ranges are found: auto, max, percentile, mse or entropy; PATTERN=NAME for some "
        "values or layers; may be repeated.",
        show_default=False,
    ),
]
LayerPrecision = Annotated[
    list[str],
    typer.Option(
        "--layer-precision",
        metavar="PATTERN=fp32|int8",
        help="Precision of layers, by name or pattern; may be repeated.",
        show_default=False,
    ),
]
LabelsOption = Annotated[
    str,
    typer.Option(
        "--labels",
        help='Right classes of the data: a text file with lines "file class", .npy, .npz; or '
        "module:function of a metric, called with a function that runs the network.",
        show_default=False,
    ),
]
FirstClass = Annotated[
    int, typer.Option("--first-class", min=0, help="Index of class 0 in the model's output.")
]
CalibrationCache = Annotated[
    Path | None,
    typer.Option(
        "--calibration-cache", help="File to read the calibration from, or else to write it to."
    ),
]


class Quantising(TypedDict):
    """Arguments of `pipeline.build` and its like that these options give."""

    preprocess: str | None
    observer: str | dict[str, str]
    layer_precisions: dict[str, str]
    calibration_cache: Path | None


def parse_quantising(
    preprocess: str, observer: list[str], layer_precision: list[str], cache: Path | None
) -> Quantising:
    """The options as arguments.

    Raises:
        BuildError: A text that should be PATTERN=VALUE has no "=".
    """
    return Quantising(
        preprocess=preprocess or None,
        observer=parse_observers(observer),
        layer_precisions=parse_pairs(layer_precision, "--layer-precision", "fp32|int8"),
        calibration_cache=cache,
    )


def parse_pairs(texts: list[str], option: str, expects: str) -> dict[str, str]:
    """PATTERN=VALUE as pairs, in order; the value begins behind the last "=".

    Raises:
        BuildError: A text has no "=".
    """
    from planish.base.errors import BuildError

    pairs = {}
    for text in texts:
        pattern, given, value = text.rpartition("=")
        if not given or not pattern.strip() or not value.strip():
            raise BuildError(
                f"{option} {text!r}: expected PATTERN={expects}",
                hint=f'write it like {option} "conv1*={expects.split("|")[0]}"',
            )
        pairs[pattern.strip()] = value.strip()
    return pairs


def parse_observers(texts: list[str]) -> str | dict[str, str]:
    """One observer for all values, or pattern -> observer."""
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    return parse_pairs([t if "=" in t else f"*={t}" for t in texts], "--observer", "max") or "auto"


def parse_labels(text: str, first_class: int) -> LabelsOrMetric:
    """Labels with the index of class 0, a metric, or None for an empty text."""
    from planish.pipeline.labels import open_labels

    if not text:
        return None
    if ":" in text and not Path(text).exists():
        return text
    return open_labels(text, first_class)


def tell_choice(terminal: Terminal, provenance: dict[str, Any]) -> None:
    """What precisions a plan has, and how that came about; nothing for a plan in floats alone."""
    quantised, choice = provenance.get("quantization"), provenance.get("choice")
    if choice is None:
        return
    if quantised is not None:
        layers = quantised["layers"]
        narrow = sum(row[2] == "int8" for row in layers)
        count = quantised["samples"]
        terminal.say(f"calibrated on {count} samples; {narrow} of {len(layers)} layers in int8")
    if choice["preprocess"]:
        terminal.say(f"pictures were preprocessed by: {choice['preprocess']}")
    if choice["tried"]:
        terminal.table(
            "Plans that were timed",
            ("plan", "us", "conversions", "their us"),
            [
                (t["what"], t["micros"], t.get("conversions"), t.get("conversion_micros"))
                for t in choice["tried"]
            ],
            ("us", "conversions", "their us"),
        )
    tell_guard(terminal, choice["guard"])
    if choice["kept"] == "fp32":
        terminal.warn(f"the plan is in fp32: {choice['why']}")
    elif choice["why"]:
        names = ", ".join(f"{name} ({why})" for name, why in choice["layers"])
        terminal.say(f"in fp32, since {choice['why']}: {names}")


_SCORED_ON = {
    "choosing": "simulation",
    "checking": "simulation, other samples",
    "plan": "the plan",
}


def tell_guard(terminal: Terminal, guard: dict[str, Any] | None) -> None:
    """The path of the accuracy guard."""
    if guard is None:
        return
    terminal.table(
        f"Accuracy guard: at most {guard['bound']:g} {guard['unit']}",
        ("layers in fp32", "drop", "inside", "us", "time", "scored on"),
        [
            (_layers_text(step["layers"]), step["drop"], "yes" if step["inside"] else "no",
             step["micros"] or None, step["time"] or None, _SCORED_ON[step["on"]])
            for step in guard["path"]
        ],
        ("drop", "us"),
    )  # fmt: skip
    chosen, stated = guard["samples"]
    error = "" if guard["error"] is None else f" (standard error {guard['error']:.2g})"
    terminal.say(f"the plan that is kept is worse by {guard['drop']:.3g} {guard['unit']}{error}")
    if guard["apart"]:
        terminal.say(f"layers were chosen on {chosen} samples, that is measured on {stated} others")
    elif stated:
        terminal.say(f"layers were chosen on the same {stated} samples that this is measured on")


def _layers_text(names: list[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(names[:3])
    return f"{len(names)}: {shown}{' …' if len(names) > 3 else ''}"


def tell_layers(terminal: Terminal, layers: list[list[Any]]) -> None:
    """The precision of each layer and why."""
    terminal.table(
        "Precisions",
        ("layer", "operator", "precision", "why"),
        [(name, op, precision, why) for name, op, precision, why, _ in layers],
    )
