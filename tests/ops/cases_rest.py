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


def _resize(
    x: np.ndarray,
    scales: list[float] | None,
    sizes: list[int] | None = None,
    roi: list[float] | None = None,
    truth: str = "both",
    **attrs: object,
) -> Case:
    inputs = [
        x,
        None if roi is None else np.array(roi, np.float32),
        None if scales is None else np.array(scales, np.float32),
        None if sizes is None else i64(*sizes),
    ]
    while inputs[-1] is None:
        inputs.pop()
    symbolic = roi is None and "keep_aspect_ratio_policy" not in attrs
    return Case("Resize", inputs, attrs, 1, [1, 2, 3], 1e-5, truth, symbolic)


_UP, _DOWN = [1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 0.6, 0.5]
_COORDINATES = (
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"),
    *("align_corners", "asymmetric"),
)
RESIZE_CASES: list[Case] = [
    *(
        _resize(
            f32(1, 2, 4, 5),
            scales,
            mode="nearest",
            coordinate_transformation_mode=c,
            nearest_mode=n,
            truth="onnx" if scales == _DOWN else "both",
        )
        for scales in (_UP, _DOWN)
        for c in _COORDINATES
        for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    *(
        _resize(
            f32(1, 2, 4, 5),
            scales,
            mode=mode,
            coordinate_transformation_mode=c,
            truth="onnx" if c == "align_corners" and scales != _UP else "both",
        )
        for mode in ("linear", "cubic")
        for scales in (_UP, _DOWN, [1.0, 1.0, 1.3, 2.7])
        for c in _COORDINATES
    ),
    _resize(f32(1, 2, 4, 5), None, [1, 2, 7, 3], mode="linear"),
    _resize(f32(1, 2, 4, 5), None, [1, 2, 7, 3], mode="nearest"),
    _resize(
        f32(1, 2, 4, 5),
        None,
        [1, 2, 1, 1],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    _resize(f32(1, 2, 4, 5), None, [7, 3], mode="cubic", axes=(2, 3)),
    _resize(
        f32(1, 2, 4, 5),
        None,
        [7, 8],
        mode="linear",
        axes=(2, 3),
        keep_aspect_ratio_policy="not_larger",
    ),
    _resize(
        f32(1, 2, 4, 5),
        None,
        [7, 8],
        mode="nearest",
        axes=(2, 3),
        keep_aspect_ratio_policy="not_smaller",
    ),
    _resize(f32(1, 2, 4, 5), [0.8, 0.8], mode="cubic", axes=(2, 3), exclude_outside=1),
    _resize(f32(1, 2, 4, 5), _UP, mode="cubic", cubic_coeff_a=-0.5),
    _resize(f32(1, 2, 6), [1.0, 1.0, 1.7], mode="linear"),
    _resize(f32(1, 2, 3, 4, 5), [1.0, 1.0, 1.7, 1.5, 2.0], mode="linear"),
    _resize(
        f32(3, 4),
        None,
        [5, 3],
        roi=[0.1, 0.2, 0.7, 0.9],
        mode="linear",
        truth="onnx",
        coordinate_transformation_mode="tf_crop_and_resize",
    ),
    _resize(
        f32(1, 1, 4, 5),
        None,
        [1, 1, 5, 3],
        roi=[0, 0, 0.2, 0.4, 1, 1, 1.4, 0.9],
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=9.0,
    ),
]
SAMPLE_CASES: list[Case] = [
    Case(
        "GridSample",
        [f32(2, 3, 4, 5), f32(2, 3, 6, 2, low=-1.4, high=1.4)],
        {"mode": mode, "padding_mode": padding, "align_corners": aligned},
        tolerance=2e-5,
        truth="ort" if (mode, padding) == ("cubic", "border") else "both",
        fixed=[(0, 2), (0, 3), (1, 3)],
    )
    for mode in ("linear", "nearest", "cubic")
    for padding in ("zeros", "border", "reflection")
    for aligned in (0, 1)
] + [
    Case(
        "GridSample",
        [f32(1, 2, 3, 4, 5), f32(1, 2, 3, 2, 3)],
        {"mode": mode},
        tolerance=2e-5,
        fixed=[(1, 4)],
    )
    for mode in ("linear", "nearest")
]
_REDUCTIONS = ("none", "add", "mul", "min", "max")
SCATTER_CASES: list[Case] = [
    Case("ScatterElements", [f32(5, 4), np.array([[1, 0, 2, 4], [-1, 3, 0, 2]]), f32(2, 4)]),
    Case("ScatterElements", [f32(5, 4), np.array([[1, -1], [3, 0]]), f32(2, 2)], {"axis": 1}),
    *(
        Case(
            "ScatterElements",
            [f32(3, 5, 2), ints(3, 4, 2, low=-5, high=5), f32(3, 4, 2)],
            {"axis": 1, "reduction": r},
        )
        for r in _REDUCTIONS[1:]
    ),
    Case("ScatterND", [f32(5, 4, 3), np.array([[1], [-1], [0]]), f32(3, 4, 3)], fixed=[(1, 1)]),
    Case("ScatterND", [f32(5, 4), np.array([[1, 2], [-1, 3]]), f32(2)], fixed=[(1, 1)]),
    *(
        Case(
            "ScatterND",
            [f32(5, 4), ints(2, 3, 1, low=0, high=5), f32(2, 3, 4)],
            {"reduction": r},
        )
        for r in _REDUCTIONS[1:]
    ),
    Case("ScatterND", [ints(4), np.array([[0], [0], [1]]), ints(3)], {"reduction": "add"}),
    *(
        Case(
            "TensorScatter",
            [f32(2, 3, 6, 4), f32(2, 3, 2, 4), i64(1, 4 + c)],
            {"mode": "circular" if c else "linear"},
            opset=24,
            truth="onnx",
        )
        for c in (0, 1)
    ),
    Case("TensorScatter", [f32(2, 5, 4), f32(2, 3, 4)], opset=24, truth="onnx"),
]
SCAN_CASES: list[Case] = [
    *(
        Case("CumSum", [f32(3, 5), np.array(axis)], {"exclusive": e, "reverse": r}, const=[1])
        for axis, e, r in ((0, 0, 0), (1, 1, 0), (-1, 0, 1), (0, 1, 1))
    ),
    Case("CumSum", [ints(3, 5), np.array(1)], const=[1]),
    Case("CumProd", [f32(3, 5), np.array(1)], {"exclusive": 1}, const=[1], opset=26, truth="onnx"),
    *(
        Case(
            "TopK", [x, i64(3)], {"axis": axis, "largest": largest}, 2, [1], fixed=[(0, 0), (0, 1)]
        )
        for x in (f32(5, 4), ints(5, 4, low=0, high=3), f32(3, 5).astype(np.float16))
        for axis in (0, -1)
        for largest in (0, 1)
    ),
    Case(
        "TopK", [np.array([1, -np.inf, 2, -np.inf], np.float32), i64(4)], {}, 2, [1], symbolic=False
    ),
]
FRAMING_CASES: list[Case] = [
    Case("CenterCropPad", [f32(5, 8), i64(8, 5)], const=[1]),
    Case("CenterCropPad", [f32(4, 5, 8), i64(9)], {"axes": (-2,)}, const=[1]),
    *(
        Case(
            "AffineGrid",
            [f32(2, d, d + 1), i64(2, 1, *(4, 5, 3)[:d])],
            {"align_corners": a},
            const=[1],
        )
        for d in (2, 3)
        for a in (0, 1)
    ),
    Case("Col2Im", [f32(2, 12, 20), i64(5, 6), i64(2, 2)], const=[1, 2]),
    Case(
        "Col2Im",
        [f32(1, 6, 9), i64(5, 6), i64(1, 3)],
        {"strides": (2, 3), "pads": (0, 1, 0, 2)},
        const=[1, 2],
    ),
    *(
        Case(op, [np.array(10)], {"periodic": p}, const=[0], tolerance=1e-6)
        for op in ("HannWindow", "HammingWindow", "BlackmanWindow")
        for p in (0, 1)
    ),
]
REST_CASES: list[Case] = [
    *GENERATOR_CASES,
    *BLOCK_CASES,
    *QUANTIZATION_CASES,
    *RESIZE_CASES,
    *SAMPLE_CASES,
    *SCATTER_CASES,
    *SCAN_CASES,
    *FRAMING_CASES,
]
