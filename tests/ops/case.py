"""One operator application with its inputs, and what it should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from planish.base.dtypes import DType

OPSET = min(23, onnx.defs.onnx_opset_version())


@dataclass(frozen=True)
class Case:
    """An operator application.

    Attributes:
        op: Operator name.
        inputs: Arrays; None for an input left out.
        attrs: Attributes as planish has them.
        outputs: How many outputs are compared.
        const: Inputs whose contents are known at build time.
        tolerance: Allowed error, relative to the largest magnitude.
        truth: "both": onnx.reference and onnxruntime; or the one that is right.
        symbolic: Whether shapes can be inferred, and the operator run, with symbolic sizes.
        fixed: (input, axis) pairs whose size has to be known all the same.
    """

    op: str
    inputs: Sequence[np.ndarray | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    const: Sequence[int] = ()
    tolerance: float = 2e-6
    truth: str = "both"
    symbolic: bool = True
    fixed: Sequence[tuple[int, int]] = ()
    opset: int = OPSET

    def __str__(self) -> str:
        shapes = ",".join("-" if a is None else f"{a.dtype}{list(a.shape)}" for a in self.inputs)
        attrs = ",".join(f"{k}={v}" for k, v in self.attrs.items() if not hasattr(v, "shape"))
        return f"{self.op}-{shapes}-{attrs}".replace(" ", "")

    def model(self) -> onnx.ModelProto:
        """The ONNX model of this one node."""
        names = ["" if a is None else f"x{n}" for n, a in enumerate(self.inputs)]
        while names and not names[-1]:
            names.pop()
        outputs = [f"y{n}" for n in range(self.outputs)]
        attrs = {k: _proto(v) for k, v in self.attrs.items()}
        node = helper.make_node(self.op, names, outputs, **attrs)
        inputs = [
            helper.make_tensor_value_info(f"x{n}", DType.from_numpy(a.dtype).onnx, a.shape)
            for n, a in enumerate(self.inputs)
            if a is not None and n not in self.const
        ]
        consts = [
            numpy_helper.from_array(a, f"x{n}")
            for n, a in enumerate(self.inputs)
            if a is not None and n in self.const
        ]
        results = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph([node], "case", inputs, results, consts)
        opset = helper.make_opsetid("", self.opset)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)

    def feeds(self) -> dict[str, np.ndarray]:
        """The inputs that are no constants, by name."""
        return {
            f"x{n}": a for n, a in enumerate(self.inputs) if a is not None and n not in self.const
        }


def _proto(value: Any) -> Any:
    return numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value


_random = np.random.default_rng(7)


def f32(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return _random.uniform(low, high, shape).astype(np.float32)


def f64(*shape: int) -> np.ndarray:
    return _random.uniform(-2, 2, shape)


def f16(*shape: int) -> np.ndarray:
    return _random.uniform(-2, 2, shape).astype(np.float16)


def bf16(*shape: int) -> np.ndarray:
    return _random.uniform(-2, 2, shape).astype(ml_dtypes.bfloat16)


def ints(*shape: int, low: int = -5, high: int = 6, dtype: type = np.int64) -> np.ndarray:
    return _random.integers(low, high, shape).astype(dtype)


def bools(*shape: int) -> np.ndarray:
    return _random.integers(0, 2, shape).astype(bool)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def scalar(value: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(value, dtype)
