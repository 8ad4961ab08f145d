"""Solves the minimalloc problems: eleven hard ones at their capacity, a small one at its optimum.

    python bench/minimalloc.py
    python bench/minimalloc.py --only A B --seconds 20

The problems are read at ../shared/data/minimalloc, from files named `problem.capacity.csv`. Each
must be solved within its capacity and the time limit, and the validator must agree; else the exit
code is 1. Times are those of this machine in its present state.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from planish.base.errors import PlanishError
from planish.memory.problem import read_csv
from planish.memory.solve import solve
from planish.memory.validate import validate

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "minimalloc"
ROW = "{:8} {:>8} {:>10} {:>10} {:>10} {:>10} {:>8}  {}"
COLUMNS = ("problem", "buffers", "capacity", "bound", "height", "naive", "seconds", "method")


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    cells: tuple[str, ...]
    is_solved: bool


def attempt(path: Path, seconds: float) -> Outcome:
    """Solves one problem, and has the layout checked."""
    name, capacity = path.name.split(".")[:2]
    problem = read_csv(path, capacity=int(capacity))
    count = str(len(problem.buffers))
    try:
        layout = solve(problem, time_limit_s=seconds)
        validate(problem, layout.offsets)
    except PlanishError as error:
        return Outcome((name, count, capacity, "-", "-", "-", "-", error.message), is_solved=False)
    figures = (layout.lower_bound, layout.height, layout.naive)
    took = f"{layout.seconds:.3f}"
    cells = (name, count, capacity, *map(str, figures), took, layout.method)
    return Outcome(cells, is_solved=layout.seconds <= seconds)


def main() -> int:
    """Prints the table; 0 where every problem was solved."""
    parser = argparse.ArgumentParser(description="Solves the minimalloc problems.")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these problems; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit a problem; default: 60")
    options = parser.parse_args()
    if not FOLDER.exists():
        print("skipped: the minimalloc problems are not in ../shared/data/minimalloc")
        return 0
    paths = [
        path
        for path in sorted(FOLDER.glob("*.*.csv"))
        if not options.only or path.name.split(".")[0] in options.only
    ]
    print(ROW.format(*COLUMNS))
    failed = []
    for path in paths:
        outcome = attempt(path, options.seconds)
        print(ROW.format(*outcome.cells), flush=True)
        if not outcome.is_solved:
            failed.append(outcome.cells[0])
    print(f"{len(paths) - len(failed)} of {len(paths)} solved", *failed)
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    raise SystemExit(main())
