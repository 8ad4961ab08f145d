"""Holds planish against onnxruntime on the quantised files, and lists what is not done in integers.

    python bench/agreement_int8.py                        all files
    python bench/agreement_int8.py 'light_*' --isa avx2   only some

Each QDQ file is built at level 0 and run on inputs that calibration has not seen. Told are the
signal to noise against the float network, for onnxruntime and for planish, and between the two; and
the layers that run on the host, or whose convolution or matrix product is one of floats. A file
passes where planish is at most 3 dB further from the floats than onnxruntime is.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import planish
import zoo
import zoo_quantised
from peer_errors import signal_to_noise
from peer_report import LOSS_TOLERANCE
from peers import float_outputs
from planish.plan.records import HostStep, Step

CONTRACTIONS = ("conv", "matmul")  # as workloads call them


@dataclass(frozen=True)
class Agreement:
    """How one file did; decibels.

    Attributes:
        model: Its name.
        rival: Signal to noise of onnxruntime's outputs against the float network's.
        ours: The same of planish's outputs.
        between: planish's outputs against onnxruntime's.
        problem: What failed, or "".
        strays: What is not done in integers, or by a kernel for anything: (kind, layer).
    """

    model: str
    rival: float = 0.0
    ours: float = 0.0
    between: float = 0.0
    problem: str = ""
    strays: list[tuple[str, str]] = field(default_factory=list)


def check(model: zoo.ZooModel, floats: Path, isa: str, threads: int, inputs: int) -> Agreement:
    """Build one quantised file and hold it against onnxruntime."""
    single = zoo.with_batch(model, 1)
    feeds = zoo_quantised.check_feeds(single, 1, inputs)
    wanted, rival = float_outputs(floats, feeds), float_outputs(single.path, feeds)
    try:
        plan = planish.build(single.path, level=0, isa=isa, threads=threads)
        with planish.Engine(plan) as engine:
            found = [dict(engine.run(one)) for one in feeds]
    except planish.PlanishError as error:
        return Agreement(model.name, problem=str(error).splitlines()[0])
    rival_noise, noise = signal_to_noise(rival, wanted), signal_to_noise(found, wanted)
    problem = "" if noise >= rival_noise - LOSS_TOLERANCE else "too far off"
    between = signal_to_noise(found, rival)
    return Agreement(model.name, rival_noise, noise, between, problem, strays(plan.steps))


def strays(steps: Sequence[Step]) -> list[tuple[str, str]]:
    """(kind, layer and workload) of each step that one would not expect of a quantised network."""
    found = []
    for step in steps:
        kind = _stray(step)
        if kind:
            text = step.reason if isinstance(step, HostStep) else step.workload.splitlines()[0]
            found.append((kind, f"{step.name}: {text}"))
    return found


def _stray(step: Step) -> str:
    if isinstance(step, HostStep):
        return "host"
    operation, _, operands = step.workload.splitlines()[0].partition(" ")
    if operation in CONTRACTIONS and operands.startswith("f32"):
        return "float contraction"
    if operation in CONTRACTIONS and step.kernel.endswith(".plain"):
        return "plain kernel"
    reads, _, writes = operands.partition("->")
    if operation == "nest" and "f32[" in reads and "f32[" in writes:
        return "float loop"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Check all and print a line each; 1 if any is too far off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="names or globs; all by default")
    parser.add_argument("--isa", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inputs", type=int, default=4)
    parser.add_argument("--strays", action="store_true", help="every layer not done in integers")
    options = parser.parse_args(arguments)
    failed = 0
    for name in zoo_quantised.select(options.models or None):
        (floats,) = zoo.models([name])
        model = zoo_quantised.quantised(floats)
        single = zoo.with_batch(floats, 1)
        result = check(model, single.path, options.isa, options.threads, options.inputs)
        failed += bool(result.problem)
        kinds = Counter(kind for kind, _ in result.strays)
        print(
            f"{name:22} dB: onnxruntime {result.rival:6.1f}, planish {result.ours:6.1f}, "
            f"between {result.between:6.1f}; "
            f"{', '.join(f'{n} {kind}' for kind, n in kinds.items()) or 'all in integers'}; "
            f"{result.problem or 'ok'}",
            flush=True,
        )
        for kind, layer in result.strays if options.strays else []:
            print(f"    {kind}: {layer}", flush=True)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
