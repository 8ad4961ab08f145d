"""Trigonometric and hyperbolic functions and powers for f32 scalars and vectors.

Reductions modulo pi/2, and powers, are done in f64, where two constants and short polynomials are
accurate enough for f32 results.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from planish.kernels.cpu import math_tables as tables
from planish.kernels.cpu.math_blocks import MathBlocks
from planish.kernels.cpu.math_exp import exp_scaled, log, log1p
from planish.targets.ir import Val, real, vector

_INF = math.inf


def atan(m: MathBlocks, x: Val) -> Val:
    """The arc tangent, by pi/2 minus that of 1/x where x > 1."""
    size = m.abs(x)
    large = m.f.fcmp("ogt", size, real(1.0, x.ty))
    y = m.f.select(large, m.f.fdiv(real(1.0, x.ty), size), size)
    square = m.op("fmul", y, y)
    y = m.fma(m.op("fmul", square, y), m.poly(square, tables.ATAN), y)
    turned = m.op("fsub", real(math.pi / 2, x.ty), y)
    return m.copysign(m.f.select(large, turned, y), x)


def _asin_small(m: MathBlocks, x: Val) -> Val:
    square = m.op("fmul", x, x)
    return m.fma(m.op("fmul", square, x), m.poly(square, tables.ASIN), x)


def _asin_reduced(m: MathBlocks, x: Val) -> tuple[Val, Val]:
    """(|x| > 1/2, asin of |x| where small, of sqrt((1 - |x|) / 2) elsewhere)."""
    size = m.abs(x)
    large = m.f.fcmp("ogt", size, real(0.5, x.ty))
    rest = m.op("fmul", m.op("fsub", real(1.0, x.ty), size), real(0.5, x.ty))
    return large, _asin_small(m, m.f.select(large, m.sqrt(rest), size))


def asin(m: MathBlocks, x: Val) -> Val:
    """The arc sine."""
    large, y = _asin_reduced(m, x)
    turned = m.fma(y, real(-2.0, x.ty), real(math.pi / 2, x.ty))
    return m.copysign(m.f.select(large, turned, y), x)


def acos(m: MathBlocks, x: Val) -> Val:
    """The arc cosine."""
    large, y = _asin_reduced(m, x)
    twice = m.op("fadd", y, y)
    low = m.op("fsub", real(math.pi, x.ty), twice)
    far = m.choose("olt", x, 0.0, low, twice)
    near = m.op("fsub", real(math.pi / 2, x.ty), m.copysign(y, x))
    return m.f.select(large, far, near)


def sinh(m: MathBlocks, x: Val) -> Val:
    """The hyperbolic sine."""
    size = m.abs(x)
    half = exp_scaled(m, size, -1)
    far = m.op("fsub", half, m.f.fdiv(real(0.25, x.ty), half))
    square = m.op("fmul", x, x)
    near = m.fma(m.op("fmul", square, size), m.poly(square, tables.SINH), size)
    return m.copysign(m.choose("olt", size, 1.0, near, far), x)


def cosh(m: MathBlocks, x: Val) -> Val:
    """The hyperbolic cosine."""
    half = exp_scaled(m, m.abs(x), -1)
    return m.op("fadd", half, m.f.fdiv(real(0.25, x.ty), half))


def asinh(m: MathBlocks, x: Val) -> Val:
    """log1p(|x| + x² / (1 + sqrt(x² + 1))); log(x) + ln 2 where x² would overflow."""
    size, one = m.abs(x), real(1.0, x.ty)
    square = m.op("fmul", x, x)
    root = m.sqrt(m.op("fadd", square, one))
    inner = m.op("fadd", size, m.f.fdiv(square, m.op("fadd", one, root)))
    near = log1p(m, inner)
    far = m.op("fadd", log(m, size), real(math.log(2), x.ty))
    return m.copysign(m.choose("olt", size, 1e18, near, far), x)


def acosh(m: MathBlocks, x: Val) -> Val:
    """The inverse hyperbolic cosine."""
    t = m.op("fsub", x, real(1.0, x.ty))
    root = m.sqrt(m.fma(t, t, m.op("fadd", t, t)))
    near = log1p(m, m.op("fadd", t, root))
    far = m.op("fadd", log(m, x), real(math.log(2), x.ty))
    value = m.choose("olt", x, 1e18, near, far)
    return m.choose("olt", x, 1.0, real(math.nan, x.ty), value)


def atanh(m: MathBlocks, x: Val) -> Val:
    """The inverse hyperbolic tangent."""
    size = m.abs(x)
    twice = m.op("fadd", size, size)
    inner = m.f.fdiv(twice, m.op("fsub", real(1.0, x.ty), size))
    return m.copysign(m.op("fmul", log1p(m, inner), real(0.5, x.ty)), x)


def _turns(m: MathBlocks, x: Val) -> tuple[Val, Val, Val]:
    """Split x = q pi/2 + r in f64: (q as an integer, sin(r), cos(r)); for |x| < 2^20."""
    wide = m.f.cast("fpext", x, vector("double", x.lanes))
    shift = real(1.5 * 2.0**52, wide.ty)
    shifted = m.fma(wide, real(2 / math.pi, wide.ty), shift)
    n = m.op("fsub", shifted, shift)
    r = m.fma(n, real(-1.57079632673412561417, wide.ty), wide)  # the upper 33 bits of pi/2
    r = m.fma(n, real(-6.07710050650619224932e-11, wide.ty), r)  # and the rest
    square = m.op("fmul", r, r)
    sine = m.fma(m.op("fmul", square, r), m.poly(square, tables.SIN), r)
    cosine = m.fma(square, real(-0.5, wide.ty), real(1.0, wide.ty))
    cosine = m.fma(m.op("fmul", square, square), m.poly(square, tables.COS), cosine)
    return m.bits(shifted), sine, cosine


def wave(m: MathBlocks, x: Val, quarter: int) -> Val:
    """sin(x + quarter * pi/2)."""
    q, sine, cosine = _turns(m, x)
    q = m.op("add", q, m.ints(quarter, sine))
    odd = m.f.icmp("ne", m.op("and", q, m.ints(1, sine)), m.ints(0, sine))
    value = m.f.select(odd, cosine, sine)
    sign = m.op("shl", m.op("and", q, m.ints(2, sine)), m.ints(62, sine))
    value = m.floats(m.op("xor", m.bits(value), sign), value.ty)
    return m.f.cast("fptrunc", value, x.ty)


def periodic(name: str, near: Callable[[MathBlocks, Val], Val]) -> Callable[..., Val]:
    """`near` for |x| < 2^20; the C library, lane by lane, for vectors that hold a larger one."""

    def run(m: MathBlocks, x: Val) -> Val:
        f = m.f
        place = f.variable(x.ty)
        f.store(near(m, x), place)
        far = m.any_lane(f.fcmp("uge", m.abs(x), real(2.0**20, x.ty)))
        with f.when(far):
            wide = f.cast("fpext", x, vector("double", x.lanes))
            value = m.by_lane(name, [wide])
            f.store(f.cast("fptrunc", value, x.ty), place)
        return f.load(x.ty, place)

    return run


def tan(m: MathBlocks, x: Val) -> Val:
    """The tangent, for |x| < 2^20."""
    q, sine, cosine = _turns(m, x)
    odd = m.f.icmp("ne", m.op("and", q, m.ints(1, sine)), m.ints(0, sine))
    top = m.f.select(odd, m.neg(cosine), sine)
    bottom = m.f.select(odd, sine, cosine)
    return m.f.cast("fptrunc", m.f.fdiv(top, bottom), x.ty)


def pow(m: MathBlocks, x: Val, y: Val) -> Val:
    """2^(y log2 |x|) in f64, then signs and edges as C's pow has them."""
    f = m.f
    size = m.abs(x)
    wide = f.cast("fpext", size, vector("double", x.lanes))
    logarithm = _log2_wide(m, wide)
    infinite = real(_INF, wide.ty)
    logarithm = m.choose("oeq", wide, _INF, infinite, logarithm)
    logarithm = m.choose("oeq", wide, 0.0, real(-_INF, wide.ty), logarithm)
    logarithm = m.choose("uno", wide, 0.0, wide, logarithm)
    product = m.op("fmul", f.cast("fpext", y, wide.ty), logarithm)
    value = f.cast("fptrunc", _exp2_wide(m, m.clamp(product, -200.0, 200.0)), x.ty)
    one = real(1.0, x.ty)
    value = m.choose("oeq", size, 1.0, m.choose("uno", y, 0.0, y, one), value)
    whole = f.fcmp("oeq", m.rounded("trunc", y), y)
    half = m.op("fmul", y, real(0.5, y.ty))
    halved = f.fcmp("one", m.rounded("trunc", half), half)
    odd = f.binary("and", whole, halved)
    negative = f.icmp("slt", m.bits(x), m.ints(0, x))
    below = f.binary(
        "and", f.fcmp("olt", x, real(0.0, x.ty)), f.fcmp("one", size, real(_INF, x.ty))
    )
    broken = f.binary("and", below, f.fcmp("one", m.rounded("trunc", y), y))
    value = f.select(f.binary("and", negative, odd), m.neg(value), value)
    value = f.select(broken, real(math.nan, x.ty), value)
    return m.choose("oeq", x, 1.0, one, m.choose("oeq", y, 0.0, one, value))


def _log2_wide(m: MathBlocks, x: Val) -> Val:
    """log2 of positive normal f64, to about 1e-15."""
    root = m.ints(0x3FE6A09E667F3BCD, x)
    raw = m.op("sub", m.bits(x), root)
    e = m.op("ashr", raw, m.ints(52, x))
    mantissa = m.op("add", m.op("and", raw, m.ints((1 << 52) - 1, x)), root)
    value = m.floats(mantissa, x.ty)
    one = real(1.0, x.ty)
    s = m.f.fdiv(m.op("fsub", value, one), m.op("fadd", value, one))
    square = m.op("fmul", s, s)
    log = m.fma(m.op("fmul", square, s), m.poly(square, tables.LOG_ATANH), s)
    # e fits the low bits of 1.5 * 2^52, so no conversion from 64-bit integers is needed.
    magic = m.ints(0x4338000000000000, x)
    shifted = m.floats(m.op("add", e, magic), x.ty)
    exponent = m.op("fsub", shifted, real(1.5 * 2.0**52, x.ty))
    return m.fma(log, real(2 / math.log(2), x.ty), exponent)


def _exp2_wide(m: MathBlocks, x: Val) -> Val:
    """2^x of f64 in [-200, 200], to about 1e-12."""
    shift = real(1.5 * 2.0**52, x.ty)
    shifted = m.op("fadd", x, shift)
    rest = m.op("fsub", x, m.op("fsub", shifted, shift))
    value = m.fma(m.poly(rest, tables.EXP2), rest, real(1.0, x.ty))
    power = m.op("shl", m.bits(shifted), m.ints(52, x))
    return m.floats(m.op("add", m.bits(value), power), x.ty)
