"""The plain matmul against the reference."""

from __future__ import annotations

import pytest
from trial import F32, check, matmul

from planish.base.dtypes import DType
from planish.base.shapes import symbol
from planish.kernels.cpu.matmul_plain import KERNEL

B, S = symbol("B"), symbol("S")


@pytest.mark.parametrize(
    ("dtypes", "tolerance"),
    [
        ((F32, F32, F32), 1e-5),
        ((DType.F16, DType.F16, DType.F16), 2e-3),
        ((DType.BF16, DType.BF16, DType.BF16), 2e-2),
        ((DType.F64, DType.F64, DType.F64), 1e-12),
        ((DType.U8, DType.I8, DType.I32), 0.0),
        ((DType.I64, DType.I64, DType.I64), 0.0),
        ((DType.U32, DType.U32, DType.U32), 0.0),
    ],
)
def test_types(dtypes, tolerance):
    check(KERNEL, matmul((2, 3), (7, 11, 21), dtypes=dtypes, turned="b"), tolerance=tolerance)


@pytest.mark.parametrize("turned", ["", "a", "b"])
def test_symbolic_lengths(turned):
    check(KERNEL, matmul((B,), (S, 9, S), turned=turned), {"B": 2, "S": 19})
    check(KERNEL, matmul((B,), (S, S, 5), turned=turned, repeat_b=(0,)), {"B": 2, "S": 6})
