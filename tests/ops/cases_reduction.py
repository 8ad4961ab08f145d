"""Reductions, pools, softmax and norms."""

from __future__ import annotations

import numpy as np
from case import Case, bools, f16, f32, f64, i64, ints, scalar

_REDUCE = (
    *("ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1"),
    *("ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"),
)
_X = (2, 3, 9, 8)


def _pool(
    op: str, x: np.ndarray, kernel: tuple[int, ...], truth: str = "both", **attrs: object
) -> Case:
    return Case(op, [x], {"kernel_shape": kernel, **attrs}, truth=truth)


def _lower(op: str) -> str:
    return "ort" if op == "MaxPool" else "both"


def _pools(op: str) -> list[Case]:
    return [
        _pool(op, f32(*_X), (3, 3)),
        _pool(op, f32(*_X), (3, 2), strides=(2, 2), pads=(1, 1, 1, 0)),
        _pool(
            op,
            f32(*_X),
            (3, 3),
            "ort" if op == "LpPool" else "both",
            strides=(2, 2),
            pads=(1, 0, 0, 1),
            ceil_mode=1,
        ),
        _pool(op, f32(*_X), (2, 2), strides=(2, 3), dilations=(2, 3)),
        _pool(op, f32(2, 3, 11), (3,), strides=(2,)),
        _pool(op, f32(1, 2, 4, 5, 6), (2, 3, 2), strides=(1, 2, 2)),
        _pool(op, f32(*_X), (3, 3), strides=(2, 2), auto_pad="SAME_UPPER"),
        _pool(op, f32(*_X), (3, 3), _lower(op), strides=(2, 2), auto_pad="SAME_LOWER"),
        _pool(op, f32(*_X), (3, 3), strides=(2, 2), auto_pad="VALID"),
    ]


REDUCTION_CASES: list[Case] = [
    *(Case(op, [f32(2, 3, 4), i64(1)], const=[1]) for op in _REDUCE),
    *(Case(op, [f32(2, 3, 4), i64(0, -1)], {"keepdims": 0}, const=[1]) for op in _REDUCE),
    *(Case(op, [f32(2, 3, 4)], {"keepdims": 0}) for op in _REDUCE),
    *(Case(op, [f64(2, 3, 4), i64(2)], const=[1]) for op in _REDUCE),
    Case("ReduceLogSum", [f32(2, 3, low=0.1), i64(1)], const=[1]),
    Case("ReduceLogSumExp", [f32(2, 3, low=90, high=99), i64(1)], const=[1]),
    Case("ReduceSum", [f32(2, 3)], {"noop_with_empty_axes": 1}),
    Case("ReduceSum", [f32(2, 3), i64()], {"noop_with_empty_axes": 1}, const=[1]),
    *(Case(op, [ints(2, 3, 4), i64(1)], const=[1]) for op in _REDUCE[:6]),
    *(Case(op, [bools(2, 3), i64(1)], const=[1]) for op in ("ReduceMax", "ReduceMin")),
    Case("ReduceSum", [f16(3, 4), i64(1)], const=[1]),
    *(
        Case(op, [x], {"axis": axis, "keepdims": keep, "select_last_index": last})
        for op in ("ArgMax", "ArgMin")
        for x in (f32(3, 4), ints(3, 4, low=0, high=2, dtype=np.int32))
        for axis, keep in ((0, 1), (-1, 0))
        for last in (0, 1)
    ),
    *_pools("MaxPool"),
    *_pools("AveragePool"),
    *(
        Case(c.op, c.inputs, {**c.attrs, "count_include_pad": 1})
        for c in _pools("AveragePool")
        if "auto_pad" not in c.attrs
    ),
    *(c for c in _pools("LpPool") if "dilations" not in c.attrs),
    _pool("LpPool", f32(*_X), (3, 3), p=3),
    _pool("LpPool", f32(*_X), (3, 3), p=1),
    Case("MaxPool", [f32(2, 3, 7, 6)], {"kernel_shape": (3, 2), "strides": (2, 2)}, outputs=2),
    Case(
        "MaxPool",
        [f32(2, 3, 7, 6)],
        {"kernel_shape": (3, 2), "pads": (1, 1, 1, 0)},
        outputs=2,
        truth="ort",
    ),
    Case(
        "MaxPool",
        [f32(2, 3, 7, 6)],
        {"kernel_shape": (3, 2), "storage_order": 1},
        outputs=2,
        truth="ort",
    ),
    Case("MaxPool", [ints(1, 2, 5, 5, low=0, dtype=np.uint8)], {"kernel_shape": (2, 2)}),
    *(
        Case(op, [f32(2, 3, *spatial)], truth=truth)
        for op, truth in (("GlobalAveragePool", "both"), ("GlobalMaxPool", "ort"))
        for spatial in ((5,), (4, 5), (2, 3, 4))
    ),
    Case("GlobalLpPool", [f32(2, 3, 4, 5)], truth="ort"),
    *(
        Case(op, [f32(2, 3, 4)], {"axis": axis})
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for axis in (0, 1, -1)
    ),
    Case("Softmax", [f32(2, 3, low=80, high=99)]),
    Case("Softmax", [f16(2, 3)]),
    *(
        Case("LayerNormalization", [f32(2, 3, 4), f32(*s), f32(*s)], {"axis": axis}, outputs=3)
        for axis, s in ((-1, (4,)), (1, (3, 4)), (0, (2, 3, 4)))
    ),
    Case("LayerNormalization", [f32(2, 3, 4), f32(4)], {"epsilon": 0.1}),
    Case("LayerNormalization", [f32(2, 64, low=1000, high=1001), f32(64)], tolerance=2e-3),
    Case("RMSNormalization", [f32(2, 3, 4), f32(4)]),
    Case("RMSNormalization", [f32(2, 3, 4), f32(3, 4)], {"axis": 1, "epsilon": 0.1}),
    Case("InstanceNormalization", [f32(2, 3, 4, 5), f32(3), f32(3)]),
    Case("InstanceNormalization", [f32(2, 3, 7), f32(3), f32(3)], {"epsilon": 0.1}),
    Case("GroupNormalization", [f32(2, 6, 4, 5), f32(6), f32(6)], {"num_groups": 2}),
    Case("GroupNormalization", [f32(2, 6, 7), f32(6), f32(6)], {"num_groups": 3}),
    Case("MeanVarianceNormalization", [f32(2, 3, 4, 5)]),
    Case("MeanVarianceNormalization", [f32(2, 3, 4, 5)], {"axes": (0, 1)}, truth="onnx"),
    *(
        Case(
            "LpNormalization",
            [f32(2, 3, 4)],
            {"axis": axis, "p": p},
            truth="ort" if p == 1 else "both",
        )
        for axis in (1, -1)
        for p in (1, 2)
    ),
    *(
        Case("LRN", [f32(7, 7, 3, 4)], {"size": size, "alpha": 0.1, "beta": beta, "bias": 1.5})
        for size, beta in ((3, 0.75), (3, 0.5), (5, 1.0), (1, 0.6))
    ),
    Case("LRN", [f32(5, 5, 2, 2)], {"size": 3}),
    Case("ReduceSum", [scalar(3)], {"keepdims": 0}),
]
