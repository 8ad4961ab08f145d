"""The functions of `planish.base.expr` as LLVM code, on scalars and vectors in registers.

In registers f16 and bf16 are f32 and bool is i1. Results are those of
`planish.kernels.reference_expr`; nothing traps and nothing is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import CompileError
from planish.kernels.cpu.narrow import NARROW, shorten, widen
from planish.kernels.cpu.vector_math import FUNCTIONS, VectorMath
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Val, integer, real, vector, zero

_COMPARE = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
_BITWISE = {"and": "and", "or": "or", "xor": "xor"}


def register_type(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type that holds values of a dtype in registers."""
    if dtype in NARROW:
        return vector("float", lanes)
    return vector("i1" if dtype is DType.BOOL else dtype.llvm, lanes)


def literal(value: int | float | bool, dtype: DType, lanes: int = 1) -> Val:
    """A constant in registers, the same in each lane."""
    ty = register_type(dtype, lanes)
    if dtype.is_float:
        return real(float(value), ty)
    return integer(int(value), ty)


_SHUFFLE_BYTES = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}


def worth_table(target: CpuTarget) -> int:
    """Instructions that a function of one byte must take to be worth a table; 0 if none is."""
    if target.byte_tables:
        return 4
    return 32 if target.isa in ("avx2", "avx512") else 0


class Arithmetic:
    """Appends scalar or vector arithmetic to a function.

    Attributes:
        exact: Sums and products of floats are rounded one by one, never contracted.
    """

    def __init__(self, math: VectorMath) -> None:
        self.math = math
        self.f = math.f
        self.exact = False

    def call(self, fn: str, args: Sequence[Val], dtype: DType) -> Val:
        """Apply a function other than `select` and `cast`.

        Args:
            fn: Its name.
            args: Values of one type.
            dtype: The dtype of the arguments.
        """
        if dtype.is_float:
            table: dict[str, _Rule] = _FLOAT
        else:
            table = _BOOL if dtype is DType.BOOL else _WHOLE
        if fn in FUNCTIONS and dtype.is_float and fn != "pow":
            return self.math.apply(fn, args)
        if fn not in table:
            raise CompileError(f"the CPU has no code for {fn!r} on {dtype}")
        return table[fn](self, dtype, *args)

    def cast(self, value: Val, source: DType, to: DType) -> Val:
        """Convert between dtypes."""
        if source is to:
            return value
        if to is DType.BOOL:
            return self._nonzero(value, source)
        ty = register_type(to, value.lanes)
        if source is DType.BOOL:
            return self.f.cast("uitofp" if to.is_float else "zext", value, ty)
        if source.is_float:
            return self._from_float(value, to, ty)
        if not to.is_float:
            return self._resize(value, source, ty)
        made = self.f.cast("sitofp" if source.is_signed else "uitofp", value, ty)
        return self.round_to(made, to)

    def round_to(self, value: Val, dtype: DType) -> Val:
        """An f32 in registers rounded to f16 or bf16, kept as f32; other dtypes as they are."""
        if dtype not in NARROW:
            return value
        return widen(self.math, shorten(self.math, value, dtype), dtype)

    def from_memory(self, raw: Val, dtype: DType) -> Val:
        """The register form of loaded bytes (f16 and bf16 are loaded as i16)."""
        if dtype in NARROW:
            return widen(self.math, raw, dtype)
        return self.f.icmp("ne", raw, zero(raw.ty)) if dtype is DType.BOOL else raw

    def to_memory(self, value: Val, dtype: DType) -> Val:
        """The form to store."""
        if dtype in NARROW:
            return shorten(self.math, value, dtype)
        if dtype is DType.BOOL:
            return self.f.cast("zext", value, vector("i8", value.lanes))
        return value

    def lookup(self, number: Val, table: np.ndarray) -> Val:
        """Bytes of a table of 256, by numbers; for targets on which a table is worth something."""
        f, width = self.f, self.math.target.vector_bytes
        base = f.module.constant("i8", [str(byte) for byte in table])
        if number.lanes == 1:
            return f.load("i8", f.offset(base, f.cast("zext", number, "i64")))
        lanes = [n if n < number.lanes else -1 for n in range(width)]
        wide = number if number.lanes == width else f.shuffle(number, number, lanes)
        made = self._two_registers(base, wide)
        if made is None:
            made = self._sixteen_rows(base, wide)
        return made if number.lanes == width else f.shuffle(made, made, range(number.lanes))

    def _two_registers(self, base: Val, number: Val) -> Val | None:
        """A lookup by instructions that read half of the table at once; None without them."""
        f, ty = self.f, number.ty
        if not self.math.target.byte_tables:
            return None
        quarters = [f.load(ty, f.offset(base, 64 * n), align=64) for n in range(4)]
        low, high = (
            f.call("llvm.x86.avx512.vpermi2var.qi.512", ty, [a, number, b])
            for a, b in (quarters[:2], quarters[2:])
        )
        return f.select(f.icmp("slt", number, zero(ty)), high, low)

    def _sixteen_rows(self, base: Val, number: Val) -> Val:
        """A lookup in rows of 16: `pshufb` gives 0 where bit 7 is set, as in all rows but one."""
        f, ty, lanes = self.f, number.ty, number.lanes
        total = zero(ty)
        for row in range(16):
            line = f.load("<16 x i8>", f.offset(base, 16 * row), align=16)
            line = f.shuffle(line, line, [n % 16 for n in range(lanes)])
            own = f.binary("xor", number, literal(16 * row, DType.U8, lanes))
            own = f.intrinsic("uadd.sat", ty, [own, literal(0x70, DType.U8, lanes)])
            total = f.binary("or", total, f.call(_SHUFFLE_BYTES[lanes], ty, [line, own]))
        return total

    def _nonzero(self, value: Val, source: DType) -> Val:
        if source.is_float:
            return self.f.fcmp("une", value, real(0.0, value.ty))
        return self.f.icmp("ne", value, zero(value.ty))

    def _resize(self, value: Val, source: DType, ty: str) -> Val:
        have, want = int(value.element[1:]), int(Val(ty, "").element[1:])
        if have == want:
            return value
        wider = "sext" if source.is_signed else "zext"
        return self.f.cast(wider if want > have else "trunc", value, ty)

    def _from_float(self, value: Val, to: DType, ty: str) -> Val:
        if to.is_float:
            if value.element == "double" and Val(ty, "").element == "float":
                return self.round_to(self.f.cast("fptrunc", value, ty), to)
            if value.element == "float" and Val(ty, "").element == "double":
                return self.f.cast("fpext", value, ty)
            return self.round_to(value, to)
        if to.bits < 32:
            low = 0 if not to.is_signed else -(1 << (to.bits - 1))
            high = (1 << (to.bits - (1 if to.is_signed else 0))) - 1
            held = self.math.clamp(value, float(low), float(high))
            held = self.f.select(self.f.fcmp("uno", value, value), real(0.0, value.ty), held)
            whole = self.f.cast("fptosi", held, vector("i32", value.lanes))
            return self.f.cast("trunc", whole, ty)
        name = f"llvm.fpto{'s' if to.is_signed else 'u'}i.sat.{_mangle(ty)}.{_mangle(value.ty)}"
        return self.f.call(name, ty, [value])


def _mangle(ty: str) -> str:
    value = Val(ty, "")
    name = {"float": "f32", "double": "f64"}.get(value.element, value.element)
    return name if value.lanes == 1 else f"v{value.lanes}{name}"


_Rule = Callable[..., Val]


def _float_compare(predicate: str) -> _Rule:
    return lambda a, dtype, x, y: a.f.fcmp(predicate, x, y)


def _plain(instruction: str) -> _Rule:
    return lambda a, dtype, x, y: a.f.binary(instruction, x, y)


def _contracted(instruction: str) -> _Rule:
    """A sum or product that may become part of an fma."""
    return lambda a, dtype, x, y: a.f.binary(instruction, x, y, "" if a.exact else "contract")


def _is_nan_free(value: Val) -> bool:
    """Whether a value is a literal other than NaN."""
    return not value.ref.startswith("%") and "0x7FF8" not in value.ref


def _float_extreme(predicate: str) -> _Rule:
    """Minimum or maximum that is NaN if either is; -0 and 0 count as equal.

    `x < y ? x : y` is one x86 instruction and gives y where either is NaN.
    """

    def run(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
        if _is_nan_free(y):
            x, y = y, x
        best = a.f.select(a.f.fcmp(predicate, x, y), x, y)
        return best if _is_nan_free(x) else a.f.select(a.f.fcmp("uno", x, x), x, best)

    return run


def _float_sign(a: Arithmetic, dtype: DType, x: Val) -> Val:
    low = a.math.choose("olt", x, 0.0, real(-1.0, x.ty), x)
    return a.math.choose("ogt", x, 0.0, real(1.0, x.ty), low)


def _float_fmod(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
    return a.f.binary("frem", x, y)


def _float_mod(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
    none = real(0.0, x.ty)
    rest = a.f.binary("frem", x, y)
    differ = a.f.binary("xor", a.f.fcmp("olt", rest, none), a.f.fcmp("olt", y, none))
    wrong = a.f.binary("and", a.f.fcmp("one", rest, none), differ)
    return a.f.select(wrong, a.f.binary("fadd", rest, y), rest)


_POWERS = {-1.0: "recip", 0.5: "sqrt", -0.5: "rsqrt"}


def _float_pow(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
    for exponent, fn in _POWERS.items():
        if y.ref == real(exponent, y.ty).ref:
            return a.math.apply(fn, [x])
    for exponent in (1, 2, 3, 4):
        if y.ref == real(float(exponent), y.ty).ref:
            square = a.f.binary("fmul", x, x) if exponent > 1 else x
            return {1: x, 2: square}.get(exponent) or a.f.binary(
                "fmul", square, x if exponent == 3 else square
            )
    return a.math.apply("pow", [x, y])


def _rounded(how: str) -> _Rule:
    return lambda a, dtype, x: a.math.rounded(how, x)


_FLOAT: dict[str, _Rule] = {
    "add": _contracted("fadd"),
    "sub": _contracted("fsub"),
    "mul": _contracted("fmul"),
    "div": _plain("fdiv"),
    "floordiv": lambda a, dtype, x, y: a.math.rounded("floor", a.f.fdiv(x, y)),
    "mod": _float_mod,
    "fmod": _float_fmod,
    "pow": _float_pow,
    "fma": lambda a, dtype, x, y, z: a.math.fma(x, y, z),
    "min": _float_extreme("olt"),
    "max": _float_extreme("ogt"),
    **{name: _float_compare(f"o{code}") for name, code in _COMPARE.items() if name != "ne"},
    "ne": _float_compare("une"),
    "neg": lambda a, dtype, x: a.math.neg(x),
    "abs": lambda a, dtype, x: a.math.abs(x),
    "sign": _float_sign,
    **{how: _rounded(how) for how in ("floor", "ceil", "round", "trunc")},
    "isnan": lambda a, dtype, x: a.f.fcmp("uno", x, x),
    "isinf": lambda a, dtype, x: a.math.choose_inf(x),
}


def _whole_compare(code: str) -> _Rule:
    def run(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
        sign = "" if code in ("eq", "ne") else ("s" if dtype.is_signed else "u")
        return a.f.icmp(sign + code, x, y)

    return run


def _whole_extreme(code: str) -> _Rule:
    def run(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
        return a.f.select(a.f.icmp(("s" if dtype.is_signed else "u") + code, x, y), x, y)

    return run


def _safe_divisor(a: Arithmetic, dtype: DType, y: Val) -> tuple[Val, Val]:
    """(where the divisor is 0, a divisor by which no division traps)."""
    one, none = literal(1, dtype, y.lanes), zero(y.ty)
    if y.literal not in (None, 0, -1):
        return literal(0, DType.BOOL, y.lanes), y
    empty = a.f.icmp("eq", y, none)
    unsafe = empty
    if dtype.is_signed:
        minus = a.f.icmp("eq", y, literal(-1, dtype, y.lanes))
        unsafe = a.f.binary("or", empty, minus)
    return empty, a.f.select(unsafe, one, y)


def _quotient(a: Arithmetic, dtype: DType, x: Val, y: Val) -> tuple[Val, Val]:
    """(truncated quotient, remainder); both 0 for a zero divisor."""
    empty, safe = _safe_divisor(a, dtype, y)
    sign, none = ("s" if dtype.is_signed else "u"), zero(x.ty)
    quotient, rest = a.f.binary(f"{sign}div", x, safe), a.f.binary(f"{sign}rem", x, safe)
    if safe is y:
        return quotient, rest
    if dtype.is_signed:
        minus = a.f.icmp("eq", y, literal(-1, dtype, y.lanes))
        quotient = a.f.select(minus, a.f.binary("sub", none, x), quotient)
    return a.f.select(empty, none, quotient), a.f.select(empty, none, rest)


def _crosses(a: Arithmetic, rest: Val, y: Val) -> Val:
    """Where a truncated remainder is not 0 and has the other sign than the divisor."""
    none = zero(rest.ty)
    opposite = a.f.icmp("slt", a.f.binary("xor", rest, y), none)
    return a.f.binary("and", opposite, a.f.icmp("ne", rest, none))


def _whole_floordiv(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
    quotient, rest = _quotient(a, dtype, x, y)
    if not dtype.is_signed:
        return quotient
    one = literal(1, dtype, x.lanes)
    return a.f.select(_crosses(a, rest, y), a.f.binary("sub", quotient, one), quotient)


def _whole_mod(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
    _, rest = _quotient(a, dtype, x, y)
    if not dtype.is_signed:
        return rest
    return a.f.select(_crosses(a, rest, y), a.f.binary("add", rest, y), rest)


def _whole_sign(a: Arithmetic, dtype: DType, x: Val) -> Val:
    none, one = zero(x.ty), literal(1, dtype, x.lanes)
    positive = a.f.select(a.f.icmp("ne", x, none), one, none)
    if not dtype.is_signed:
        return positive
    return a.f.select(a.f.icmp("slt", x, none), literal(-1, dtype, x.lanes), positive)


def _whole_abs(a: Arithmetic, dtype: DType, x: Val) -> Val:
    if not dtype.is_signed:
        return x
    none = zero(x.ty)
    return a.f.select(a.f.icmp("slt", x, none), a.f.binary("sub", none, x), x)


def _shift(instruction: str) -> _Rule:
    """A logical shift; 0 where the amount is the width or more."""

    def run(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
        none = zero(x.ty)
        inside = a.f.icmp("ult", y, literal(dtype.bits, dtype, x.lanes))
        amount = a.f.select(inside, y, none)
        return a.f.select(inside, a.f.binary(instruction, x, amount), none)

    return run


def _whole_pow(a: Arithmetic, dtype: DType, x: Val, y: Val) -> Val:
    """Square and multiply over all bits of the exponent; negative exponents as 1 / x^-y."""
    f, one, none = a.f, literal(1, dtype, x.lanes), zero(x.ty)
    with f.loop(0, dtype.bits, init=[one, x, y]) as loop:
        total, base, rest = loop.carried
        odd = f.icmp("ne", f.binary("and", rest, one), none)
        total = f.select(odd, f.binary("mul", total, base), total)
        loop.carry([total, f.binary("mul", base, base), f.binary("lshr", rest, one)])
    total = loop.results[0]
    if not dtype.is_signed:
        return total
    minus = literal(-1, dtype, x.lanes)
    even = f.icmp("eq", f.binary("and", y, one), none)
    inverse = f.select(f.icmp("eq", x, minus), f.select(even, one, minus), none)
    inverse = f.select(f.icmp("eq", x, one), one, inverse)
    return f.select(f.icmp("slt", y, none), inverse, total)


def _same(a: Arithmetic, dtype: DType, x: Val) -> Val:
    return x


_WHOLE: dict[str, _Rule] = {
    "add": _plain("add"),
    "sub": _plain("sub"),
    "mul": _plain("mul"),
    "div": lambda a, dtype, x, y: _quotient(a, dtype, x, y)[0],
    "floordiv": _whole_floordiv,
    "mod": _whole_mod,
    "fmod": lambda a, dtype, x, y: _quotient(a, dtype, x, y)[1],
    "pow": _whole_pow,
    "fma": lambda a, dtype, x, y, z: a.f.binary("add", a.f.binary("mul", x, y), z),
    "min": _whole_extreme("lt"),
    "max": _whole_extreme("gt"),
    **{name: _whole_compare(code) for name, code in _COMPARE.items()},
    **{name: _plain(instruction) for name, instruction in _BITWISE.items()},
    "not": lambda a, dtype, x: a.f.binary("xor", x, literal(-1, dtype, x.lanes)),
    "shl": _shift("shl"),
    "shr": _shift("lshr"),
    "neg": lambda a, dtype, x: a.f.binary("sub", zero(x.ty), x),
    "abs": _whole_abs,
    "sign": _whole_sign,
    **dict.fromkeys(("floor", "ceil", "round", "trunc"), _same),
}
_BOOL: dict[str, _Rule] = {
    **{name: _plain(instruction) for name, instruction in _BITWISE.items()},
    "min": _plain("and"),
    "max": _plain("or"),
    "mul": _plain("and"),
    "add": _plain("or"),
    "not": lambda a, dtype, x: a.f.binary("xor", x, literal(1, dtype, x.lanes)),
    **{name: _whole_compare(code) for name, code in _COMPARE.items()},
}
