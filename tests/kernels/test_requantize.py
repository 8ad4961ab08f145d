"""The form that conversions to 8 bits are brought to, as text, and bounds that code may rely on."""

from __future__ import annotations

import numpy as np
import pytest
from byte_nests import I8, SIXTH, add_requantized, quantized, relu, requantize
from hypothesis import given, settings
from hypothesis import strategies as st
from trial import targets

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr, Load, Var, call, const, print_expr
from planish.kernels.cpu.nest import KERNEL
from planish.kernels.loops.division import reciprocal
from planish.kernels.loops.ranges import range_of
from planish.kernels.loops.requantize import requantized
from planish.kernels.reference_expr import eval_expr
from planish.targets.cpu import assembly

F32, I32, U8 = DType.F32, DType.I32, DType.U8
X = Load(0, (Var("m0"),), F32)


def text(expr: Expr) -> str:
    """An expression without hexadecimal floats and types; the order of two bounds is left open."""
    if isinstance(expr, Call):
        inner = expr.args[0]
        if isinstance(inner, Call) and {expr.fn, inner.fn} == {"min", "max"}:
            low, high = sorted(map(text, (expr.args[1], inner.args[1])), key=float)
            return f"(clamp {text(inner.args[0])} {low} {high})"
        return f"({expr.fn} {' '.join(map(text, expr.args))})"
    if isinstance(expr, Const):
        return f"{expr.value:g}"
    return "x" if isinstance(expr, Load) else print_expr(expr)


@pytest.mark.parametrize(
    ("expr", "form"),
    [
        (quantized(X, 1.0, 0), "(cast (nearest (clamp x 0 255)))"),
        (quantized(X, 1.0, None), "(cast (nearest (clamp x 0 255)))"),
        (quantized(X, 0.5, 3), "(cast (add (nearest (clamp (div x 0.5) -3 252)) 3))"),
        (quantized(relu(X), 0.5, 0), "(cast (nearest (clamp (div x 0.5) 0 255)))"),
        (quantized(relu(X), 0.5, 3), "(cast (add (nearest (clamp (div x 0.5) 0 252)) 3))"),
        (quantized(call("min", relu(X), const(6.0, F32)), 0.5, 0),
         "(cast (nearest (div (clamp x 0 6) 0.5)))"),
        (quantized(call("min", relu(X), const(6.0, F32)), 6 / 256, 0),
         "(cast (nearest (clamp (div x 0.0234375) 0 255)))"),
        (quantized(call("mul", relu(X), const(2.0, F32)), 1.0, -128, I8),
         "(cast (add (nearest (clamp (mul x 2) 0 255)) -128))"),
        (quantized(call("mul", relu(X), const(-2.0, F32)), 1.0, 0),
         "(cast (nearest (max (mul (max x 0) -2) 0)))"),
    ],
)  # fmt: skip
def test_forms(expr: Expr, form: str) -> None:
    assert text(requantized(expr, fused=False)) == form


def test_floats_stay_as_they_are() -> None:
    expr = call("min", call("max", X, const(0.0, F32)), const(6.0, F32))
    assert requantized(expr, fused=False) is expr


@pytest.mark.parametrize("scale", [SIXTH, 0.0186, 1e-7, 3.0, 1000.1, float(np.float32(1 / 255))])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (-255, 255), (0, 1)])
def test_quotients_without_division(scale: float, low: int, high: int) -> None:
    """Around each step from an integer to the next, and far outside."""
    how = reciprocal(scale, low, high)
    assert how is not None
    edges = (np.arange(low, high) + 0.5) * scale
    x = (edges[:, None] * (1 + np.arange(-40, 41) * 2.0**-25)).astype(np.float32).ravel()
    x = np.concatenate([x, np.float32([0, -1e30, 1e30, -np.inf, np.inf])])
    want = np.rint(np.clip(x / np.float32(scale), low, high))
    y = np.clip(x, np.float32(how.low), np.float32(how.high))
    small = (y * np.float32(how.rest)).astype(np.float64)
    got = np.rint((y.astype(np.float64) * how.factor + small).astype(np.float32))
    np.testing.assert_array_equal(got, want)


def test_powers_of_two_stay_divisors() -> None:
    assert reciprocal(0.25, 0, 255) is None
    form = text(requantized(quantized(X, SIXTH, 0), fused=True))
    assert form.startswith("(cast (nearest (fma (clamp x 0 42.8145) 5.95593 (mul")


def plain(expr: Expr) -> Expr:
    """`nearest` in terms of the language."""

    def visit(e: Expr) -> Expr:
        if isinstance(e, Call):
            args = tuple(map(visit, e.args))
            if e.fn == "nearest":
                return call("cast", call("round", *args), dtype=I32)
            return Call(e.fn, args, e.dtype)
        return e

    return visit(expr)


def trees() -> st.SearchStrategy[Expr]:
    """Float arithmetic with literals."""
    literals = st.sampled_from([-7.5, -1.0, 0.0, 0.3, 1.0, 2.0, 6.0, 255.0])

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        bounds = st.builds(
            lambda fn, x, c: call(fn, x, const(c, F32)),
            st.sampled_from(["min", "max", "mul", "div", "add", "sub"]), inner, literals,
        )  # fmt: skip
        return st.one_of(bounds, st.builds(lambda x: call("round", x), inner))

    return st.recursive(st.just(X), grow, max_leaves=6)


@settings(max_examples=200, deadline=None)
@given(trees(), st.sampled_from([0, 3, 255, None]), st.sampled_from([1.0, 0.25, SIXTH]))
def test_values_stay(tree: Expr, zero: int | None, scale: float) -> None:
    x = np.random.default_rng(0).normal(size=300).astype(np.float32) * 60
    x[:8] = [np.nan, np.inf, -np.inf, 0.5, -0.5, 2.5, 1e30, 0]
    expr, at = quantized(tree, scale, zero), {"m0": np.arange(x.size)}
    want = eval_expr(expr, at, [x])
    np.testing.assert_array_equal(eval_expr(plain(requantized(expr, fused=False)), at, [x]), want)
    numbers = np.asarray(eval_expr(tree, at, [x]))
    known = range_of(tree)
    assert known.nan or not np.isnan(numbers).any()
    told = numbers[~np.isnan(numbers)]
    assert ((told >= known.low) & (told <= known.high)).all()


def test_few_instructions() -> None:
    """Vector instructions for 16 values: what the arithmetic needs, and nothing else."""
    if targets()[0].isa != "avx512":
        pytest.skip("counts are of AVX-512 code")
    for w, most in ((requantize((64, 4096)), 8), (add_requantized((64, 4096)), 16)):
        code = assembly(KERNEL.emit(w, (("unroll", 1),), targets()[0]).text, targets()[0])
        body = [line.split()[0] for line in code.splitlines() if "zmm" in line and "," in line]
        inside = [op for op in body if not op.startswith("vpbroadcast") and "broadcasts" not in op]
        assert len(inside) <= most, inside


def test_no_contraction() -> None:
    """A product and a sum before a rounding are two roundings, as in the reference."""
    code = KERNEL.emit(add_requantized((4, 64)), (("unroll", 1),), targets()[0]).text
    assert "contract" not in code
