"""Builds, loads and runs bent models in processes of their own, and holds them against oracles.

    python tests/pipeline/fuzz_builds.py --first 0 --cases 5000     a long run; prints what is wrong

A case is a number: it gives the same model each time. A worker process is told numbers and answers
a line each; one that dies is the failure of the case it was at, and a new one takes over.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "lower"), str(ROOT / "pipeline")]

import onnx  # noqa: E402  # the path comes first
from model_mutations import Seed, mutant, seeds  # noqa: E402  # as above

import planish  # noqa: E402  # as above
from planish.base.errors import CompileError, InputError, PlanFileError, VerifyError  # noqa: E402  # as above
from planish.targets.cpu import ISAS, host_features  # noqa: E402  # as above

_MEMORY = 12 << 30  # bytes of addresses that a worker may use
_PATIENCE = 60.0  # seconds that a case may take before it counts as stuck
_TOLERANCE = 1e-3  # of an output's largest magnitude, as for whole networks
_COARSE = {"float16": 4e-3, "bfloat16": 3e-2}  # other shares
_HUGE = 1e37  # near the largest f32: an order of sums decides what overflows
_FAITHFUL = 13  # opset from which onnx.reference means what ONNX says
_LARGEST = 1 << 24  # elements of an input
_DEFECTS = (VerifyError, CompileError, PlanFileError)  # refusals that blame planish itself
_RANDOM = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
    "Multinomial", "Dropout",
}  # fmt: skip


@dataclass
class Report:
    """What a run found: how cases ended, and what is wrong, by case number."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)


# ---- one case -----------------------------------------------------------------------------------


def run_case(number: int, known: list[Seed], tell: Any = None) -> str:
    """Build, load and run one case; gives "refused …", "agrees", "no oracle" or "wrong: …".

    Args:
        number: Of the case.
        known: Models to start from.
        tell: Called with "oracle" when planish has done its part.
    """
    done, data, feeds = mutant(number, known)
    dice = random.Random(-number)
    rows = [row for row in ISAS if row.machine == os.uname().machine]
    isas = [row.name for row in rows if set(row.needs) <= host_features()]
    try:
        with tempfile.TemporaryDirectory() as folder:
            plan = planish.build(data, level=0, threads=dice.choice((1, 2)), isa=dice.choice(isas))
            plan.save(Path(folder) / "m.plan")
            engine = planish.load(Path(folder) / "m.plan")
        with engine:
            given = feeds_for(engine, feeds, dice)
            found = {name: np.array(v) if isinstance(v, np.ndarray) else v
                     for name, v in engine.run(given).items()}  # fmt: skip
    except planish.PlanishError as error:
        if isinstance(error, _DEFECTS) or "defect of planish" in str(error):
            return f"wrong: {done}: {error}"
        return f"refused by {type(error).__name__}"
    except BaseException:
        return f"wrong: {done}: {traceback.format_exc()}"
    if tell is not None:
        tell("oracle")
    verdict = judge(data, given, found)
    return verdict if not verdict.startswith("wrong") else f"wrong: {done}: {verdict[7:]}"


def feeds_for(
    engine: planish.Engine, known: dict[str, np.ndarray], dice: random.Random
) -> dict[str, np.ndarray]:
    """The seed's own inputs where they still fit, else small random numbers."""
    made = np.random.default_rng(dice.randrange(2**32))
    sizes: dict[str, int] = {}
    feeds = {}
    for info in engine.inputs:
        array = known.get(info.name)
        dtype = np.dtype(info.dtype.numpy)
        shape = [d if isinstance(d, int) else sizes.get(str(d)) for d in info.shape or ()]
        if (
            array is not None
            and array.dtype == dtype
            and len(shape) == array.ndim
            and all(d in (None, s) for d, s in zip(shape, array.shape, strict=True))
        ):
            sizes.update((str(d), s) for d, s in zip(info.shape or (), array.shape, strict=False))
            feeds[info.name] = array
            continue
        shape = [
            sizes.setdefault(str(dim), dice.randint(1, 5)) if size is None else size
            for dim, size in zip(info.shape or (), shape, strict=True)
        ]
        if math.prod(shape) > _LARGEST:
            raise InputError(f"input {info.name!r} is too large to try")
        if dtype.kind == "O":
            feeds[info.name] = np.full(shape, "a", object)
        elif dtype.kind in "iub":
            feeds[info.name] = made.integers(0, 2 if dtype.kind == "b" else 3, shape).astype(dtype)
        else:
            feeds[info.name] = np.asarray(made.standard_normal(shape, np.float32)).astype(dtype)
    return feeds


# ---- oracles ------------------------------------------------------------------------------------


def judge(data: bytes, feeds: dict[str, np.ndarray], found: dict[str, Any]) -> str:
    """Hold results against each oracle that takes the model; one that agrees is enough."""
    model = onnx.load_from_string(data)
    names = {node.op_type for graph in _graphs(model) for node in graph}
    if names & _RANDOM:
        return "no oracle"
    if any(array.size == 0 for array in feeds.values()):
        return "no oracle"  # they do not agree on the mean of nothing
    complaints = []
    for name, oracle in (("onnxruntime", _onnxruntime), ("onnx.reference", _reference)):
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                expected = oracle(data, feeds)
        except Exception:  # an oracle may refuse a bent model in any way
            continue
        complaint = _difference(found, expected)
        if complaint is None:
            return "agrees"
        if complaint:
            complaints.append(f"{name}: {complaint}")
    return f"wrong: {'; '.join(complaints)}" if complaints else "no oracle"


def _graphs(model: onnx.ModelProto) -> Iterator[list[onnx.NodeProto]]:
    pending = [list(model.graph.node), *(list(f.node) for f in model.functions)]
    while pending:
        nodes = pending.pop()
        yield nodes
        pending += [list(a.g.node) for n in nodes for a in n.attribute if a.HasField("g")]


def _onnxruntime(data: bytes, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    import onnxruntime  # the extra `test` does not bring it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def _reference(data: bytes, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(data)
    if any(entry.version < _FAITHFUL for entry in model.opset_import if not entry.domain):
        raise ValueError("the reference gives old operators their new meaning")
    evaluator = ReferenceEvaluator(model)
    return dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """None where all agree; "" where nothing can be said; else what differs."""
    if set(found) != set(expected):
        return f"outputs {sorted(found)} instead of {sorted(expected)}"
    for name, want in expected.items():
        got = found[name]
        if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray):
            return ""
        if ("float8" in str(got.dtype) and want.dtype == np.uint8) or "int4" in str(got.dtype):
            continue  # onnxruntime gives the bytes
        if got.dtype != want.dtype or got.shape != want.shape:
            return f"{name}: {got.dtype}{got.shape} instead of {want.dtype}{want.shape}"
        if want.dtype == object or want.size == 0:
            continue
        share = 0.0 if want.dtype.kind in "biu" else _COARSE.get(str(want.dtype), _TOLERANCE)
        got, want = got.astype(np.float64), want.astype(np.float64)
        finite = np.isfinite(want) & (np.abs(want) < _HUGE)
        if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
            return ""
        scale = float(np.abs(want[finite]).max(initial=0.0))
        gap = float(np.abs(got - want)[finite].max(initial=0.0))
        if not gap <= share * scale:
            return f"{name}: off by {gap:.3g} of {scale:.3g}"
    return None


# ---- processes ----------------------------------------------------------------------------------


def fuzz(first: int, cases: int, seconds: float, workers: int, tell: Any = None) -> Report:
    """Run cases until they or the time run out.

    Args:
        first: The first case.
        cases: How many at most.
        seconds: After which no new case is begun.
        workers: Processes.
        tell: Called with (case, how it ended).
    """
    report = Report()
    numbers: SimpleQueue[int] = SimpleQueue()
    for number in range(first, first + cases):
        numbers.put(number)
    with tempfile.NamedTemporaryFile(suffix=".seeds") as file:
        pickle.dump(seeds(), file)
        file.flush()
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=_drive, args=(file.name, numbers, end, report, tell))
            for _ in range(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return report


def _drive(path: str, numbers: SimpleQueue[int], end: float, report: Report, tell: Any) -> None:
    """Keep one worker process busy."""
    worker: subprocess.Popen[str] | None = None
    while time.monotonic() < end:
        try:
            number = numbers.get_nowait()
        except Empty:
            break
        if worker is None or worker.poll() is not None:
            worker = _start(path)
        outcome = _ask(worker, number)
        report.ends[outcome.split(":")[0]] += 1
        if outcome.startswith("wrong"):
            report.wrong[number] = outcome[7:]
        if tell is not None:
            tell(number, outcome)
    if worker is not None:
        worker.kill()
        worker.wait()


def _start(path: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _ask(worker: subprocess.Popen[str], number: int) -> str:
    """One case's outcome; a process that dies or hangs is one too, unless an oracle did it."""
    assert worker.stdin is not None and worker.stdout is not None
    alarm = threading.Timer(_PATIENCE, worker.kill)
    alarm.start()
    at_oracle = False
    try:
        worker.stdin.write(f"{number}\n")
        worker.stdin.flush()
        for line in worker.stdout:
            told = json.loads(line)
            if told != "oracle":
                return str(told)
            at_oracle = True
    except BrokenPipeError:
        pass
    finally:
        alarm.cancel()
    code = worker.wait()
    if at_oracle:
        return "no oracle"
    return f"wrong: the process {'was stuck' if code == -9 else f'died with {code}'}"


def _work(path: str) -> None:
    """Answer numbers from standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a model makes anyone print is no answer
    known = pickle.loads(Path(path).read_bytes())

    def tell(what: str) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    warnings.simplefilter("ignore")
    for line in sys.stdin:
        tell(run_case(int(line), known, tell))


def main() -> int:
    """Run cases and print what is wrong; 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--worker", help="file of models; answers numbers from standard input")
    options = parser.parse_args()
    if options.worker:
        _work(options.worker)
        return 0

    def tell(number: int, outcome: str) -> None:
        if outcome.startswith("wrong"):
            print(f"case {number}: {outcome[7:]}\n", flush=True)

    report = fuzz(options.first, options.cases, options.seconds, options.workers, tell)
    print(", ".join(f"{end}: {count}" for end, count in sorted(report.ends.items())))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
