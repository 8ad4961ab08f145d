"""Convolutions, matrix products, and what expands to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from case import Case, f16, f32, f64, ints, scalar

_X = (2, 4, 7, 8)


def _conv(
    op: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    bias: int = 0,
    truth: str = "both",
    **attrs: Any,
) -> Case:
    inputs = [f32(*x), f32(*w), *([f32(bias)] if bias else [])]
    return Case(op, inputs, attrs, const=[1], tolerance=1e-5, truth=truth)


def _einsum(equation: str, *shapes: tuple[int, ...]) -> Case:
    return Case("Einsum", [f32(*s) for s in shapes], {"equation": equation}, tolerance=1e-5)


def _u8(*shape: int) -> np.ndarray:
    return ints(*shape, low=0, high=255, dtype=np.uint8)


def _s8(*shape: int) -> np.ndarray:
    return ints(*shape, low=-127, high=127, dtype=np.int8)


EINSUM_CASES: list[Case] = [
    _einsum("ij,jk->ik", (3, 4), (4, 5)),
    _einsum("ij,jk", (3, 4), (4, 5)),
    _einsum("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    _einsum("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
    _einsum("bhij,bhjd->bihd", (2, 3, 4, 5), (2, 3, 5, 6)),
    _einsum("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
    _einsum("...ij,jk->...ik", (2, 3, 4), (4, 5)),
    _einsum("ij->ji", (3, 4)),
    _einsum("ij->i", (3, 4)),
    _einsum("ij->", (3, 4)),
    _einsum("ii->i", (3, 3)),
    _einsum("i,j->ij", (3,), (4,)),
    _einsum("i,i->", (3,), (3,)),
    _einsum("ijk,jkl->il", (2, 3, 4), (3, 4, 5)),
    _einsum("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    _einsum("abc,cd->abd", (2, 3, 4), (4, 5)),
    _einsum("bij,bij->bij", (2, 3, 4), (2, 3, 4)),
    _einsum("bnqd,qkd->bnqk", (2, 3, 4, 5), (4, 6, 5)),
]
_POINTS = [np.array(12, np.uint8), np.array(-3, np.int8)]
INTEGER_CASES: list[Case] = [
    Case("MatMulInteger", [_u8(3, 4), _s8(4, 5)]),
    Case("MatMulInteger", [_u8(3, 4), _s8(4, 5), *_POINTS]),
    Case("MatMulInteger", [_u8(2, 3, 4), _s8(4, 5), _POINTS[0], _s8(5)], const=[2, 3]),
    Case("ConvInteger", [_u8(1, 2, 5, 6), _u8(3, 2, 3, 3)], {"pads": (1, 1, 1, 1)}, const=[1]),
    Case(
        "ConvInteger",
        [_u8(1, 2, 5, 6), _u8(3, 2, 3, 3), _POINTS[0], np.array(7, np.uint8)],
        {"pads": (1, 1, 0, 0)},
        const=[1, 2, 3],
    ),
    Case(
        "QLinearMatMul",
        [
            *(_u8(3, 4), scalar(0.02), np.array(120, np.uint8)),
            *(_u8(4, 5), scalar(0.03), np.array(110, np.uint8)),
            *(scalar(0.05), np.array(128, np.uint8)),
        ],
        const=[1, 2, 4, 5, 6, 7],
    ),
    Case(
        "QLinearMatMul",
        [
            *(_u8(3, 4), scalar(0.02), np.array(120, np.uint8)),
            *(_u8(4, 5), f32(5, low=0.01, high=0.03), _u8(5)),
            *(scalar(0.5), np.array(128, np.uint8)),
        ],
        const=[1, 2, 4, 5, 6, 7],
    ),
    *(
        Case(
            "QLinearConv",
            [
                *(_u8(1, 2, 5, 6), scalar(0.02), np.array(120, np.uint8)),
                *(_s8(3, 2, 3, 3), scale, zero),
                *(scalar(0.3), np.array(128, np.uint8), ints(3, dtype=np.int32)),
            ],
            {"pads": (1, 1, 1, 1)},
            const=range(1, 9),
        )
        for scale, zero in (
            (scalar(0.03), np.array(2, np.int8)),
            (f32(3, low=0.02, high=0.05), np.zeros(3, np.int8)),
        )
    ),
    Case("DynamicQuantizeLinear", [f32(3, 4)], outputs=3),
    Case("DynamicQuantizeLinear", [f32(3, 4, low=1.0)], outputs=3),
]
CONTRACTION_CASES: list[Case] = [
    _conv("Conv", _X, (6, 4, 3, 3)),
    _conv("Conv", _X, (6, 4, 3, 2), 6, pads=(1, 0, 1, 1), strides=(2, 1)),
    _conv("Conv", _X, (6, 2, 3, 3), 6, pads=(1, 1, 1, 1), group=2),
    _conv("Conv", _X, (4, 1, 3, 3), group=4, dilations=(2, 2), pads=(2, 2, 2, 2)),
    _conv("Conv", _X, (5, 4, 1, 1)),
    _conv("Conv", _X, (5, 4, 3, 3), auto_pad="SAME_UPPER", strides=(2, 2)),
    _conv("Conv", _X, (5, 4, 3, 3), auto_pad="SAME_LOWER", strides=(2, 2)),
    _conv("Conv", _X, (5, 4, 3, 3), auto_pad="VALID"),
    _conv("Conv", (2, 3, 9), (4, 3, 3), kernel_shape=(3,)),
    _conv("Conv", (1, 2, 4, 5, 6), (3, 2, 2, 3, 2), strides=(1, 2, 1)),
    _conv("ConvTranspose", _X, (4, 3, 3, 3)),
    _conv("ConvTranspose", _X, (4, 3, 3, 2), 3, strides=(2, 3), pads=(1, 0, 1, 1)),
    _conv("ConvTranspose", _X, (4, 3, 2, 2), strides=(2, 2), output_padding=(1, 0)),
    _conv("ConvTranspose", _X, (4, 3, 3, 3), 6, "ort", group=2, dilations=(2, 1)),
    _conv("ConvTranspose", _X, (4, 3, 3, 3), strides=(2, 2), auto_pad="SAME_UPPER"),
    _conv("ConvTranspose", _X, (4, 3, 3, 3), strides=(2, 2), auto_pad="SAME_LOWER"),
    _conv("ConvTranspose", _X, (4, 3, 3, 3), truth="ort", strides=(2, 2), output_shape=(14, 17)),
    _conv("ConvTranspose", (1, 2, 5), (2, 3, 3), strides=(2,)),
    *(
        Case("MatMul", [f32(*a), f32(*b)], tolerance=1e-5)
        for a, b in [
            ((3, 4), (4, 5)),
            ((4,), (4, 5)),
            ((3, 4), (4,)),
            ((4,), (4,)),
            ((2, 3, 4), (4, 5)),
            ((2, 1, 3, 4), (6, 4, 5)),
            ((3, 4), (2, 4, 5)),
            ((2, 3, 4), (4,)),
        ]
    ),
    Case("MatMul", [ints(3, 4), ints(4, 5)]),
    Case("MatMul", [f64(3, 4), f64(4, 5)]),
    Case("MatMul", [f16(3, 4), f16(4, 5)]),
    Case("Gemm", [f32(3, 4), f32(4, 5)]),
    Case("Gemm", [f32(4, 3), f32(5, 4), f32(5)], {"transA": 1, "transB": 1}),
    Case("Gemm", [f32(3, 4), f32(5, 4), f32(5)], {"transB": 1}, const=[1, 2]),
    Case("Gemm", [f32(3, 4), f32(4, 5), f32(3, 1)], {"alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [f32(3, 4), f32(4, 5), f32(1, 5)], {"alpha": 0.5, "beta": 2.0}, const=[1, 2]),
    Case("Gemm", [f32(3, 4), f32(4, 5), np.array(2, np.float32)], {"beta": 0.0}),
    *(
        Case(
            "BatchNormalization",
            [f32(*x), f32(3), f32(3), f32(3), f32(3, low=0.1)],
            {"epsilon": 1e-3},
            const=const,
        )
        for x in ((2, 3, 4, 5), (2, 3), (2, 3, 4))
        for const in ((), (1, 2, 3, 4))
    ),
]
