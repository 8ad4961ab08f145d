"""Workloads of the specialised contraction kernels, and of those that take any type, by name."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from trial import (
    F32,
    attention,
    biased,
    conv,
    conv_transpose,
    image,
    matmul,
    residual,
    tensor,
)

from planish.base.dtypes import DType
from planish.base.expr import Load, Temp, Var, call, const
from planish.base.shapes import Dim, symbol
from planish.kernels.workload import Workload

N, H, S, T = map(symbol, ("N", "H", "S", "T"))
SIZES = {"N": 2, "H": 7, "S": 37, "T": 150}
F64, F16, BF16, I32, I64, U8, I8 = map(DType, ("f64", "f16", "bf16", "i32", "i64", "u8", "i8"))
_SCORE = Temp(0, (), F32)
_CELL = tuple(Var(f"o{axis}") for axis in range(4))
_BIAS, _SILU = biased(2), biased(2, then="silu")


def _depthwise(shape: tuple[Dim, ...], kernel: int, **kwargs: Any) -> Workload:
    channels = int(str(shape[1]))
    size = (kernel,) * (len(shape) - 2)
    return conv(image(shape), channels, size, group=channels, **kwargs)


CONVS: dict[str, Workload] = {
    # depthwise
    "depthwise_3x3": _depthwise((2, 20, 9, 11), 3, pads=1),
    "depthwise_5x5_stride": _depthwise((1, 33, 14, 14), 5, stride=2, pads=2),
    "depthwise_7x7": _depthwise((1, 40, 10, 15), 7, pads=3),
    "depthwise_over_input": _depthwise((1, 17, 3, 3), 5, pads=2, dilation=1),
    "depthwise_dilated": _depthwise((1, 16, 12, 13), 3, pads=2, dilation=2),
    "depthwise_silu": _depthwise((1, 24, 7, 9), 3, pads=1, extra=(tensor((24,)),),
                                 epilogue=(_SILU,)),
    "depthwise_slices": conv(
        image((2, 24, 7, 6), pixel=40), 24, (3, 3), pads=1, group=24, pixel=27,
        extra=(tensor((24,)), image((2, 24, 7, 6), pixel=31)), epilogue=(residual(2, 3, 4),),
    ),
    "depthwise_1d": _depthwise((1, 18, 30), 3, pads=1),
    "depthwise_3d": _depthwise((1, 18, 5, 6, 7), 3, pads=1, stride=2),
    "depthwise_symbolic": _depthwise((N, 18, H, 9), 3, pads=1),
    # Winograd
    "winograd": conv(image((2, 19, 9, 11)), 35, (3, 3), pads=1),
    "winograd_no_padding": conv(image((1, 32, 14, 13)), 48, (3, 3)),
    "winograd_odd_pads": conv(image((1, 8, 3, 5)), 8, (3, 3), pads=(2, 0, 1, 3)),
    "winograd_outputs": conv(
        image((1, 16, 8, 7)), (20, 33), (3, 3), pads=1, extra=(tensor((20,)), tensor((33,))),
        epilogue=(_BIAS, biased(3, then="silu")),
    ),
    "winograd_slices": conv(
        image((2, 12, 7, 9), pixel=17), 24, (3, 3), pads=1, pixel=29,
        extra=(tensor((24,)), image((2, 24, 7, 9), pixel=31)), epilogue=(residual(2, 3, 4),),
    ),
    "winograd_symbolic": conv(image((N, 16, H, H)), 24, (3, 3), pads=1),
    # any type and any weights
    **{
        f"conv_{x}_{y}": conv(image((2, 5, 6, 9), x), 19, (3, 3), pads=1, dtype=y)
        for x, y in ((F64, F64), (F16, F16), (BF16, BF16), (I32, I32), (U8, I32), (I8, I32))
    },
    "weights_at_run_time": conv(
        image((2, 6, 6, 9)), 12, (3, 2), stride=2, pads=1, group=2, const_weights=False
    ),
    "4d": conv(image((1, 3, 4, 4, 3, 5)), 5, (2, 2, 2, 2), pads=1),
}  # fmt: skip
TRANSPOSED: dict[str, Workload] = {
    "stride": conv_transpose(image((2, 5, 6, 7)), 19, (3, 2), stride=2, pads=1),
    "empty_taps": conv_transpose(image((1, 5, 4, 3)), 6, (2, 1), stride=3, more=2),
    "dilated": conv_transpose(image((1, 5, 6, 7)), 16, (3, 3), stride=2, dilation=3, pads=2),
    "groups": conv_transpose(
        image((2, 6, 6, 7)), 8, (4, 4), stride=2, pads=(1, 2, 0, 1), group=2, more=1,
        extra=(tensor((8,)),), epilogue=(_BIAS,),
    ),
    "1d_run_time": conv_transpose(image((1, 3, 11)), 5, (3,), stride=2, const_weights=False),
    "3d_nchw": conv_transpose(image((1, 3, 3, 4, 5), first=True), 5, (3, 3, 3), stride=2, pads=1),
    "f64": conv_transpose(image((2, 5, 4, 6), F64), 9, (3, 3), stride=2),
    "symbolic": conv_transpose(image((N, 5, H, H)), 9, (3, 3), stride=2, pads=1),
}  # fmt: skip
MATMULS: dict[str, Workload] = {
    **{
        f"run_time_{turned or 'plain'}": matmul((2, 3), (13, 33, 70), turned=turned)
        for turned in ("", "a", "b", "ab")
    },
    "run_time_column": matmul((2,), (11, 40, 1)),
    "run_time_row": matmul((2,), (1, 40, 3), turned="b"),
    "repeated_b": matmul((2, 3), (17, 20, 33), turned="b", repeat_b=(0,)),
    "scores": matmul((N, 2), (S, 16, S), turned="b"),
    "values": matmul((N, 2), (S, S, 20)),
    "run_time_bias": matmul((2,), (9, 11, 21), extra=(tensor((21,)),),
                            epilogue=(biased(2, axis=2),)),
    "turned_output": replace(
        matmul((2,), (9, 11, 21)), outputs=(tensor((2, 9, 21), strides=(189, 1, 9)),)
    ),
    **{
        f"matmul_{a}_{b}_{c}": matmul((2,), (9, 11, 21), dtypes=(a, b, c), turned="b")
        for a, b, c in ((F64,) * 3, (I32,) * 3, (I64,) * 3, (F16,) * 3, (BF16,) * 3, (U8, I8, I32))
    },
}  # fmt: skip
ATTENTIONS: dict[str, Workload] = {
    "short": attention((2, 3), (17, 17, 8, 8)),
    "odd": attention((1, 2), (70, 33, 16, 20)),
    "one_query": attention((1, 2), (1, 200, 7, 3)),
    "one_key": attention((1, 1), (33, 1, 4, 5)),
    "long": attention((1, 1), (50, 400, 16, 20)),
    "symbolic": attention((N, 2), (S, T, 16, 20)),
    "padding_mask": attention(
        (2, 3), (19, 21, 8, 8), mask=call("add", _SCORE, Load(3, (_CELL[0], _CELL[3]), F32)),
        extra=(tensor((2, 21)),),
    ),
    "full_mask": attention(
        (2, 3), (19, 35, 8, 8), mask=call("add", _SCORE, Load(3, _CELL, F32)),
        extra=(tensor((2, 3, 19, 35)),),
    ),
    "causal": attention(
        (1, 2), (150, 150, 8, 8),
        mask=call("select", call("gt", _CELL[3], _CELL[2]), const(-math.inf, F32), _SCORE),
    ),
    "then_added": attention(
        (2, 3), (19, 21, 8, 10), extra=(tensor((2, 3, 19, 10)),),
        epilogue=(call("add", call("mul", _SCORE, const(2.0, F32)), Load(3, _CELL, F32)),),
    ),
}  # fmt: skip
