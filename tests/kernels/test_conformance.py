"""The whole catalogue over the tables of shapes: every ISA, 1 to 3 workers, against the reference.

Operands lie between guard pages and outputs start poisoned, so that what is read or written outside
an operand faults, and what is not written is seen.
"""

from __future__ import annotations

import pytest
from shapes import WORKLOADS, environments
from trial import random_inputs, targets

from planish.kernels.catalogue import KERNELS
from planish.kernels.check import largest_error, run_kernel
from planish.kernels.reference import run_reference

ROWS = [(op, name) for op, table in WORKLOADS.items() for name in table]
_COARSE = 8e-3  # of results with 8 or 11 significant bits


@pytest.mark.parametrize(("op", "name"), ROWS, ids=[f"{op}-{name}" for op, name in ROWS])
def test_conformance(op: str, name: str) -> None:
    workload = WORKLOADS[op][name]
    kernels = [kernel for kernel in KERNELS if kernel.op == op]
    short = any(o.dtype.is_float and o.dtype.bits < 32 for o in workload.outputs)
    for env in environments(workload):
        inputs = random_inputs(workload, env)
        want = run_reference(workload, inputs, env)
        for target in targets():
            legal = [k for k in kernels if k.refuse(workload, target) is None]
            assert legal, f"no kernel takes {name} on {target}"
            for kernel in legal:
                limit = _COARSE if short else kernel.tolerance
                for config in list(kernel.configs(workload, target))[:2]:
                    runs = [
                        run_kernel(kernel, workload, config, target, inputs, env, threads)
                        for threads in (1, 2, 3)
                    ]
                    for got, right in zip(runs[0], want, strict=True):
                        error = largest_error(got, right)
                        assert error <= limit, f"{kernel.name} {config} {target}: {error:.2e}"
                    for again in runs[1:]:
                        pairs = zip(runs[0], again, strict=True)
                        same = all(a.tobytes() == b.tobytes() for a, b in pairs)
                        assert same, f"{kernel.name} {config}: the split changes the result"
