"""Runs cases of ONNX's own backend suite; what `test_onnx_backend` holds against its tables.

The suite's node cases exist only in the memory of the process that loads them, so each worker
process loads them once and is then told names.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

import planish.onnx_backend as backend

KINDS = ("node", "simple", "real", "pytorch-converted", "pytorch-operator")
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
_CHUNK = 40  # cases that a worker takes at a time

Sets = list[tuple[list[Any], list[Any]]]  # (inputs, expected outputs)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        name: Of the case.
        kind: Its part of the suite.
        native: No step of its plan ran on the host.
        failure: What went wrong; "" when it passed.
    """

    name: str
    kind: str
    native: bool
    failure: str


@functools.cache
def cases(kind: str) -> dict[str, TestCase]:
    """The cases of a part of the suite, by name."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the suite overflows on purpose
        found = load_model_tests(kind=kind)
    return {case.name: case for case in sorted(found, key=lambda case: case.name)}


def run_all(excluded: set[str], kinds: Sequence[str] = KINDS) -> list[Outcome]:
    """Run every case that is not excluded, on all cores."""
    jobs = []
    for kind in kinds:
        names = [name for name in cases(kind) if name not in excluded]
        jobs += [(kind, names[n : n + _CHUNK]) for n in range(0, len(names), _CHUNK)]
    jobs.sort(key=lambda job: job[0] != "real")  # the long ones first
    context = multiprocessing.get_context("spawn")
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return [outcome for part in pool.map(_run_part, jobs) for outcome in part]


def _run_part(job: tuple[str, list[str]]) -> list[Outcome]:
    kind, names = job
    return [run_case(cases(kind)[name], 1 + n % 2) for n, name in enumerate(names)]


def run_case(case: TestCase, threads: int = 1) -> Outcome:
    """Build the case's model and compare its outputs with the suite's, by the suite's rules."""
    native = False
    try:
        model, sets = _load(case)
        prepared = backend.prepare(model, threads=threads)
        native = prepared.native
        with prepared.engine:
            for inputs, expected in sets:
                compare(prepared.run(inputs), expected, case.rtol, case.atol)
    except Exception as error:  # whatever it is, it is the case's outcome
        return Outcome(case.name, case.kind, native, f"{type(error).__name__}: {error}")
    return Outcome(case.name, case.kind, native, "")


def compare(made: Sequence[Any], expected: Sequence[Any], rtol: float, atol: float) -> None:
    """Hold outputs against the expected ones.

    Raises:
        AssertionError: They differ in number, type, shape or contents.
    """
    assert len(made) == len(expected), f"{len(made)} outputs instead of {len(expected)}"
    for ours, theirs in zip(made, expected, strict=True):
        if theirs is None:
            assert ours is None
        elif isinstance(theirs, list | tuple):
            assert isinstance(ours, list | tuple), f"{type(ours)} instead of a sequence"
            compare(ours, theirs, rtol, atol)
        else:
            ours, theirs = np.asarray(ours), np.asarray(theirs)
            assert ours.dtype == theirs.dtype, f"{ours.dtype} instead of {theirs.dtype}"
            assert ours.shape == theirs.shape, f"{ours.shape} instead of {theirs.shape}"
            _compare_arrays(ours, theirs, rtol, atol)


def _compare_arrays(ours: np.ndarray, theirs: np.ndarray, rtol: float, atol: float) -> None:
    if theirs.dtype == object:
        np.testing.assert_array_equal(ours, theirs)
        return
    if theirs.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)  # two units in the last place, as the suite allows
    if theirs.dtype.kind not in "biufc":  # NumPy cannot promote these with Python's floats
        ours, theirs = ours.astype(np.float32), theirs.astype(np.float32)
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def _load(case: TestCase) -> tuple[onnx.ModelProto, Sets]:
    if case.model is not None:
        return case.model, [
            ([_array(v) for v in ins], [_array(v) for v in outs])
            for ins, outs in case.data_sets or ()
        ]
    if case.model_dir is None:
        return _load_light(case)
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    sets = []
    for part in sorted(folder.glob("test_data_set_*")):
        inputs = list(_stored(part, "input", [v.type for v in model.graph.input]))
        sets.append((inputs, list(_stored(part, "output", [v.type for v in model.graph.output]))))
    return model, sets


def _load_light(case: TestCase) -> tuple[onnx.ModelProto, Sets]:
    """A real network without its weights: constant input, the outputs lie beside it."""
    path = DATA / "light" / Path(case.url or "").name
    model = onnx.load(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [
        Runner.generate_dummy_data(info, seed=0, name=case.model_name, random=False)
        for info in model.graph.input
        if info.name not in stored
    ]
    outputs = [
        _tensor(path.with_name(f"{path.stem}_output_{n}.pb").read_bytes())
        for n in range(len(model.graph.output))
    ]
    return model, [(inputs, outputs)]


def _stored(folder: Path, what: str, types: Sequence[onnx.TypeProto]) -> Iterator[Any]:
    for number in range(len(list(folder.glob(f"{what}_*.pb")))):
        data = (folder / f"{what}_{number}.pb").read_bytes()
        if types[number].HasField("sequence_type"):
            yield numpy_helper.to_list(onnx.SequenceProto.FromString(data))
        elif types[number].HasField("optional_type"):
            yield numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
        else:
            yield _tensor(data)


def _tensor(data: bytes) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(onnx.TensorProto.FromString(data)))


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
