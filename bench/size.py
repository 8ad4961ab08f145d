"""Sizes of plans in floats and at int8: the file, its weights, the arena of activations.

    python bench/size.py                              ResNet-50
    python bench/size.py --models 'light_*' kwt1_mfcc

Of the quantised plans one comes of planish's own calibration, one of the peers' quantised file.
Plans are built at level 0: which tactic a layer gets changes the packing of its weights by some
padding, and the arena by scratch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import planish
import zoo
import zoo_quantised

MB = 1e6
CALIBRATION = 8  # samples: sizes do not depend on them
# Model -> (largest plan file at int8 in MB, largest arena as a share of that in floats).
BOUNDS = {"light_resnet50": (27.0, 0.3)}


@dataclass(frozen=True)
class Size:
    """Bytes of one plan."""

    file: int
    weights: int
    arena: int


def floats(model: zoo.ZooModel, threads: int) -> planish.Plan:
    """The plan in floats."""
    return planish.build(zoo.with_batch(model, 1).path, threads=threads, level=0)


def calibrated(model: zoo.ZooModel, threads: int) -> planish.Plan:
    """The plan that planish quantises itself."""
    path = zoo.with_batch(model, 1).path
    samples = list(zoo_quantised.calibration_feeds(model, CALIBRATION))
    return planish.build(path, threads=threads, level=0, precision="int8", calibration=samples)


def from_file(model: zoo.ZooModel, threads: int) -> planish.Plan:
    """The plan of the quantised file."""
    single = zoo.with_batch(zoo_quantised.quantised(model), 1)
    return planish.build(single.path, threads=threads, level=0)


FLOATS = "fp32"
SETUPS: dict[str, Callable[[zoo.ZooModel, int], planish.Plan]] = {
    FLOATS: floats,
    "int8": calibrated,
    "int8, qdq file": from_file,
}


def size_of(plan: planish.Plan) -> Size:
    """Its sizes; the file is written to know."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.plan"
        plan.save(path)
        file = path.stat().st_size
    return Size(file, sum(weight.nbytes for weight in plan.weights), plan.arena)


def complaints(model: str, sizes: dict[str, Size]) -> list[str]:
    """What is over the bounds, in words."""
    if model not in BOUNDS:
        return []
    most, share = BOUNDS[model]
    found = []
    for name, size in sizes.items():
        if name == FLOATS:
            continue
        if size.file > most * MB:
            found.append(f"{model}, {name}: {size.file / MB:.1f} MB, more than {most}")
        if size.arena > share * sizes[FLOATS].arena:
            found.append(
                f"{model}, {name}: the arena is {size.arena / sizes[FLOATS].arena:.2f} of that "
                f"in floats, more than {share}"
            )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Prints a table; 1 where something is over the bounds."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description="Sizes of plans in floats and at int8.")
    parser.add_argument("--models", nargs="+", default=list(BOUNDS), metavar="NAME")
    parser.add_argument("--setups", nargs="+", choices=list(SETUPS), default=list(SETUPS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    console = Console()
    table = Table("model", "plan", title="sizes, MB (10^6 bytes)")
    for heading in ("file", "weights", "arena", "file / fp32", "arena / fp32"):
        table.add_column(heading, justify="right")
    troubles: list[str] = []
    result: dict[str, dict[str, Size]] = {}
    for name in zoo_quantised.select(options.models):
        (model,) = zoo.models([name])
        setups = dict.fromkeys([FLOATS, *options.setups])  # floats are what shares are taken of
        sizes = {setup: size_of(SETUPS[setup](model, options.threads)) for setup in setups}
        result[name] = sizes
        troubles += complaints(name, sizes)
        for setup, size in sizes.items():
            whole = [f"{part / MB:.2f}" for part in (size.file, size.weights, size.arena)]
            shares = (size.file / sizes[FLOATS].file, size.arena / sizes[FLOATS].arena)
            table.add_row(name, setup, *whole, *(f"{share:.2f}" for share in shares))
        table.add_section()
    console.print(table)
    for text in troubles:
        console.print(f"[red]{text}[/]", highlight=False)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        plain = {name: {k: asdict(v) for k, v in sizes.items()} for name, sizes in result.items()}
        options.json.write_text(json.dumps(plain, indent=1))
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
