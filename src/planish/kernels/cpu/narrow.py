"""f16 and bf16 in memory, f32 in registers.

Conversions to and from f16 without the instructions for it follow F. Giesen, "Half to float done
quick" and "float_to_half_fast3_rtne" (2012, public domain).
"""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.kernels.cpu.math_blocks import MathBlocks
from planish.targets.ir import Val, real, vector

NARROW = (DType.F16, DType.BF16)


def widen(m: MathBlocks, raw: Val, dtype: DType) -> Val:
    """The f32 value of f16 or bf16 bits (i16)."""
    f, ty = m.f, vector("float", raw.lanes)
    like = real(0.0, ty)
    if dtype is DType.BF16:
        bits = f.cast("zext", raw, m.bits_type(like))
        return m.floats(m.op("shl", bits, m.ints(16, like)), ty)
    if _has_f16(m):
        return f.cast("fpext", f.cast("bitcast", raw, vector("half", raw.lanes)), ty)
    bits = f.cast("zext", raw, m.bits_type(like))
    sign = m.op("shl", m.op("and", bits, m.ints(0x8000, like)), m.ints(16, like))
    rest = m.op("shl", m.op("and", bits, m.ints(0x7FFF, like)), m.ints(13, like))
    exponent = m.op("and", rest, m.ints(0x0F800000, like))
    normal = m.op("add", rest, m.ints(112 << 23, like))
    special = m.op("add", normal, m.ints(112 << 23, like))
    tiny = m.floats(m.op("add", normal, m.ints(1 << 23, like)), ty)
    tiny = m.bits(m.op("fsub", tiny, m.floats(m.ints(113 << 23, like), ty)))
    value = f.select(f.icmp("eq", exponent, m.ints(0, like)), tiny, normal)
    value = f.select(f.icmp("eq", exponent, m.ints(0x0F800000, like)), special, value)
    return m.floats(m.op("or", value, sign), ty)


def shorten(m: MathBlocks, value: Val, dtype: DType) -> Val:
    """The nearest f16 or bf16, ties to even, as bits (i16)."""
    f, short = m.f, vector("i16", value.lanes)
    if dtype is DType.F16 and _has_f16(m):
        return f.cast("bitcast", f.cast("fptrunc", value, vector("half", value.lanes)), short)
    bits = m.bits(value)
    if dtype is DType.BF16:
        top = m.op("lshr", bits, m.ints(16, value))
        odd = m.op("and", top, m.ints(1, value))
        rounded = m.op("add", m.op("add", bits, m.ints(0x7FFF, value)), odd)
        rounded = m.op("lshr", rounded, m.ints(16, value))
        quiet = m.op("or", top, m.ints(0x40, value))
        return f.cast("trunc", f.select(f.fcmp("uno", value, value), quiet, rounded), short)
    sign = m.op("and", m.op("lshr", bits, m.ints(16, value)), m.ints(0x8000, value))
    size = m.op("and", bits, m.ints(0x7FFFFFFF, value))
    half = real(0.5, value.ty)
    tiny = m.op("sub", m.bits(m.op("fadd", m.floats(size, value.ty), half)), m.bits(half))
    odd = m.op("and", m.op("lshr", size, m.ints(13, value)), m.ints(1, value))
    normal = m.op("add", m.op("sub", size, m.ints((112 << 23) - 0xFFF, value)), odd)
    normal = m.op("lshr", normal, m.ints(13, value))
    infinite = m.ints(0x7C00, value)
    special = f.select(f.fcmp("uno", value, value), m.ints(0x7E00, value), infinite)
    small = f.icmp("ult", size, m.ints(0x38800000, value))
    out = f.select(small, tiny, normal)
    out = f.select(f.icmp("uge", size, m.ints(0x47800000, value)), special, out)
    return f.cast("trunc", m.op("or", out, sign), short)


def _has_f16(m: MathBlocks) -> bool:
    """Whether the target converts f16 by instructions; every isa but plain SSE2 does."""
    return not (m.target.isa == "generic" and m.target.triple.startswith("x86_64"))
