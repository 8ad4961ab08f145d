"""Matmul of run-time tensors against the reference."""

from __future__ import annotations

import pytest
from trial import F32, biased, check, matmul, targets, tensor

from planish.base.dtypes import DType
from planish.base.expr import Load, Temp, Var, call
from planish.base.shapes import symbol
from planish.kernels.cpu.matmul_batched import KERNEL

B, S = symbol("B"), symbol("S")


@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize("sizes", [(13, 7, 19), (5, 33, 70), (1, 40, 3), (26, 16, 64)])
def test_agrees(turned, sizes):
    check(KERNEL, matmul((2, 3), sizes, turned=turned))


def test_every_config():
    check(KERNEL, matmul((2,), (29, 18, 90), turned="b"), few=99)
    check(KERNEL, matmul((), (29, 18, 90)), few=99)


@pytest.mark.parametrize("turned", ["", "b"])
def test_symbolic_lengths(turned):
    scores = matmul((B, 2), (S, 16, S), turned=turned)
    values = matmul((B, 2), (S, S, 20), turned=turned)
    for env in ({"B": 2, "S": 37}, {"B": 1, "S": 64}, {"B": 1, "S": 1}):
        check(KERNEL, scores, env, few=2)
        check(KERNEL, values, env, few=2)


@pytest.mark.parametrize("dtype", [DType.F64, DType.I32, DType.U32, DType.I64, DType.U64])
def test_types(dtype):
    check(KERNEL, matmul((2,), (9, 11, 21), dtypes=(dtype,) * 3, turned="b"))


def test_epilogues():
    bias = tensor((21,))
    check(KERNEL, matmul((2,), (9, 11, 21), extra=(bias,), epilogue=(biased(2, axis=2),)))
    rest = tensor((2, 9, 21))
    index = (Var("o0"), Var("o1"), Var("o2"))
    added = call("add", call("tanh", Temp(0, (), F32)), Load(2, index, F32))
    check(KERNEL, matmul((2,), (9, 11, 21), extra=(rest,), epilogue=(added,)))


def test_refusals():
    target = targets()[0]
    small = matmul((2,), (9, 11, 21), dtypes=(DType.U8, DType.I8, DType.I32))
    assert "not one of" in str(KERNEL.refuse(small, target))
    mixed = matmul((2,), (9, 11, 21), dtypes=(F32, F32, DType.F64))
    assert "differ" in str(KERNEL.refuse(mixed, target))
