"""A plan that uses every field; its code and its host model are never looked at."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import ceildiv, floordiv, symbol
from planish.plan import (
    HeapBuffer,
    HostStep,
    HostTensor,
    NativeStep,
    PhaseCall,
    Plan,
    Profile,
    Ref,
    TensorInfo,
)

N, H, M = symbol("N"), symbol("H"), symbol("M")


def full_plan(**fields: Any) -> Plan:
    """A plan that uses every field."""
    native = NativeStep(
        name="conv_1",
        origin=("Conv_0", "Relu_1"),
        args=(Ref("input", 0), Ref("weight", 1), Ref("arena", 0, 64, span=64 * N), None),
        params=(N, floordiv(H + 1, 2)),
        phases=(PhaseCall("k0123_0", ceildiv(N, 4)), PhaseCall("k0123_1", 7, barrier=False)),
        group=0,
        weight=1.5,
        kernel="cpu.conv_f32.direct",
        tactic="mr=6 nr=4",
        reason=("fastest of 4", "winograd: refused, stride 2"),
        workload="conv f32[N,3,H,8]",
        micros=12.25,
        flops=1 << 40,
        bytes=12345,
        precision="f32",
    )
    host = HostStep(
        name="nonzero_2",
        origin=("NonZero_3",),
        op="NonZero",
        model=b"\x08\x07 not looked at by the file",
        inputs=(HostTensor(Ref("arena", 0, 64), DType.F32, (N, 2)), None),
        outputs=(
            HostTensor(Ref("heap", 0), DType.I64, (2, M)),
            HostTensor(Ref("heap", 1), DType.I64, None),
        ),
        reason="its size depends on data",
        micros=100.0,
    )
    last = dataclasses.replace(
        native, name="last", group=1, params=(M,), args=(Ref("heap", 0), Ref("output", 0))
    )
    values: dict[str, Any] = {
        "name": "модель \ud800 'x'",
        "inputs": (TensorInfo("data", DType.F32, (N, 3, H, 8)), TensorInfo("k", DType.I64, ())),
        "outputs": (TensorInfo("y", DType.I64, (2, M)),),
        "profiles": (Profile((("N", 1, 2, 8), ("H", 4, 4, 64))),),
        "steps": (native, host, last),
        "objects": (b"object one", b"", b"object three"),
        "weights": (
            np.arange(6, dtype=np.float32).reshape(2, 3),
            np.arange(5, dtype=ml_dtypes.bfloat16),
            np.zeros((0, 4), np.int8),
            np.array(True),
            np.arange(3).astype(ml_dtypes.int4),
        ),
        "arena": 4096,
        "worker_scratch": 128,
        "heap": (HeapBuffer(16 * M), HeapBuffer(0)),
        "threads": 2,
        "target": {"isa": "avx2", "needs": ["avx2", "fma"]},
        "provenance": {
            "model": {"sha256": "ab" * 32, "opset": 17},
            "options": ["--level", 3, None],
        },
        "stages": (("import", 57), ("fuse_epilogue", 21)),
        "memory": {"planned": 4096, "naive": 9999, "lower_bound": 4000},
        "history": (("fuse_epilogue", "Relu into Conv", ("Relu_1", "Conv_0")),),
        "folded": ("w",),
    }
    return Plan(**{**values, **fields})
