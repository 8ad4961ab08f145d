"""What elementary functions are made of: FMA, polynomials, bit patterns, rounding, selection."""

from __future__ import annotations

from collections.abc import Sequence

from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Val, integer, real, suffix, vector, zero

# Lanes -> the x86 instruction that converts floats to the nearest i32.
_NEAREST = {
    4: "llvm.x86.sse2.cvtps2dq",
    8: "llvm.x86.avx.cvt.ps2dq.256",
    16: "llvm.x86.avx512.mask.cvtps2dq.512",
}


class MathBlocks:
    """Appends floating-point arithmetic to a function under construction.

    Args:
        function: Where the code goes.
        target: Tells whether FMA exists and how wide vectors are.
    """

    def __init__(self, function: Function, target: CpuTarget) -> None:
        self.f = function
        self.target = target

    def fma(self, a: Val, b: Val, c: Val) -> Val:
        """a*b + c, fused where the target can."""
        return self.f.fma(a, b, c, fused=self.target.fma)

    def poly(self, x: Val, coefficients: Sequence[float]) -> Val:
        """Evaluate sum c[k] x^k by Horner's rule."""
        total = real(coefficients[-1], x.ty)
        for value in reversed(coefficients[:-1]):
            total = self.fma(total, x, real(value, x.ty))
        return total

    def ints(self, value: int, like: Val) -> Val:
        """An integer literal with the lanes and the lane width of a float value."""
        scalar = f"i{64 if like.element == 'double' else 32}"
        return integer(value, vector(scalar, like.lanes))

    def bits_type(self, like: Val) -> str:
        """The integer type with the lanes and the lane width of a float value."""
        return self.ints(0, like).ty

    def bits(self, x: Val) -> Val:
        """The bit pattern of a float value."""
        return self.f.cast("bitcast", x, self.bits_type(x))

    def floats(self, bits: Val, ty: str) -> Val:
        """The float value of a bit pattern."""
        return self.f.cast("bitcast", bits, ty)

    def op(self, name: str, a: Val, b: Val) -> Val:
        """A plain LLVM instruction, never contracted."""
        return self.f.binary(name, a, b)

    def neg(self, x: Val) -> Val:
        """-x."""
        return self.f.emit(x.ty, f"fneg {x.ty} {x.ref}")

    def abs(self, x: Val) -> Val:
        """|x|."""
        return self.f.intrinsic("fabs", x.ty, [x])

    def copysign(self, magnitude: Val, sign: Val) -> Val:
        """|magnitude| with the sign of `sign`."""
        return self.f.intrinsic("copysign", magnitude.ty, [magnitude, sign])

    def clamp(self, x: Val, low: float, high: float) -> Val:
        """Hold x within [low, high]; NaN stays."""
        return self.at_most(self.at_least(x, low), high)

    def at_least(self, x: Val, low: float) -> Val:
        """max(x, low); NaN stays. One instruction where the constant comes first."""
        bound = real(low, x.ty)
        return self.f.select(self.f.fcmp("ogt", bound, x), bound, x)

    def at_most(self, x: Val, high: float) -> Val:
        """min(x, high); NaN stays."""
        bound = real(high, x.ty)
        return self.f.select(self.f.fcmp("olt", bound, x), bound, x)

    def choose(self, predicate: str, x: Val, bound: float, yes: Val, no: Val) -> Val:
        """`yes` where `x predicate bound`, else `no`."""
        return self.f.select(self.f.fcmp(predicate, x, real(bound, x.ty)), yes, no)

    def choose_inf(self, x: Val) -> Val:
        """Where x is infinite."""
        return self.f.fcmp("oeq", self.abs(x), real(float("inf"), x.ty))

    def sqrt(self, x: Val) -> Val:
        """The square root, correctly rounded."""
        return self.f.intrinsic("sqrt", x.ty, [x])

    def rounded(self, how: str, x: Val) -> Val:
        """`floor`, `ceil`, `trunc` or `round` (half to even).

        Plain SSE2 has no such instruction; there, adding and subtracting a power of two rounds.
        """
        if not (self.target.isa == "generic" and self.target.triple.startswith("x86_64")):
            name = "roundeven" if how == "round" else how
            return self.f.intrinsic(name, x.ty, [x])
        if how == "trunc":
            return self.copysign(self.rounded("floor", self.abs(x)), x)
        limit = real(2.0**52 if x.element == "double" else 2.0**23, x.ty)
        away = self.copysign(limit, x)
        near = self.op("fsub", self.op("fadd", x, away), away)
        one, none = real(1.0, x.ty), real(0.0, x.ty)
        if how == "floor":
            over = self.f.select(self.f.fcmp("ogt", near, x), one, none)
            near = self.op("fsub", near, over)
        elif how == "ceil":
            under = self.f.select(self.f.fcmp("olt", near, x), one, none)
            near = self.op("fadd", near, under)
        inside = self.f.fcmp("olt", self.abs(x), limit)
        return self.f.select(inside, self.copysign(near, x), x)

    def nearest(self, x: Val) -> Val:
        """The nearest i32 of an f32 that fits, half to even; NaN gives a multiple of 2^16.

        On x86 one instruction a register, in the rounding mode that processes start with.
        """
        ty = vector("i32", x.lanes)
        if not self.target.triple.startswith("x86_64"):
            rounded = self.rounded("round", x)
            name = f"llvm.fptosi.sat.{suffix(ty)}.{suffix(x.ty)}"
            return self.f.call(name, ty, [rounded])
        width = max(n for n in _NEAREST if n == 4 or n <= min(x.lanes, self.target.lanes()))
        padded = max(width, x.lanes)
        if x.lanes == 1:
            whole = self.f.insert(zero(vector("float", 4)), x, 0)
        else:
            lanes = [n if n < x.lanes else -1 for n in range(padded)]
            whole = x if padded == x.lanes else self.f.shuffle(x, x, lanes)
        pieces = [
            self._nearest_piece(self.f.shuffle(whole, whole, range(n, n + width)))
            if padded > width
            else self._nearest_piece(whole)
            for n in range(0, padded, width)
        ]
        while len(pieces) > 1:
            pairs = zip(pieces[::2], pieces[1::2], strict=True)
            pieces = [self.f.shuffle(a, b, range(2 * a.lanes)) for a, b in pairs]
        if x.lanes == 1:
            return self.f.extract(pieces[0], 0)
        return (
            pieces[0] if padded == x.lanes else self.f.shuffle(pieces[0], pieces[0], range(x.lanes))
        )

    def _nearest_piece(self, x: Val) -> Val:
        ty = vector("i32", x.lanes)
        if x.lanes < 16:
            return self.f.call(_NEAREST[x.lanes], ty, [x])
        mask, mode = integer(-1, "i16"), integer(4, "i32")
        return self.f.call(_NEAREST[16], ty, [x, zero(ty), mask, mode])

    def any_lane(self, condition: Val) -> Val:
        """An i1: does the condition hold in some lane?"""
        if condition.lanes == 1:
            return condition
        packed = self.f.cast("bitcast", condition, f"i{condition.lanes}")
        return self.f.icmp("ne", packed, 0)

    def by_lane(self, name: str, args: Sequence[Val]) -> Val:
        """The C library's function of f64, one lane at a time."""
        if args[0].lanes == 1:
            return self.f.call(name, "double", args)
        total = real(0.0, args[0].ty)
        for lane in range(args[0].lanes):
            one = self.f.call(name, "double", [self.f.extract(a, lane) for a in args])
            total = self.f.insert(total, one, lane)
        return total
