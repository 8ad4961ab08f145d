"""Operators that move elements."""

from __future__ import annotations

import numpy as np
from case import Case, bools, f32, i64, ints, scalar

_FAR = np.iinfo(np.int64).max


def _slice(x: np.ndarray, *rows: list[int]) -> Case:
    return Case("Slice", [x, *(i64(*row) for row in rows)], const=[1, 2, 3, 4])


MOVE_CASES: list[Case] = [
    *(
        Case("Reshape", [f32(*shape), i64(*target)], const=[1])
        for shape, target in [
            ((2, 3, 4), (2, 12)),
            ((2, 3, 4), (6, 4)),
            ((2, 3, 4), (4, 6)),
            ((2, 3, 4), (-1,)),
            ((2, 3, 4), (0, -1, 2)),
            ((2, 3, 4), (2, 3, 2, 2)),
            ((2, 3, 4), (1, 2, 1, 3, 4, 1)),
            ((1, 6, 1), (2, 3)),
            ((24,), (2, 3, 4)),
            ((1,), ()),
            ((), (1, 1)),
            ((0, 3), (3, 0)),
        ]
        if not (0 in shape and target == (3, 0))
    ),
    Case("Reshape", [f32(0, 3), i64(3, 0)], {"allowzero": 1}, const=[1]),
    *(Case("Flatten", [f32(2, 3, 4)], {"axis": axis}) for axis in (0, 1, 2, 3, -1)),
    Case("Flatten", [f32(2, 3, 4)]),
    Case("Squeeze", [f32(1, 3, 1, 4), i64(0, -2)], const=[1]),
    Case("Squeeze", [f32(1, 3, 1, 4)], symbolic=False),
    Case("Unsqueeze", [f32(3, 4), i64(0, -1)], const=[1]),
    Case("Unsqueeze", [scalar(3), i64(0)], const=[1]),
    Case("Transpose", [f32(2, 3, 4)]),
    Case("Transpose", [f32(2, 3, 4)], {"perm": (1, 2, 0)}),
    Case("Transpose", [bools(2, 3)], {"perm": (1, 0)}),
    Case("Expand", [f32(3, 1), i64(2, 1, 4)], const=[1]),
    Case(
        "Expand",
        [
            f32(3, 4),
            i64(
                1,
            ),
        ],
        const=[1],
    ),
    _slice(f32(5, 6), [1, 0], [4, 6], [0, 1], [1, 2]),
    _slice(f32(5, 6), [-3], [_FAR], [-1], [1]),
    _slice(f32(5, 6), [-1], [-_FAR], [0], [-1]),
    _slice(f32(5, 6), [4], [0], [0], [-2]),
    _slice(f32(5, 6), [9], [-99], [0], [-3]),
    _slice(f32(5, 6), [3], [2], [0], [1]),
    _slice(f32(5, 6), [1, 2], [-1, -2], [0, 1], [1, 1]),
    Case("Slice", [f32(5, 6), i64(1, 2), i64(3, 9)], const=[1, 2]),
    Case("Split", [f32(6, 4), i64(1, 2, 3)], {"axis": 0}, outputs=3, const=[1]),
    Case("Split", [f32(2, 7)], {"axis": -1, "num_outputs": 3}, outputs=3),
    Case("Split", [f32(6, 2)], {"num_outputs": 2}, outputs=2),
    Case("Concat", [f32(2, 3), f32(2, 1), f32(2, 4)], {"axis": 1}),
    Case("Concat", [f32(2, 3), f32(1, 3)], {"axis": -2}),
    Case("Concat", [f32(2, 3)], {"axis": 0}),
    Case("Concat", [f32(2, 3), f32(0, 3), f32(1, 3)], {"axis": 0}),
    Case("Tile", [f32(2, 3), i64(2, 1)], const=[1]),
    Case("Tile", [f32(2, 1, 3), i64(1, 4, 2)], const=[1]),
    *(
        Case("Pad", [f32(3, 4), i64(1, 2, 0, 1)], {"mode": mode}, const=[1])
        for mode in ("constant", "edge", "reflect", "wrap")
    ),
    Case("Pad", [f32(3, 4), i64(1, 0, 2, 3), scalar(1.5)], const=[1, 2]),
    Case("Pad", [f32(3, 4), i64(1, 0, 2, 3), scalar(1.5)], const=[1]),
    Case("Pad", [f32(3, 4), i64(-1, 0, 2, -1)], const=[1], truth="ort"),
    Case("Pad", [f32(2, 3, 4), i64(1, 2), None, i64(-1)], const=[1, 3]),
    Case("Pad", [f32(3, 4), i64(0, 5, 0, 7)], {"mode": "reflect"}, const=[1], truth="onnx"),
    Case("Pad", [f32(3, 4), i64(0, 9, 0, 9)], {"mode": "wrap"}, const=[1], truth="onnx"),
    Case("Pad", [ints(3, 4), i64(0, 1, 0, 1), np.array(7)], const=[1, 2]),
    Case("Gather", [f32(5, 4), ints(2, 3, low=-5, high=5)]),
    Case("Gather", [f32(5, 4), ints(3, low=-4, high=4)], {"axis": 1}),
    Case("Gather", [f32(5, 4), i64(-1, 2)], {"axis": -1}, const=[1]),
    Case("Gather", [f32(5, 4), np.array(2)], {"axis": 0}, const=[1]),
    Case("Gather", [f32(5, 4), np.array(1, np.int32)], {"axis": 0}),
    Case("GatherElements", [f32(5, 4), ints(2, 4, low=-5, high=5)], {"axis": 0}),
    Case("GatherElements", [f32(5, 4), ints(5, 3, low=-4, high=4)], {"axis": 1}),
    Case("GatherND", [f32(5, 4, 3), ints(2, 2, low=-3, high=3)], fixed=[(1, 1)]),
    Case("GatherND", [f32(5, 4, 3), ints(2, 3, 1, low=0, high=5)]),
    Case("GatherND", [f32(2, 4, 3), ints(2, 1, low=-4, high=4)], {"batch_dims": 1}),
    Case("GatherND", [f32(5, 4), i64(1, 2)], fixed=[(1, 0)]),
    Case("OneHot", [ints(2, 3, low=-4, high=4), np.array(4), i64(2, 7)], const=[1]),
    Case("OneHot", [ints(3, low=0, high=4), i64(4), f32(2)], {"axis": 0}, const=[1], truth="ort"),
]
