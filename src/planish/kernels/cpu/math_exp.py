"""Exponentials, logarithms, erf and tanh for f32 scalars and vectors.

Argument reductions are those of W. J. Cody and W. Waite, "Software Manual for the Elementary
Functions" (1980); coefficients come from `math_tables`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from planish.kernels.cpu import math_tables as tables
from planish.kernels.cpu.math_blocks import MathBlocks
from planish.targets.ir import Val, real

LN2_HIGH, LN2_LOW = 0.693359375, -2.1219444005469057e-4  # the high part has 9 bits
_SHIFT = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
_INF = math.inf


def _exp_parts(m: MathBlocks, x: Val) -> tuple[Val, Val]:
    """Split x = n ln 2 + r: (n + the shift as a float, exp(r) - 1)."""
    shift = real(_SHIFT, x.ty)
    shifted = m.fma(x, real(1 / math.log(2), x.ty), shift)
    n = m.op("fsub", shifted, shift)
    r = m.fma(n, real(-LN2_HIGH, x.ty), x)
    r = m.fma(n, real(-LN2_LOW, x.ty), r)
    return shifted, m.fma(m.op("fmul", r, r), m.poly(r, tables.EXP), r)


def _power_of_two(m: MathBlocks, n: Val, ty: str) -> Val:
    """2^n of integers in [-126, 127]."""
    one = m.ints(127, Val(ty, ""))
    return m.floats(m.op("shl", m.op("add", n, one), m.ints(23, Val(ty, ""))), ty)


def exp_scaled(m: MathBlocks, x: Val, bias: int) -> Val:
    """exp(x) * 2^bias, rounded once."""
    x = m.clamp(x, -104.0, 90.0)
    shifted, rest = _exp_parts(m, x)
    value = m.op("fadd", rest, real(1.0, x.ty))
    if m.target.isa == "avx512" and x.lanes == 16:
        n = m.op("fsub", shifted, real(_SHIFT - bias, x.ty))
        name = "llvm.x86.avx512.mask.scalef.ps.512"
        m.f.module.declare(name, x.ty, [x.ty, x.ty, x.ty, "i16", "i32 immarg"])
        refs = f"{x.ty} {value.ref}, {x.ty} {n.ref}, {x.ty} {value.ref}"
        return m.f.emit(x.ty, f"call {x.ty} @{name}({refs}, i16 -1, i32 4)")
    base = 0x4B400000 - bias
    n = m.op("sub", m.bits(shifted), m.ints(base, x))
    half = m.op("ashr", n, m.ints(1, x))
    first = _power_of_two(m, half, x.ty)
    second = _power_of_two(m, m.op("sub", n, half), x.ty)
    return m.op("fmul", m.op("fmul", value, first), second)


def exp(m: MathBlocks, x: Val) -> Val:
    """e^x."""
    return exp_scaled(m, x, 0)


def expm1(m: MathBlocks, x: Val) -> Val:
    """2 (s q + (s - 1/2)) with s = 2^(n-1) and q = exp(r) - 1, so that s never overflows."""
    held = m.clamp(x, -20.0, 89.0)
    shifted, q = _exp_parts(m, held)
    n = m.op("sub", m.bits(shifted), m.ints(0x4B400000 + 1, x))
    s = _power_of_two(m, n, x.ty)
    value = m.fma(s, q, m.op("fsub", s, real(0.5, x.ty)))
    value = m.op("fadd", value, value)
    small = m.f.fcmp("olt", m.abs(x), real(1e-8, x.ty))
    return m.f.select(small, x, value)


def _log_parts(m: MathBlocks, x: Val) -> tuple[Val, Val]:
    """Normal x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)): (e as an integer, f)."""
    root = m.ints(0x3F3504F3, x)
    raw = m.op("sub", m.bits(x), root)
    e = m.op("ashr", raw, m.ints(23, x))
    mantissa = m.op("add", m.op("and", raw, m.ints(0x7FFFFF, x)), root)
    return e, m.op("fsub", m.floats(mantissa, x.ty), real(1.0, x.ty))


def _log_sum(m: MathBlocks, e: Val, f: Val) -> Val:
    """Add e ln 2 + log(1 + f), `e` already a float."""
    square = m.op("fmul", f, f)
    y = m.op("fmul", m.op("fmul", f, square), m.poly(f, tables.LOG))
    y = m.fma(e, real(LN2_LOW, f.ty), y)
    y = m.fma(square, real(-0.5, f.ty), y)
    return m.fma(e, real(LN2_HIGH, f.ty), m.op("fadd", f, y))


def _log_edges(m: MathBlocks, x: Val, pole: float, value: Val) -> Val:
    """-inf at the pole, NaN below it, inf and NaN as they are."""
    value = m.choose("ult", x, _INF, value, x)
    value = m.choose("oeq", x, pole, real(-_INF, x.ty), value)
    return m.choose("olt", x, pole, real(math.nan, x.ty), m.choose("uno", x, 0.0, x, value))


def log(m: MathBlocks, x: Val) -> Val:
    """The natural logarithm."""
    tiny = m.f.fcmp("olt", x, real(2.0**-126, x.ty))
    normal = m.f.select(tiny, m.op("fmul", x, real(2.0**23, x.ty)), x)
    e, f = _log_parts(m, normal)
    exponent = m.f.cast("sitofp", e, x.ty)
    bias = m.f.select(tiny, real(-23.0, x.ty), real(0.0, x.ty))
    return _log_edges(m, x, 0.0, _log_sum(m, m.op("fadd", exponent, bias), f))


def log1p(m: MathBlocks, x: Val) -> Val:
    """log(u) with u = 1 + x rounded; what the rounding lost is added to the mantissa."""
    one = real(1.0, x.ty)
    u = m.op("fadd", one, x)
    high = m.op("fsub", u, one)
    lost = m.op("fadd", m.op("fsub", one, m.op("fsub", u, high)), m.op("fsub", x, high))
    e, f = _log_parts(m, u)
    down = m.op("sub", m.ints(0, x), e)
    down = m.f.select(m.f.icmp("sgt", down, m.ints(-126, x)), down, m.ints(-126, x))
    f = m.fma(lost, _power_of_two(m, down, x.ty), f)
    value = _log_sum(m, m.f.cast("sitofp", e, x.ty), f)
    value = m.f.select(m.f.fcmp("olt", m.abs(x), real(1e-8, x.ty)), x, value)
    return _log_edges(m, x, -1.0, value)


def _odd_ratio(
    m: MathBlocks, x: Val, limit: float, top: Sequence[float], bottom: Sequence[float]
) -> Val:
    x = m.clamp(x, -limit, limit)
    square = m.op("fmul", x, x)
    return m.f.fdiv(m.op("fmul", x, m.poly(square, top)), m.poly(square, bottom))


def erf(m: MathBlocks, x: Val) -> Val:
    """The error function."""
    return m.clamp(_odd_ratio(m, x, 3.925, tables.ERF_P, tables.ERF_Q), -1.0, 1.0)


def tanh(m: MathBlocks, x: Val) -> Val:
    """The hyperbolic tangent."""
    return m.clamp(_odd_ratio(m, x, 9.02, tables.TANH_P, tables.TANH_Q), -1.0, 1.0)
