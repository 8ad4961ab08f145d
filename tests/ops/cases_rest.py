"""Generators, blocks, quantisation, resizing, scatter, scans and what expands to others."""

from __future__ import annotations

import numpy as np
from case import Case, f32, i64, ints, scalar


def _quantized(dtype: type, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return ints(*shape, low=info.min, high=info.max, dtype=dtype)


GENERATOR_CASES: list[Case] = [
    Case("Shape", [f32(2, 3, 4)]),
    Case("Shape", [f32(2, 3, 4)], {"start": 1}),
    Case("Shape", [f32(2, 3, 4)], {"start": -2, "end": -1}),
    Case("Size", [f32(2, 3, 4)]),
    Case("ConstantOfShape", [i64(2, 3)], const=[0]),
    Case("ConstantOfShape", [i64(2, 3)], {"value": np.array([7], np.int32)}, const=[0]),
    Case("Range", [np.array(1), np.array(9), np.array(3)], const=[0, 1, 2]),
    Case("Range", [np.array(9), np.array(0), np.array(-2)], const=[0, 1, 2]),
    Case("Range", [scalar(0.5), scalar(3.1), scalar(0.25)], const=[0, 1, 2]),
    Case("EyeLike", [f32(3, 4)], {"k": 1}),
    Case("EyeLike", [ints(3, 4)], {"k": -1, "dtype": 1}),
    Case("Trilu", [f32(2, 3, 4)]),
    Case("Trilu", [f32(2, 3, 4), np.array(1)], const=[1]),
    Case("Trilu", [f32(3, 4), np.array(-1)], {"upper": 0}),
]
BLOCK_CASES: list[Case] = [
    Case("DepthToSpace", [f32(2, 12, 2, 3)], {"blocksize": 2}),
    Case("DepthToSpace", [f32(2, 18, 2, 3)], {"blocksize": 3, "mode": "CRD"}),
    Case("SpaceToDepth", [f32(2, 3, 4, 6)], {"blocksize": 2}),
    Case("ReverseSequence", [f32(4, 3, 2), i64(1, 4, 2)]),
    Case("ReverseSequence", [f32(3, 4), i64(1, 4, 2)], {"time_axis": 1, "batch_axis": 0}),
]
_X = f32(2, 3, 4, low=-30, high=30)
QUANTIZATION_CASES: list[Case] = [
    Case("QuantizeLinear", [_X, scalar(0.2)], const=[1]),
    Case("QuantizeLinear", [_X, scalar(0.25), np.array(128, np.uint8)], const=[1, 2]),
    Case("QuantizeLinear", [_X, scalar(0.25), np.array(-3, np.int8)], const=[1, 2]),
    Case("QuantizeLinear", [_X, scalar(0.25), np.array(128, np.uint8)]),
    Case("QuantizeLinear", [_X, f32(3, low=0.1), _quantized(np.int8, 3)], {"axis": 1}),
    Case("QuantizeLinear", [_X, f32(4, low=0.1), _quantized(np.int16, 4)], {"axis": -1}),
    Case(
        "QuantizeLinear",
        [_X, f32(2, 3, 2, low=0.1), _quantized(np.uint8, 2, 3, 2)],
        {"axis": 2, "block_size": 2},
    ),
    Case("DequantizeLinear", [_quantized(np.uint8, 3, 4), scalar(0.2), np.array(9, np.uint8)]),
    Case("DequantizeLinear", [_quantized(np.int8, 3, 4), scalar(0.2)], const=[1]),
    Case("DequantizeLinear", [ints(3, 4, dtype=np.int32), scalar(0.2)], const=[1]),
    Case(
        "DequantizeLinear",
        [_quantized(np.int8, 2, 3, 4), f32(3), _quantized(np.int8, 3)],
        {"axis": 1},
    ),
    Case(
        "DequantizeLinear",
        [_quantized(np.int8, 2, 4), f32(2, 2), _quantized(np.int8, 2, 2)],
        {"axis": 1, "block_size": 2},
    ),
]
REST_CASES: list[Case] = [*GENERATOR_CASES, *BLOCK_CASES, *QUANTIZATION_CASES]
