"""Attention against the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from trial import F32, attention, check, targets, tensor

from planish.base.dtypes import DType
from planish.base.expr import Load, Temp, Var, call, const
from planish.base.shapes import symbol
from planish.kernels.check import run_kernel
from planish.kernels.cpu.attention import KERNEL

N, S, T = symbol("N"), symbol("S"), symbol("T")
SCORE = Temp(0, (), F32)


@pytest.mark.parametrize(
    "sizes", [(17, 17, 8, 8), (70, 33, 16, 20), (5, 200, 7, 3), (1, 9, 16, 16), (33, 1, 4, 5)]
)
def test_agrees(sizes):
    check(KERNEL, attention((2, 3), sizes))


def test_every_config():
    check(KERNEL, attention((1, 2), (150, 400, 16, 20)), few=99)


def test_symbolic_lengths():
    w = attention((N, 2), (S, S, 16, 20))
    for env in ({"N": 2, "S": 37}, {"N": 1, "S": 150}, {"N": 1, "S": 1}):
        check(KERNEL, w, env)
    check(KERNEL, attention((1, 2), (S, T, 8, 8)), {"S": 70, "T": 300})


@pytest.mark.parametrize("length", [40, 150])
def test_causal_mask(length):
    later = call("gt", Var("o3"), Var("o2"))
    mask = call("select", later, const(-math.inf, F32), SCORE)
    check(KERNEL, attention((1, 2), (length, length, 8, 8), mask=mask), few=9)


def test_rows_without_keys_are_nan():
    """softmax of minus infinity alone is 0/0, here as in the operator's definition."""
    at = (Var("o2"), Var("o3"))
    mask = call("add", SCORE, Load(3, at, F32))
    w = attention((1, 1), (6, 300, 8, 8), mask=mask, extra=(tensor((6, 300)),))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(o.shape).astype(np.float32) for o in w.inputs]
    inputs[3][2] = -np.inf
    inputs[3][4, :200] = -np.inf
    for target in targets():
        for config in KERNEL.configs(w, target):
            (got,) = run_kernel(KERNEL, w, config, target, inputs)
            assert np.isnan(got[0, 0, 2]).all()
            assert np.isfinite(np.delete(got[0, 0], 2, axis=0)).all()


def test_large_scores_do_not_overflow():
    mask = call("mul", SCORE, const(300.0, F32))
    check(KERNEL, attention((1, 2), (40, 150, 8, 8), mask=mask), tolerance=1e-3)


def test_refusals():
    target = targets()[0]
    w = attention((1, 2), (8, 8, 8, 8))
    double = type(w)("attention", tuple(tensor(o.shape, DType.F64) for o in w.inputs), w.outputs,
                     w.attrs)  # fmt: skip
    assert "f32" in str(KERNEL.refuse(double, target))
    wide = attention((1, 2), (8, 8, 1 << 16, 8))
    assert "too wide" in str(KERNEL.refuse(wide, target))
