"""What LLVM IR speaks of: types as text, values, literals. Used through `planish.targets.ir`."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FLOATS = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"}
_BITS = {"float": 32, "double": 64, "half": 16, "bfloat": 16, "ptr": 64}


@dataclass(frozen=True)
class Val:
    """An SSA value or a literal.

    Attributes:
        ty: LLVM type as text, e.g. "i64", "<16 x float>", "ptr".
        ref: How an instruction names it, e.g. "%12" or "7".
        literal: The integer where it is known.
    """

    ty: str
    ref: str
    literal: int | None = None

    @property
    def lanes(self) -> int:
        """Number of vector lanes; 1 for a scalar."""
        return int(self.ty[1:].split(" x ")[0]) if self.ty.startswith("<") else 1

    @property
    def element(self) -> str:
        """The type of one lane."""
        return self.ty[:-1].split(" x ")[1] if self.ty.startswith("<") else self.ty


Int = int | Val


def vector(element: str, lanes: int) -> str:
    """The type of `lanes` elements; the element itself for one lane."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def i64(value: int) -> Val:
    """A 64-bit integer literal."""
    return Val("i64", str(value), value)


def integer(value: int, ty: str = "i64") -> Val:
    """An integer literal of a scalar type, or of a vector type with the number in each lane."""
    like = Val(ty, "")
    if like.lanes == 1:
        return Val(ty, str(value), value)
    return Val(ty, _splat_text(like.element, str(value), like.lanes))


def real(value: float, ty: str = "float") -> Val:
    """A floating-point literal of a scalar or vector type, bit-exact."""
    scalar = Val(ty, "").element
    text = _real_text(value, scalar)
    lanes = Val(ty, "").lanes
    return Val(ty, text if lanes == 1 else _splat_text(scalar, text, lanes))


def zero(ty: str) -> Val:
    """The all-zero value of any type."""
    return (
        Val(ty, "zeroinitializer" if ty.startswith("<") else ("null" if ty == "ptr" else "0"))
        if Val(ty, "").element not in _FLOATS
        else real(0.0, ty)
    )


def _real_text(value: float, scalar: str) -> str:
    if scalar == "half":
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    if scalar == "bfloat":
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        return f"0xR{bits >> 16:04X}"
    if scalar == "float" and value == value and abs(value) != float("inf"):
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def _splat_text(scalar: str, text: str, lanes: int) -> str:
    return "<" + ", ".join([f"{scalar} {text}"] * lanes) + ">"


def suffix(ty: str) -> str:
    """How an intrinsic's name spells a type: v16f32, i64, …."""
    value = Val(ty, "")
    name = _FLOATS.get(value.element, value.element)
    return name if value.lanes == 1 else f"v{value.lanes}{name}"


def element_bytes(ty: str) -> int:
    """Bytes of one lane of a type."""
    scalar = Val(ty, "").element
    return max(1, (_BITS[scalar] if scalar in _BITS else int(scalar[1:])) // 8)


def literal_of(value: Int) -> int | None:
    """The integer where it is known."""
    return value.literal if isinstance(value, Val) else value


def type_of(a: Int, b: Int) -> str:
    """The type of the one that has a type; i64 for two plain integers."""
    return a.ty if isinstance(a, Val) else (b.ty if isinstance(b, Val) else "i64")


def as_value(value: Int) -> Val:
    """A plain integer as an i64 literal."""
    return value if isinstance(value, Val) else i64(value)


def typed(value: Int, other: Int) -> Val:
    """The value; a plain integer takes the type of `other`."""
    return value if isinstance(value, Val) else integer(value, type_of(value, other))
