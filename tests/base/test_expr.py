"""Expressions: text comes back, folding keeps the meaning, slopes are right."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.base.dtypes import DType
from planish.base.expr import (
    FUNCTIONS,
    Call,
    Const,
    Expr,
    Load,
    Size,
    Temp,
    Var,
    call,
    children,
    coefficient,
    const,
    index,
    loads_of,
    parse_expr,
    print_expr,
    replace_loads,
    replace_vars,
    transform,
    walk,
)
from planish.base.shapes import evaluate, symbol

N = symbol("N")
NAMES = ("o0", "m0", "r1")
NATIVE = [d for d in DType if d.llvm]


def indices() -> st.SearchStrategy[Expr]:
    """Index arithmetic."""
    leaves = st.one_of(
        st.sampled_from([Var(name) for name in NAMES]),
        st.integers(-5, 9).map(index),
        st.sampled_from([index(N), index(2 * N + 1)]),
    )

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        fn = st.sampled_from(["add", "sub", "mul", "min", "max"])
        divided = st.builds(
            call, st.sampled_from(["floordiv", "mod"]), inner, st.integers(1, 6).map(index)
        )
        return st.one_of(st.builds(call, fn, inner, inner), divided)

    return st.recursive(leaves, grow, max_leaves=7)


def constants() -> st.SearchStrategy[Expr]:
    def values(dtype: DType) -> st.SearchStrategy[Expr]:
        if dtype.is_float:
            return st.floats(width=32).map(lambda v: const(_quiet(v, dtype), dtype))
        if dtype is DType.BOOL:
            return st.booleans().map(lambda v: const(v, dtype))
        limits = np.iinfo(dtype.numpy)
        return st.integers(int(limits.min), int(limits.max)).map(lambda v: const(v, dtype))

    return st.sampled_from(NATIVE).flatmap(values)


def _quiet(value: float, dtype: DType) -> float:
    with np.errstate(over="ignore"):
        return float(np.array(value).astype(dtype.numpy))


def exprs() -> st.SearchStrategy[Expr]:
    """Any expression; dtypes need not fit."""
    dtype = st.sampled_from(NATIVE)
    at = st.lists(indices(), max_size=3).map(tuple)
    leaves = st.one_of(
        constants(),
        indices(),
        st.builds(Load, st.integers(0, 4), at, dtype),
        st.builds(Temp, st.integers(0, 4), at, dtype),
    )

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        def apply(fn: str) -> st.SearchStrategy[Expr]:
            args = [inner] * FUNCTIONS[fn]
            if fn == "cast":
                return st.builds(lambda x, d: call("cast", x, dtype=d), inner, dtype)
            return st.builds(lambda *a: call(fn, *a), *args)

        return st.sampled_from(sorted(FUNCTIONS)).flatmap(apply)

    return st.recursive(leaves, grow, max_leaves=8)


@given(exprs())
def test_text_comes_back(expr: Expr) -> None:
    assert parse_expr(print_expr(expr)) == expr


@given(exprs())
def test_transform_by_identity_changes_nothing(expr: Expr) -> None:
    assert transform(expr, lambda e: e) == expr
    assert {id(c) for c in children(expr)} <= {id(e) for e in walk(expr)}


def meaning(expr: Expr, at: Mapping[str, int]) -> int:
    """The plain value of index arithmetic."""
    match expr:
        case Const(value=value):
            return int(value)
        case Var(name=name):
            return at[name]
        case Size(dim=dim):
            return evaluate(dim, {"N": 4})
        case Call(fn=fn, args=(a, b)):
            x, y = meaning(a, at), meaning(b, at)
            return {
                "add": lambda: x + y,
                "sub": lambda: x - y,
                "mul": lambda: x * y,
                "min": lambda: min(x, y),
                "max": lambda: max(x, y),
                "floordiv": lambda: x // y,
                "mod": lambda: x % y,
            }[fn]()
    raise AssertionError(expr)


@given(indices(), st.tuples(*[st.integers(0, 6)] * 3))
def test_slopes(expr: Expr, values: tuple[int, int, int]) -> None:
    at = dict(zip(NAMES, values, strict=True))
    for name in NAMES:
        slope = coefficient(expr, name)
        if slope is not None:
            step = meaning(expr, {**at, name: at[name] + 1}) - meaning(expr, at)
            assert step == evaluate(slope, {"N": 4})


@given(indices(), indices(), st.tuples(*[st.integers(0, 6)] * 3))
def test_replacing_a_variable(expr: Expr, new: Expr, values: tuple[int, int, int]) -> None:
    at = dict(zip(NAMES, values, strict=True))
    replaced = replace_vars(expr, {"m0": new})
    assert meaning(replaced, at) == meaning(expr, {**at, "m0": meaning(new, at)})


def test_folding() -> None:
    m = Var("m0")
    assert call("add", m, index(0)) is m
    assert call("mul", m, index(0)) == index(0)
    assert call("floordiv", index(-7), index(2)) == index(-4)
    assert call("mod", index(7), index(0)).dtype is DType.I64
    assert call("cast", m, dtype=DType.I64) is m


def test_dtypes_follow() -> None:
    x = Load(0, (), DType.F32)
    assert call("lt", x, x).dtype is DType.BOOL
    assert call("isnan", x).dtype is DType.BOOL
    assert call("select", call("lt", x, x), x, x).dtype is DType.F32


def test_constants_are_rounded_and_compare_by_bits() -> None:
    assert const(0.1, DType.F32).value == float(np.float32(0.1))
    assert const(math.nan, DType.F32) == const(math.nan, DType.F32)
    assert const(0.0, DType.F32) != const(-0.0, DType.F32)
    with pytest.raises(OverflowError):
        const(300, DType.U8)


def test_loads() -> None:
    a, b = Load(0, (Var("m0"),), DType.F32), Load(1, (), DType.F32)
    expr = call("add", call("mul", a, b), a)
    assert loads_of(expr) == [a, b]
    assert replace_loads(expr, lambda load: b) == call("add", call("mul", b, b), b)


@pytest.mark.parametrize(
    "text", ["", "(", "(add 1", "(add 1)", "(nothing 1 2)", "1 2", ")", "(load:f99 0)", "a-b", "9q"]
)
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_expr(text)
