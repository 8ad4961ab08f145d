"""The nests that operators declare, compiled for this machine, against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import native
import numpy as np
import pytest
from all_cases import CASES
from case import Case

from planish.base.dtypes import DType
from planish.kernels.check import run_kernel
from planish.kernels.cpu.nest import KERNEL
from planish.kernels.reference import run_nest
from planish.kernels.workload import Workload
from planish.targets.cpu import host_target

_EACH = 1  # cases an operator: compiling all of them takes a minute


def _chosen() -> list[Case]:
    by_op: dict[str, list[Case]] = {}
    for case in CASES:
        by_op.setdefault(case.op, []).append(case)
    return [case for cases in by_op.values() for case in cases[:: max(1, len(cases) // _EACH)]]


def _tolerance(array: np.ndarray) -> float:
    if not DType.from_numpy(array.dtype).is_float:
        return 0.0
    return 0.01 if array.dtype.itemsize == 2 else 3e-5


@pytest.mark.parametrize("case", _chosen(), ids=str)
def test_compiled_like_reference(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    target = host_target(threads=2)

    def run(
        workload: Workload, inputs: Sequence[np.ndarray], env: Mapping[str, int]
    ) -> list[np.ndarray]:
        expected = run_nest(workload, inputs, env)
        shared = replace(workload, threads=2)
        assert KERNEL.refuse(shared, target) is None
        config = next(iter(KERNEL.configs(shared, target)))
        found = run_kernel(KERNEL, shared, config, target, inputs, env, 2)
        for ours, theirs in zip(found, expected, strict=True):
            a, b = ours.astype(np.float64), theirs.astype(np.float64)
            scale = np.max(np.abs(b[np.isfinite(b)]), initial=1e-3)
            np.testing.assert_allclose(a, b, rtol=0, atol=scale * _tolerance(ours))
        return expected

    monkeypatch.setattr(native, "run_nest", run)
    args = native.args_of(case.inputs, case.const)
    native.run_op(case.op, case.inputs, case.attrs, args, case.outputs)
