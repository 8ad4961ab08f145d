"""Element types: one table with everything the other rooms ask of a dtype."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class _Facts:
    """One row of the dtype table."""

    numpy: np.dtype  # the NumPy dtype with the same bytes
    onnx: int  # TensorProto.DataType number
    bits: int  # storage width; 4 means two elements share a byte
    kind: str  # f float, i signed, u unsigned, b bool, s string, c complex, o anything
    llvm: str  # LLVM type of one element in memory; "" where kernels never see it


class DType(enum.Enum):
    """An element type. The value is its short name, used in every text form.

    OBJECT is that of a value which is no tensor (a sequence, an optional value, a map) or whose
    type nothing tells: only steps on the host touch it.
    """

    F32 = "f32"
    F64 = "f64"
    F16 = "f16"
    BF16 = "bf16"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    BOOL = "bool"
    STRING = "str"
    C64 = "c64"
    C128 = "c128"
    F8E4M3FN = "f8e4m3fn"
    F8E4M3FNUZ = "f8e4m3fnuz"
    F8E5M2 = "f8e5m2"
    F8E5M2FNUZ = "f8e5m2fnuz"
    I4 = "i4"
    U4 = "u4"
    F4E2M1 = "f4e2m1"
    F8E8M0 = "f8e8m0"
    I2 = "i2"
    U2 = "u2"
    OBJECT = "object"

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype that holds this element."""
        return _TABLE[self].numpy

    @property
    def onnx(self) -> int:
        """The number of this dtype in `TensorProto.DataType`."""
        return _TABLE[self].onnx

    @property
    def bits(self) -> int:
        """Storage width in bits."""
        return _TABLE[self].bits

    @property
    def size(self) -> int:
        """Bytes of one element as NumPy stores it (4-bit types take one byte there)."""
        return _TABLE[self].numpy.itemsize

    @property
    def llvm(self) -> str:
        """LLVM type in memory, or "" for a dtype that native kernels do not handle."""
        return _TABLE[self].llvm

    @property
    def is_float(self) -> bool:
        """True for floating point of any width."""
        return _TABLE[self].kind == "f"

    @property
    def is_signed(self) -> bool:
        """True for signed integers."""
        return _TABLE[self].kind == "i"

    @property
    def is_integer(self) -> bool:
        """True for integers, not for bool."""
        return _TABLE[self].kind in "iu"

    @classmethod
    def from_numpy(cls, dtype: np.dtype | type) -> DType:
        """The dtype with the same bytes as a NumPy dtype.

        Raises:
            KeyError: No element type has these bytes.
        """
        dtype = np.dtype(dtype)
        if dtype.kind in "UOST":
            return cls.STRING
        return _FROM_NUMPY[dtype]

    @classmethod
    def from_onnx(cls, number: int) -> DType:
        """The dtype of a `TensorProto.DataType` number.

        Raises:
            KeyError: The number is not known.
        """
        return _FROM_ONNX[number]


_TABLE: dict[DType, _Facts] = {
    DType.F32: _Facts(np.dtype(np.float32), 1, 32, "f", "float"),
    DType.F64: _Facts(np.dtype(np.float64), 11, 64, "f", "double"),
    DType.F16: _Facts(np.dtype(np.float16), 10, 16, "f", "half"),
    DType.BF16: _Facts(np.dtype(ml_dtypes.bfloat16), 16, 16, "f", "bfloat"),
    DType.I8: _Facts(np.dtype(np.int8), 3, 8, "i", "i8"),
    DType.I16: _Facts(np.dtype(np.int16), 5, 16, "i", "i16"),
    DType.I32: _Facts(np.dtype(np.int32), 6, 32, "i", "i32"),
    DType.I64: _Facts(np.dtype(np.int64), 7, 64, "i", "i64"),
    DType.U8: _Facts(np.dtype(np.uint8), 2, 8, "u", "i8"),
    DType.U16: _Facts(np.dtype(np.uint16), 4, 16, "u", "i16"),
    DType.U32: _Facts(np.dtype(np.uint32), 12, 32, "u", "i32"),
    DType.U64: _Facts(np.dtype(np.uint64), 13, 64, "u", "i64"),
    DType.BOOL: _Facts(np.dtype(np.bool_), 9, 8, "b", "i8"),
    DType.STRING: _Facts(np.dtype(object), 8, 64, "s", ""),
    DType.C64: _Facts(np.dtype(np.complex64), 14, 64, "c", ""),
    DType.C128: _Facts(np.dtype(np.complex128), 15, 128, "c", ""),
    DType.F8E4M3FN: _Facts(np.dtype(ml_dtypes.float8_e4m3fn), 17, 8, "f", ""),
    DType.F8E4M3FNUZ: _Facts(np.dtype(ml_dtypes.float8_e4m3fnuz), 18, 8, "f", ""),
    DType.F8E5M2: _Facts(np.dtype(ml_dtypes.float8_e5m2), 19, 8, "f", ""),
    DType.F8E5M2FNUZ: _Facts(np.dtype(ml_dtypes.float8_e5m2fnuz), 20, 8, "f", ""),
    DType.U4: _Facts(np.dtype(ml_dtypes.uint4), 21, 4, "u", ""),
    DType.I4: _Facts(np.dtype(ml_dtypes.int4), 22, 4, "i", ""),
    DType.F4E2M1: _Facts(np.dtype(ml_dtypes.float4_e2m1fn), 23, 4, "f", ""),
    DType.F8E8M0: _Facts(np.dtype(ml_dtypes.float8_e8m0fnu), 24, 8, "f", ""),
    DType.U2: _Facts(np.dtype(ml_dtypes.uint2), 25, 2, "u", ""),
    DType.I2: _Facts(np.dtype(ml_dtypes.int2), 26, 2, "i", ""),
    DType.OBJECT: _Facts(np.dtype(object), 0, 64, "o", ""),
}
_FROM_NUMPY = {f.numpy: dtype for dtype, f in _TABLE.items() if f.kind not in "so"}
_FROM_ONNX = {f.onnx: dtype for dtype, f in _TABLE.items() if f.kind != "o"}
