"""Integer convolutions and matmuls, u8 · s8 in i32, by name, and values that try them hard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from contraction_shapes import CONVS, MATMULS, H, N, W
from contractions import conv_workload, matmul_workload
from trial import targets

from planish.base.dtypes import DType
from planish.base.expr import Expr, Load, Temp, Var, call, const
from planish.base.shapes import evaluate
from planish.kernels.workload import Operand, Workload
from planish.targets.cpu import CpuTarget

SUM = Temp(0, (), DType.I32)
F32, I32, U8 = DType.F32, DType.I32, DType.U8


def of_bytes(w: Workload, finish: str = "requantize", x: DType = U8) -> Workload:
    """A layer of `contractions` on integers, with an epilogue of `FINISHES`."""
    operands = [replace(w.inputs[0], dtype=x), replace(w.inputs[1], dtype=DType.I8)]
    exprs: list[Expr] = []
    outputs = []
    axis = 1 if w.op == "conv" else len(w.outputs[0].shape) - 1
    for output in w.outputs:
        expr, extra = FINISHES[finish](output, axis, len(operands))
        operands += extra
        exprs.append(expr)
        outputs.append(replace(output, dtype=expr.dtype))
    return replace(
        w,
        inputs=tuple(operands),
        outputs=tuple(outputs),
        epilogue=() if finish == "sums" else tuple(exprs),
    )


def _constant(output: Operand, axis: int, dtype: DType) -> Operand:
    return Operand(dtype, (output.shape[axis],), (1,), const=True)


def _scaled(output: Operand, axis: int, number: int) -> tuple[Expr, list[Operand]]:
    """cast(acc + bias[c]) * m[c]"""
    at = (Var(f"o{axis}"),)
    total = call("cast", call("add", SUM, Load(number, at, I32)), dtype=F32)
    value = call("mul", total, Load(number + 1, at, F32))
    return value, [_constant(output, axis, I32), _constant(output, axis, F32)]


def _to_byte(value: Expr) -> Expr:
    whole = call("add", call("round", value), const(3, F32))
    clamped = call("min", call("max", whole, const(0, F32)), const(255, F32))
    return call("cast", clamped, dtype=U8)


def _requantize(output: Operand, axis: int, number: int) -> tuple[Expr, list[Operand]]:
    value, extra = _scaled(output, axis, number)
    return _to_byte(call("max", value, const(0, F32))), extra


def _residual(output: Operand, axis: int, number: int) -> tuple[Expr, list[Operand]]:
    value, extra = _scaled(output, axis, number)
    where = tuple(Var(f"o{n}") for n in range(len(output.shape)))
    other = call("cast", Load(number + 2, where, U8), dtype=F32)
    total = call("add", value, call("mul", other, const(0.5, F32)))
    return _to_byte(total), [*extra, Operand(U8, output.shape, output.strides)]


FINISHES = {
    "sums": lambda output, axis, number: (SUM, []),
    "requantize": _requantize,
    "residual": _residual,
    "floats": _scaled,
}
_PLAIN = {name: w for name, w in CONVS.items() if not name.startswith("then_")}
_NAMES = tuple(FINISHES)
BYTE_CONVS: dict[str, Workload] = {
    **{
        f"bytes_{name}": of_bytes(w, _NAMES[n % len(_NAMES)])
        for n, (name, w) in enumerate(_PLAIN.items())
    },
    "bytes_3_channels": of_bytes(conv_workload((2, 3, 15, 17), (20, 3, 7, 7), stride=2, pads=3)),
    "bytes_3_channels_unpadded": of_bytes(conv_workload((1, 3, 9, 17), (20, 3, 3, 3), stride=2)),
    "bytes_3_channels_width": of_bytes(conv_workload((N, 3, H, W), (20, 3, 3, 3), stride=2)),
    "bytes_3_channels_padded_width": of_bytes(conv_workload((1, 3, H, W), (9, 3, 3, 3), pads=1)),
    "bytes_1_channel": of_bytes(conv_workload((1, 1, 9, 10), (9, 1, 5, 5), pads=2)),
    "bytes_1_channel_wide_kernel": of_bytes(conv_workload((1, 1, 3, 5), (9, 1, 3, 9), pads=4)),
    "bytes_2_channels": of_bytes(conv_workload((1, 2, 5, 3), (9, 2, 3, 3), pads=(2, 2, 2, 2))),
    "bytes_6_channels_rows": of_bytes(conv_workload((1, 6, 9, 3), (36, 6, 3, 3), pads=1)),
    "bytes_8_channels": of_bytes(conv_workload((1, 8, 9, 13), (33, 8, 3, 3), pads=1), "residual"),
    "bytes_deep": of_bytes(conv_workload((1, 68, 5, 8), (70, 68, 3, 3), pads=1)),
    "bytes_signed": of_bytes(conv_workload((1, 6, 9, 13), (33, 6, 3, 3), pads=1), x=DType.I8),
    "bytes_signed_deep": of_bytes(conv_workload((1, 36, 40), (40, 36, 1)), x=DType.I8),
}
BYTE_MATMULS: dict[str, Workload] = {
    **{
        f"bytes_{name}": of_bytes(w, _NAMES[n % len(_NAMES)])
        for n, (name, w) in enumerate(MATMULS.items())
        if not name.startswith("then_")
    },
    **{
        f"bytes_{depth}_deep": of_bytes(matmul_workload((7, depth), (depth, 37)), "sums")
        for depth in (2, 3, 4, 5, 6, 8, 130)
    },
    "bytes_signed": of_bytes(matmul_workload((7, 21), (21, 37)), x=DType.I8),
}


def byte_inputs(w: Workload, env: Mapping[str, int], *, extreme: bool = False) -> list[np.ndarray]:
    """Values over the whole range of each operand's type; scales that spread the sums over u8.

    Args:
        w: A workload of this module.
        env: Values of the symbolic sizes.
        extreme: Inputs and weights take their extreme values only, mostly of one sign.
    """
    rng = np.random.default_rng(1)
    made: list[np.ndarray] = []
    for number, operand in enumerate(w.inputs):
        shape = [evaluate(d, env) for d in operand.shape]
        own = [1 if step == 0 else n for n, step in zip(shape, operand.strides, strict=True)]
        if operand.dtype.is_float:
            values = rng.uniform(0.0, 2e-3, own)
        elif operand.dtype is I32:
            values = rng.integers(-5000, 5000, own)
        else:
            limits = np.iinfo(operand.dtype.numpy)
            values = rng.integers(limits.min, limits.max + 1, own)
            if extreme and number < 2:
                often = limits.max if number == 0 and limits.min == 0 else limits.min
                values = np.where(rng.random(own) < 0.95, often, limits.max)
        made.append(np.array(np.broadcast_to(values.astype(operand.dtype.numpy), shape)))
    return made


def equal(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> bool:
    """Whether all bits agree."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(got, want, strict=True))


def all_targets() -> dict[str, CpuTarget]:
    """Every ISA with each of its ways to multiply bytes, as far as this machine runs them."""
    found = {}
    for target in targets():
        found[f"{target.isa}-{target.dot or 'plain'}"] = target
        found[f"{target.isa}-plain"] = replace(target, dot="")
        if target.dot == "bytes":
            without = f"{target.features},-avx512vnni,-avxvnni"
            pairs = replace(target, dot="pairs", features=without)
            found[f"{target.isa}-pairs"] = pairs
            narrow = replace(target, vector_bytes=32, registers=16)
            found[f"{target.isa}-bytes-256"] = narrow
    return found
