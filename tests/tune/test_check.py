"""What counts as an equal result: the last code of float sums may differ, that of integers not."""

from __future__ import annotations

import pytest

from planish.base.dtypes import DType
from planish.base.expr import Expr, Temp, call, const
from planish.base.nest import Nest, Stage
from planish.kernels.workload import Operand, Workload, dense_strides
from planish.targets.cpu import host_target
from planish.tune.candidates import candidates
from planish.tune.check import adds_floats, plainest, tactic_error
from planish.tune.compile import compile_tactic

F32, I32, U8, I8 = DType.F32, DType.I32, DType.U8, DType.I8
TARGET = host_target("", 1)


def writes_codes(sums: DType, zero: int) -> Workload:
    """A product whose sums are rounded to bytes, `zero` added."""
    kinds = (F32, F32) if sums is F32 else (U8, I8)
    a = Operand(kinds[0], (8, 32), dense_strides((8, 32)))
    b = Operand(kinds[1], (32, 16), dense_strides((32, 16)), const=True)
    total: Expr = call("cast", Temp(0, (), sums), dtype=F32)
    whole = call("cast", call("round", call("mul", total, const(4.0, F32))), dtype=I32)
    held = call("max", call("add", whole, const(zero, I32)), const(0, I32))
    code = call("cast", call("min", held, const(255, I32)), dtype=U8)
    out = Operand(U8, (8, 16), dense_strides((8, 16)))
    return Workload("matmul", (a, b), (out,), epilogue=(code,), threads=1)


def error_of(sums: DType, off: int) -> float:
    """The error of code that writes every code `off` too high."""
    right, wrong = writes_codes(sums, 100), writes_codes(sums, 100 + off)
    tactic = plainest(candidates(right, TARGET, 5).tactics)
    made = [compile_tactic(tactic, w, TARGET) for w in (wrong, right)]
    return tactic_error(tactic, made[0], tactic, made[1], right, TARGET, {})


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_sums_of_floats_may_round_to_the_next_code(off: int) -> None:
    assert error_of(F32, off) == 0.0


@pytest.mark.parametrize(("sums", "off"), [(F32, 2), (F32, -2), (I32, 1), (I32, -1)])
def test_nothing_else_may_differ(sums: DType, off: int) -> None:
    assert error_of(I32, 0) == 0.0
    assert error_of(sums, off) == float("inf")


def test_nests_have_float_sums_where_a_stage_adds_floats() -> None:
    def nest(kind: DType, combiner: str) -> Workload:
        stage = Stage((), (4,), combiner, const(1, kind), kind)
        operand = Operand(F32, (4,), (1,))
        return Workload("nest", (operand,), (operand,), nest=Nest((), (stage,)))

    assert adds_floats(nest(F32, "sum"))
    assert not adds_floats(nest(F32, "max")) and not adds_floats(nest(I32, "sum"))
