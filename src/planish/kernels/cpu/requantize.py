"""Takes the rounding end of an 8-bit epilogue apart, so that x86 packs do the clamping.

    cast u8 (clamp (cast i32 (clamp (round y) …) + zero point) 0 255)

becomes y, an upper bound for y, the zero point, and bounds that saturating packs give for nothing:
    min, convert (it rounds), pack to i16, add with saturation, pack to 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr
from planish.kernels.cpu.arithmetic import literal
from planish.targets.ir import Function, Val, suffix, vector, zero

_LIMITS = {DType.U8: (0, 255), DType.I8: (-128, 127)}
_FARTHEST = 4096  # zero points stay below it: far from what i16 holds
_CONVERT = ("sse2.cvtps2dq", "avx.cvt.ps2dq.256", "avx512.mask.cvtps2dq.512")
_PACK: dict[DType, tuple[str, str, str]] = {  # to a type, from twice its width: 16, 32, 64 bytes
    DType.I16: ("sse2.packssdw.128", "avx2.packssdw", "avx512.packssdw.512"),
    DType.U8: ("sse2.packuswb.128", "avx2.packuswb", "avx512.packuswb.512"),
    DType.I8: ("sse2.packsswb.128", "avx2.packsswb", "avx512.packsswb.512"),
}


@dataclass(frozen=True)
class Rounding:
    """clamp(round(value) + zero, low, high), as an 8-bit integer.

    A NaN gives `low` or `high`, by its sign bit.

    Attributes:
        value: What is rounded, half to even: an f32 expression.
        zero: Added after rounding.
        low: Least result.
        high: Greatest result.
        dtype: u8 or i8.
    """

    value: Expr
    zero: int
    low: int
    high: int
    dtype: DType

    @property
    def most(self) -> float:
        """What `value` may be cut to without a change of the result."""
        return float(self.high - self.zero)


def take_rounding(expr: Expr) -> Rounding | None:
    """Read an epilogue from the outside in; None if it is not of the form above."""
    if not (isinstance(expr, Call) and expr.fn == "cast" and expr.dtype in _LIMITS):
        return None
    low, high = _LIMITS[expr.dtype]
    at, zero, (least, most) = expr.args[0], 0, _LIMITS[expr.dtype]
    bounded = at.dtype is DType.F32  # such a cast saturates, one from i32 wraps
    low, high = (low, high) if bounded else (-(1 << 40), 1 << 40)
    rounded = False
    while not (rounded and not _is_bound(at)):
        match at:
            case (
                Call(fn="min" | "max" as fn, args=(inner, Const(value=value)))
                | Call(fn="min" | "max" as fn, args=(Const(value=value), inner))
            ):
                bound = _whole(value)
                if bound is None:
                    return None
                edge = max(low, min(high, bound + zero))
                low, high = (low, edge) if fn == "min" else (edge, high)
                at = inner
            case Call(fn="add", args=(inner, offset)) if not rounded:
                step = _literal(offset)
                if step is None:
                    return None
                zero, at = zero + step, inner
            case Call(fn="cast", args=(inner,)) if (at.dtype, inner.dtype) == (
                DType.I32,
                DType.F32,
            ):
                at = inner
            case Call(fn="round", args=(inner,)) if inner.dtype is DType.F32:
                at, rounded = inner, True
            case _:
                return None
    if low < least or high > most or abs(zero) > _FARTHEST:
        return None
    return Rounding(at, zero, low, high, expr.dtype)


def _is_bound(at: Expr) -> bool:
    """Whether an expression is a minimum or maximum with a whole literal."""
    if not (isinstance(at, Call) and at.fn in ("min", "max")):
        return False
    return any(isinstance(arg, Const) and _whole(arg.value) is not None for arg in at.args)


def _whole(value: float) -> int | None:
    """A bound as an integer; only a whole one is the same bound before rounding and after it."""
    return int(value) if abs(value) < 1 << 30 and value == int(value) else None


def _literal(expr: Expr) -> int | None:
    """The value of an integral literal, through casts."""
    while isinstance(expr, Call) and expr.fn == "cast":
        expr = expr.args[0]
    if isinstance(expr, Const) and abs(expr.value) <= _FARTHEST and expr.value == int(expr.value):
        return int(expr.value)
    return None


def round_to_i32(f: Function, value: Val) -> Val:
    """An f32 vector rounded half to even; what i32 cannot hold becomes the least i32 (x86)."""
    ty = vector("i32", value.lanes)
    if value.lanes < 16:
        return f.call(f"llvm.x86.{_CONVERT[value.lanes // 8]}", ty, [value])
    nearest = Val("i32", "4")  # the rounding mode of the environment
    return f.call(f"llvm.x86.{_CONVERT[2]}", ty, [value, zero(ty), Val("i16", "-1"), nearest])


def at_most(f: Function, value: Val, most: float) -> Val:
    """The f32 minimum with a bound that is not negative; a NaN gives either.

    Compared as integers: the bits of floats that are not negative are in order, all others are
    less. Ports that multiply stay free.
    """
    bits = vector("i32", value.lanes)
    bound = literal(int(np.float32(most).view(np.int32)), DType.I32, value.lanes)
    held = f.intrinsic("smin", bits, [f.cast("bitcast", value, bits), bound])
    return f.cast("bitcast", held, value.ty)


def pack(f: Function, low: Val, high: Val, to: DType) -> Val:
    """Two vectors narrowed with saturation, 16 bytes of each in turn (x86 packs)."""
    size = {DType.I16: 32}.get(to, 16)
    bytes_ = low.lanes * size // 8
    name = _PACK[to][bytes_.bit_length() - 5]
    return f.call(f"llvm.x86.{name}", vector(f"i{size // 2}", 2 * low.lanes), [low, high])


def halve(f: Function, rounding: Rounding, low: Val, high: Val) -> Val:
    """Two vectors of `round_to_i32(min(value, most))` as i16 with the zero point added."""
    half = pack(f, low, high, DType.I16)
    if not rounding.zero:
        return half
    offset = literal(rounding.zero, DType.I16, half.lanes)
    return f.call(f"llvm.sadd.sat.{suffix(offset.ty)}", half.ty, [half, offset])


def bytes_of(f: Function, rounding: Rounding, halves: Sequence[Val]) -> Val:
    """Two vectors of `halve` as one vector of bytes.

    Of each 16 bytes of the result, four come from each of the four parts in turn.
    """
    whole = pack(f, halves[0], halves[1], rounding.dtype)
    if rounding.low > _LIMITS[rounding.dtype][0]:
        sign = "s" if rounding.dtype.is_signed else "u"
        least = literal(rounding.low, rounding.dtype, whole.lanes)
        whole = f.select(f.icmp(f"{sign}gt", whole, least), whole, least)
    return whole
