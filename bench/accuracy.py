"""Scores the trained networks on labelled data, in floats and quantised: what INT8 costs.

    python bench/accuracy.py                        FP32 and INT8 by each observer, all data
    python bench/accuracy.py --variants fp32        floats alone, against the known figures
    python bench/accuracy.py --per-tensor --models mobilenetv2_1.0_224
    python bench/accuracy.py --limit 100 --calibration 50      a quick look

Models and data are read at ../shared; without it there is nothing to score, and it says so. Every
variant sees the same pictures, none of which calibration has seen, and each is compared with FP32
picture by picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from accuracy_variants import (
    DEFAULT,
    FLOATS,
    PER_TENSOR,
    RIVAL,
    VARIANTS,
    Scorer,
    Setup,
    scored,
)
from zoo_data import DATA, DATASETS

TOLERANCE = 0.3  # points of top-1 that FP32 may lie off the known figure
DROP_LIMIT = 0.3  # points of top-1 that the defaults may lose
RIVAL_LIMIT = 0.2  # points that they may lie below onnxruntime's static quantiser
PER_TENSOR_FLOORS = {"mobilenetv2_1.0_224": 75.0}  # percent, with one scale for a layer's weights
FIVE = 5
PLAIN_WIDTH = 120  # columns where the output is no terminal


@dataclass(frozen=True)
class Case:
    """A model and what is known to come out in floats."""

    model: str
    count: int  # of pictures that `top1` was taken on: the first so many; 0 is all
    top1: float  # percent
    first_class: int = 0  # index of class 0 in the output


CASES = (
    Case("squeezenet1.1", 200, 69.5),
    Case("mobilenetv2_1.0_224", 200, 77.0, 1),
    Case("mobilenet_v1_1.0_224", 200, 73.5, 1),
    Case("resnet20_cifar10", 1000, 81.3),
    Case("resnet56_cifar10", 1000, 83.4),
    Case("lenet_mnist", 0, 98.95),
    Case("kwt1_mfcc", 0, 98.0),
)


@dataclass(frozen=True)
class Score:
    """How one variant did.

    Attributes:
        count: Pictures.
        top1, top5: How often the right class came first, or among the first five; percent.
        changed: Pictures whose first class is another than in floats.
        drop: Points of top-1 lost against floats.
        seconds: Of calibration; None where there was none.
        failure: Why there is no score, or "".
    """

    count: int = 0
    top1: float = 0.0
    top5: float = 0.0
    changed: int = 0
    drop: float = 0.0
    seconds: float | None = None
    failure: str = ""


def best_classes(run: Scorer, inputs: np.ndarray, first_class: int) -> np.ndarray:
    """The five likeliest classes of each input, likeliest first."""
    rows = [np.argsort(-run(one), kind="stable")[:FIVE] - first_class for one in inputs]
    return np.stack(rows)


def score(
    best: np.ndarray, labels: np.ndarray, floats: np.ndarray, seconds: float | None = None
) -> Score:
    """Counts the right answers among `best`, and those that are not what floats gave."""
    right = best[:, 0] == labels
    top1, top5 = 100 * right.mean(), 100 * (best == labels[:, None]).any(axis=1).mean()
    drop = 100 * (floats[:, 0] == labels).mean() - top1
    changed = int((best[:, 0] != floats[:, 0]).sum())
    return Score(len(labels), float(top1), float(top5), changed, float(drop), seconds)


def complaints(model: str, scores: dict[str, Score]) -> list[str]:
    """What falls short of the bounds, in words."""
    found = [f"{name}: {one.failure}" for name, one in scores.items() if one.failure]
    fine = {name: one for name, one in scores.items() if not one.failure}
    default, rival, coarse = (fine.get(name) for name in (DEFAULT, RIVAL, PER_TENSOR))
    if default and default.drop > DROP_LIMIT:
        found.append(f"{DEFAULT} loses {default.drop:.2f} points, more than {DROP_LIMIT}")
    if default and rival and rival.top1 - default.top1 > RIVAL_LIMIT:
        gap = rival.top1 - default.top1
        found.append(f"{DEFAULT} is {gap:.2f} points below {RIVAL}, more than {RIVAL_LIMIT}")
    floor = PER_TENSOR_FLOORS.get(model)
    if coarse and floor and coarse.top1 < floor:
        found.append(f"{PER_TENSOR} gets {coarse.top1:.2f} %, less than {floor}")
    return [f"{model}: {text}" for text in found]


def known_figure(case: Case, floats: np.ndarray, labels: np.ndarray) -> list[str]:
    """A complaint where FP32 is off the known figure; [] where too few were scored to tell."""
    count = case.count or len(labels)
    if len(floats) < count:
        return []
    top1 = 100 * float((floats[:count, 0] == labels[:count]).mean())
    # The known figures are given to one decimal.
    if abs(top1 - case.top1) <= TOLERANCE + 0.05:
        return []
    return [f"{case.model}: {FLOATS} gets {top1:.2f} % of the first {count}, known: {case.top1}"]


def measure(case: Case, names: Iterable[str], options: argparse.Namespace) -> dict[str, Any]:
    """All scores of one network, and the complaints."""
    (model,) = zoo.models([case.model])
    setup = Setup(model, options.threads, options.calibration)
    inputs, labels = scored(case.model)
    seen = DATASETS[case.model].seen
    if options.limit:
        inputs, labels = inputs[: seen + options.limit], labels[: seen + options.limit]
    floats = best_classes(VARIANTS[FLOATS].prepare(setup).run, inputs, case.first_class)
    found = [] if options.limit else known_figure(case, floats, labels)
    scores = {FLOATS: score(floats[seen:], labels[seen:], floats[seen:])}
    for name in names:
        if name == FLOATS:
            continue
        try:
            ready = VARIANTS[name].prepare(setup)
            best = best_classes(ready.run, inputs[seen:], case.first_class)
        except Exception as error:  # whatever a variant raises becomes its row's entry
            lines = str(error).strip().splitlines() or [""]
            scores[name] = Score(failure=f"{type(error).__name__}: {lines[0]}")
            continue
        scores[name] = score(best, labels[seen:], floats[seen:], ready.seconds)
    return {"scores": scores, "complaints": found + complaints(case.model, scores)}


def main(arguments: list[str] | None = None) -> int:
    """Scores and prints; 1 where something falls short of the bounds."""
    from rich.console import Console
    from rich.table import Table

    options = parse(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    if not DATA.is_dir():
        console.print(f"nothing to score: {DATA} does not exist")
        return 0
    table = Table(title=f"trained networks, {options.threads} threads; drop: points of top-1")
    for heading in (
        "model",
        "variant",
        "pictures",
        "top-1",
        "top-5",
        "changed",
        "drop",
        "calib. s",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "variant") else "right")
    results: dict[str, dict[str, Any]] = {}
    for case in CASES:
        if options.models and case.model not in options.models:
            continue
        with console.status(f"{case.model} ..."):
            results[case.model] = measure(case, options.variants, options)
        for name, one in results[case.model]["scores"].items():
            table.add_row(case.model, name, *_cells(one))
        table.add_section()
    console.print(table)
    troubles = [text for entry in results.values() for text in entry["complaints"]]
    for text in troubles:
        console.print(f"[red]{text}[/]", highlight=False)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        plain = {
            model: {
                "scores": {name: asdict(one) for name, one in entry["scores"].items()},
                "complaints": entry["complaints"],
            }
            for model, entry in results.items()
        }
        options.json.write_text(json.dumps(plain, indent=1))
    return 1 if troubles else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Score the trained networks on labelled data.")
    add = parser.add_argument
    add("--models", nargs="+", choices=[case.model for case in CASES], metavar="MODEL")
    add("--variants", nargs="+", choices=list(VARIANTS), help="all but per tensor by default")
    add("--per-tensor", action="store_true", help="weights with one scale a layer, too")
    add("--limit", type=int, default=0, help="pictures to score a model; 0: all")
    add("--calibration", type=int, help="samples to calibrate on; all there are by default")
    add("--threads", type=int, default=2)
    add("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.variants is None:
        options.variants = [
            name
            for name, row in VARIANTS.items()
            if name != "onnxruntime-fp32" and (options.per_tensor or not row.per_tensor)
        ]
    return options


def _cells(one: Score) -> list[str]:
    if one.failure:
        return ["-", "-", "-", "-", "-", "-"]
    colour = "green" if one.drop <= DROP_LIMIT else "red"
    return [
        f"{one.count}",
        f"{one.top1:.2f}",
        f"{one.top5:.2f}",
        f"{one.changed}",
        f"[{colour}]{one.drop:+.2f}[/]",
        "-" if one.seconds is None else f"{one.seconds:.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
