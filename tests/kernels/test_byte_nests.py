"""8-bit data in nests: every bit as the reference has it, on every ISA, at the types' edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from byte_nests import BYTE_NESTS, I8, U8, unary
from trial import targets

from planish.base.dtypes import DType
from planish.kernels.check import run_kernel
from planish.kernels.cpu.nest import KERNEL
from planish.kernels.reference import run_reference
from planish.kernels.workload import Operand, Workload

_EDGES = (np.nan, np.inf, -np.inf, -0.0, 0.5, 1.5, -0.5, 1e30, -1e30)


def values(operand: Operand, seed: int) -> np.ndarray:
    """Numbers over all of the type; floats begin with those that round or convert in odd ways."""
    rng, shape = np.random.default_rng(seed), tuple(int(str(d)) for d in operand.shape)
    if operand.dtype.is_float:
        made = (rng.standard_normal(shape) * 30).astype(np.float32)
        made.reshape(-1)[: len(_EDGES)] = _EDGES[: made.size]
        return made
    limits = np.iinfo(operand.dtype.numpy)
    reach = 1 << 16  # accumulators
    low, high = max(int(limits.min), -reach), min(int(limits.max), reach)
    return rng.integers(low, high + 1, shape).astype(operand.dtype.numpy)


@pytest.mark.parametrize("name", BYTE_NESTS)
def test_every_bit(name: str) -> None:
    w: Workload = BYTE_NESTS[name]
    inputs = [values(operand, n) for n, operand in enumerate(w.inputs)]
    (want,) = run_reference(w, inputs)
    for target in targets():
        for threads, config in zip((1, 3), KERNEL.configs(w, target), strict=False):
            (got,) = run_kernel(KERNEL, w, config, target, inputs, threads=threads)
            np.testing.assert_array_equal(got, want, err_msg=f"{config} on {target}\n{w}")


@pytest.mark.parametrize("dtype", [U8, I8], ids=str)
@pytest.mark.parametrize("fn", ["hardswish", "sigmoid", "silu", "tanh"])
def test_every_byte_through_tables(fn: str, dtype: DType) -> None:
    """Also where vpermi2b is not known, and at each length of the last vector."""
    for length in (256, 3 * 256 - 1, 37):
        w = unary(fn, (1, length), dtype)
        x = np.arange(length).astype(np.uint8).view(dtype.numpy).reshape(1, length)
        (want,) = run_reference(w, [x])
        for target in (*targets(), replace(targets()[0], byte_tables=False)):
            config = next(iter(KERNEL.configs(w, target)))
            (got,) = run_kernel(KERNEL, w, config, target, [x])
            if target.isa == "generic":  # computed, as exactly as f32 does
                assert np.abs(got.astype(int) - want.astype(int)).max() <= 1
            else:
                np.testing.assert_array_equal(got, want)
