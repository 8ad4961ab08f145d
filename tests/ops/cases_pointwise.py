"""Pointwise operators: every function, then dtypes, broadcasting and edge values."""

from __future__ import annotations

import numpy as np
from case import Case, bf16, bools, f16, f32, f64, i64, ints, scalar

_EDGES = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, np.inf, -np.inf, np.nan], np.float32)
_ANY_FLOAT = (
    *("Exp", "Erf", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh"),
    *("Tanh", "Asinh", "Sigmoid", "Softplus", "Floor", "Ceil", "Round", "Abs"),
    *("Neg", "Sign", "Reciprocal", "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu"),
    *("Celu", "HardSigmoid", "HardSwish", "Mish", "Softsign", "Gelu", "Shrink"),
)
_LIMITED = {
    "Sqrt": (0.0, 9.0),
    "Log": (0.01, 9.0),
    "Asin": (-1.0, 1.0),
    "Acos": (-1.0, 1.0),
    "Acosh": (1.0, 9.0),
    "Atanh": (-0.99, 0.99),
}
_ATTRS = [
    ("LeakyRelu", {"alpha": 0.3}),
    ("ThresholdedRelu", {"alpha": 0.4}),
    ("Elu", {"alpha": 0.7}),
    ("Selu", {"alpha": 1.2, "gamma": 0.9}),
    ("Celu", {"alpha": 0.7}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("Gelu", {"approximate": "tanh"}),
    ("Shrink", {"lambd": 0.8, "bias": 0.3}),
]
_BINARY = (
    *("Add", "Sub", "Mul", "Div", "Less", "LessOrEqual"),
    *("Greater", "GreaterOrEqual", "Equal", "Min", "Max"),
)
_SHAPES = [((3, 5), (3, 5)), ((3, 5), (5,)), ((3, 1, 5), (2, 1)), ((), (4,)), ((2, 3, 4), (3, 1))]

POINTWISE_CASES: list[Case] = [
    *(Case(op, [f32(2, 3, 5)]) for op in _ANY_FLOAT),
    *(Case(op, [f32(3, 7, low=low, high=high)]) for op, (low, high) in _LIMITED.items()),
    *(Case(op, [f32(3, 7)], attrs) for op, attrs in _ATTRS),
    *(Case(op, [f64(3, 4)]) for op in ("Exp", "Tanh", "Sigmoid", "Relu", "Abs")),
    *(Case(op, [f16(3, 4)]) for op in ("Exp", "Tanh", "Sigmoid", "Relu", "Gelu")),
    Case("Swish", [f32(3, 4)], {"alpha": 1.5}, opset=24, truth="onnx"),
    Case("Swish", [f32(3, 4)], opset=24, truth="onnx"),
    *(Case(op, [_EDGES]) for op in ("Relu", "Sign", "Round", "Floor", "IsNaN", "Abs", "Sigmoid")),
    Case("IsInf", [_EDGES]),
    Case("IsInf", [_EDGES], {"detect_negative": 0}),
    Case("IsInf", [_EDGES], {"detect_positive": 0}),
    Case("IsInf", [_EDGES], {"detect_positive": 0, "detect_negative": 0}),
    Case("Not", [bools(3, 4)]),
    Case("BitwiseNot", [ints(3, 4, dtype=np.int32)]),
    Case("BitwiseNot", [ints(3, 4, low=0, high=255, dtype=np.uint8)]),
    *(Case("Abs", [ints(3, 4, dtype=t)]) for t in (np.int8, np.int32, np.int64)),
    *(Case("Neg", [ints(3, 4, dtype=t)]) for t in (np.int8, np.int32, np.int64)),
    *(Case("Sign", [ints(3, 4, dtype=t)]) for t in (np.int8, np.int64)),
    Case("Sign", [ints(3, 4, low=0, dtype=np.uint8)]),
    Case("Relu", [ints(3, 4, dtype=np.int32)]),
    *(Case(op, [f32(*a), f32(*b)]) for op in _BINARY for a, b in _SHAPES[:3]),
    *(Case(op, [f32(2, 3), scalar(1.5)], const=[1]) for op in ("Add", "Mul", "Less", "Max")),
    *(Case(op, [ints(3, 4), ints(4)]) for op in ("Add", "Sub", "Mul", "Min", "Max", "Equal")),
    *(Case("Add", [ints(3, 4, low=0, high=255, dtype=t)] * 2) for t in (np.uint8, np.int8)),
    Case("Add", [bf16(3, 4), bf16(3, 4)]),
    *(Case(op, [f16(3, 4), f16(4)]) for op in ("Add", "Mul", "Div", "Less")),
    *(Case("Add", [f32(*a), f32(*b)]) for a, b in _SHAPES),
    Case("Div", [ints(3, 5, low=-20, high=20), ints(3, 5, low=1, high=7)]),
    Case("Div", [ints(3, 5, low=-20, high=20, dtype=np.int32), np.array(-3, np.int32)], const=[1]),
    Case("Mod", [ints(3, 5, low=-20, high=20), ints(3, 5, low=1, high=7)]),
    Case("Mod", [ints(3, 5, low=-20, high=20), -ints(3, 5, low=1, high=7)]),
    Case("Mod", [ints(3, 5, low=-20, high=20), ints(3, 5, low=1, high=7)], {"fmod": 1}),
    Case("Mod", [f32(3, 5), f32(3, 5)], {"fmod": 1}),
    Case("Mod", [f32(3, 5), f32(3, 5)], opset=28, truth="onnx"),
    Case("SwiGLU", [f32(3, 5), f32(3, 5)], {"alpha": 1.5}, opset=28, truth="onnx"),
    *(
        Case(
            "BitShift",
            [ints(3, 5, dtype=t), ints(5, low=-2, high=9, dtype=t)],
            {"direction": d},
            opset=28,
            truth="onnx",
        )
        for t in (np.int8, np.int64)
        for d in ("LEFT", "RIGHT")
    ),
    Case("Pow", [f32(3, 4, low=0.1), f32(3, 4)]),
    *(Case("Pow", [f32(3, 4, low=0.1), scalar(e)], const=[1]) for e in (2, 3, 0.5, -1, 0, 1.7)),
    Case("Pow", [ints(3, 4), ints(3, 4, low=0, high=4)]),
    Case("Pow", [ints(3, 4, dtype=np.int32), ints(4, low=0, high=4)]),
    Case("Pow", [ints(3, 4, low=1), f32(4, low=0.0)]),
    Case("Pow", [f32(3, 4), i64(2)], const=[1]),
    *(Case(op, [bools(3, 4), bools(4)]) for op in ("And", "Or", "Xor")),
    Case("Equal", [bools(3, 4), bools(4)]),
    *(
        Case(op, [ints(3, 4, dtype=np.int32), ints(4, dtype=np.int32)])
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ),
    *(
        Case(
            "BitShift",
            [ints(3, 4, low=0, high=99, dtype=t), ints(4, low=0, high=7, dtype=t)],
            {"direction": d},
        )
        for t in (np.uint8, np.uint32)
        for d in ("LEFT", "RIGHT")
    ),
    *(Case(op, [f32(3, 4), f32(4), f32(2, 1, 1)]) for op in ("Sum", "Max", "Min")),
    Case("Mean", [f32(3, 4), f32(4), f32(2, 1, 1)], truth="ort"),
    *(Case(op, [f32(3, 4)]) for op in ("Sum", "Mean", "Max", "Min")),
    Case("Where", [bools(3, 4), f32(4), f32(2, 3, 1)]),
    Case("Where", [bools(3, 1), ints(4), ints(3, 4)]),
    Case("Where", [bools(3, 1), bools(4), bools(3, 4)], truth="onnx"),
    Case("PRelu", [f32(2, 3, 4), f32(3, 1)]),
    Case("PRelu", [f32(2, 3, 4), f32(2, 3, 4)]),
    Case("PRelu", [f32(2, 3, 4), f32(1)], const=[1]),
    Case("Clip", [f32(3, 4)]),
    Case("Clip", [f32(3, 4), scalar(-0.5), scalar(0.5)]),
    Case("Clip", [f32(3, 4), scalar(-0.5), scalar(0.5)], const=[1, 2]),
    Case("Clip", [f32(3, 4), None, scalar(0.5)], const=[2]),
    Case("Clip", [f32(3, 4), scalar(0.5), scalar(-0.5)], const=[1, 2]),
    Case("Clip", [ints(3, 4), np.array(-2), np.array(3)], const=[1, 2]),
    Case("Identity", [f32(3, 4)]),
    Case("Identity", [bools(3, 4)]),
    Case("Dropout", [f32(3, 4)], outputs=2),
    Case("Dropout", [f32(3, 4), scalar(0.3), np.array(False)], outputs=2, const=[1, 2]),
    *(
        Case("Cast", [x], {"to": to})
        for x in (f32(3, 4, low=-20, high=20), ints(3, 4, dtype=np.int32), bools(3, 4), f64(3, 4))
        for to in (1, 11, 10, 7, 6, 9, 3)
    ),
    *(Case("Cast", [f32(3, 4, low=0, high=20)], {"to": to}) for to in (2, 4, 12, 13)),
    Case("Cast", [f32(3, 4)], {"to": 16}, truth="onnx"),
    Case("Cast", [ints(3, 4, low=-500, high=500)], {"to": 3}),
    Case("Cast", [bf16(3, 4)], {"to": 1}),
    Case("CastLike", [f32(3, 4), i64(1)]),
]
