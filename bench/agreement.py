"""Holds planish against onnxruntime on every model of the zoo.

    python bench/agreement.py                          all models, ISAs, batches and thread counts
    python bench/agreement.py 'light_*' --isa avx2     only some

For each model (with a symbolic batch where the graph allows one), each ISA and each thread count a
plan is built at level 0 and run on random inputs at each batch. The largest difference, relative to
the output's largest magnitude, must stay within 1e-3, and a repeated run must give the same bits.
"""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

import planish
import zoo
from planish.targets.cpu import ISAS, host_features

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """One plan and how it did: the worst difference over all its runs, or what failed."""

    model: str
    isa: str
    threads: int
    batches: tuple[int, ...]
    worst: float
    problem: str


def host_isas() -> list[str]:
    """ISA rows that this machine can run."""
    machine = platform.machine()
    rows = [row for row in ISAS if row.machine == machine]
    return [row.name for row in rows if set(row.needs) <= host_features()]


def check(
    model: zoo.ZooModel, isa: str, threads: int, batches: tuple[int, ...], inputs: int
) -> Case:
    """Build one plan and hold all its runs against onnxruntime."""
    path = model.dynamic_path or model.path
    batches = batches if model.dynamic_path or _symbolic(model.path) else (1,)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    worst = 0.0
    try:
        with planish.Engine(planish.build(path, level=0, isa=isa, threads=threads)) as engine:
            for batch in batches:
                for seed in range(inputs):
                    feeds = zoo.random_inputs(model, batch=batch, seed=seed)
                    found = engine.run(feeds)
                    again = engine.run(feeds)
                    names = [output.name for output in session.get_outputs()]
                    for name, want in zip(names, session.run(None, feeds), strict=True):
                        if found[name].tobytes() != again[name].tobytes():
                            return _case(model, isa, threads, batches, worst, f"{name} varies")
                        worst = max(worst, _difference(found[name], want))
    except planish.PlanishError as error:
        return _case(model, isa, threads, batches, worst, str(error).splitlines()[0])
    problem = "" if worst <= TOLERANCE else "too far off"
    return _case(model, isa, threads, batches, worst, problem)


def _case(
    model: zoo.ZooModel, isa: str, threads: int, batches: tuple[int, ...], worst: float, text: str
) -> Case:
    return Case(model.name, isa, threads, batches, worst, text)


def _difference(found: np.ndarray, want: np.ndarray) -> float:
    if found.shape != want.shape or found.dtype != want.dtype:
        return float("inf")
    scale = float(np.abs(want).max(initial=0.0))
    gap = float(np.abs(found.astype(np.float64) - want).max(initial=0.0))
    return gap / scale if scale else gap


def _symbolic(path: Path) -> bool:
    inputs = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    ).get_inputs()
    return any(not isinstance(dim, int) for value in inputs for dim in value.shape)


def main(arguments: list[str] | None = None) -> int:
    """Check all and print a line each; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="names or globs; all by default")
    parser.add_argument("--isa", nargs="*", default=host_isas())
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 3, 8])
    parser.add_argument("--inputs", type=int, default=5, help="random inputs a batch")
    options = parser.parse_args(arguments)
    failed = 0
    for model in zoo.models(options.models or None):
        for isa in options.isa:
            for threads in options.threads:
                case = check(model, isa, threads, tuple(options.batches), options.inputs)
                failed += bool(case.problem)
                print(
                    f"{case.model:28} {case.isa:8} threads {case.threads} "
                    f"batches {','.join(map(str, case.batches)):7} "
                    f"worst {case.worst:.1e} {case.problem or 'ok'}",
                    flush=True,
                )
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
