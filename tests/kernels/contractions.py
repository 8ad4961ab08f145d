"""Workloads of convolutions and matmuls with constant weights, in few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from trial import random_inputs

from planish.base.dtypes import DType
from planish.base.errors import BuildError
from planish.base.expr import Expr, Load, Temp, Var, call, const
from planish.base.shapes import Shape
from planish.kernels.check import largest_error, run_kernel
from planish.kernels.kernel import Config, Kernel, config_text
from planish.kernels.reference import run_reference
from planish.kernels.workload import Operand, Workload, channels_last_strides, dense_strides
from planish.targets.cpu import CpuTarget, host_target

ACC = Temp(0, (), DType.F32)
ISAS = ("avx512", "avx2", "generic")


def isa_target(isa: str) -> CpuTarget:
    """This machine as an ISA, "" for its best; skips the test where it has no such instructions."""
    try:
        return host_target(isa=isa, threads=2)
    except BuildError as error:
        pytest.skip(str(error))


def tile_config(mr: int, nr: int, **others: int) -> Config:
    """A config of the register-tile kernels, also one that they would not offer."""
    values = {"mr": mr, "rows": 1, "nr": nr, "strip": 1, "chunk": 0, "unroll": 2, "fetch": 7}
    return tuple((values | others).items())


def conv_workload(
    x: Shape,
    w: tuple[int, ...],
    *,
    stride: tuple[int, ...] | int = 1,
    dilation: tuple[int, ...] | int = 1,
    pads: tuple[int, ...] | int = 0,
    group: int = 1,
    split: Sequence[int] = (),
    nchw_in: bool = False,
    nchw_out: bool = False,
    wide_in: int = 0,
    wide_out: int = 0,
    epilogue: str = "bias_relu",
) -> Workload:
    """A `conv` workload.

    Args:
        x: Shape of the input.
        w: Shape of the weights.
        stride: Steps of the window, one for all axes or one each.
        dilation: Distances of taps.
        pads: Padding, one for all sides or begin… end….
        group: Groups.
        split: Channels of each output; () for one.
        nchw_in: The input is a dense NCHW tensor.
        nchw_out: The outputs are.
        wide_in: Channels of the wider buffer that the input is a slice of; 0 for none.
        wide_out: The same for each output.
        epilogue: Key of `EPILOGUES`.
    """
    rank = len(x) - 2
    steps = (stride,) * rank if isinstance(stride, int) else stride
    dilations = (dilation,) * rank if isinstance(dilation, int) else dilation
    padding = (pads,) * 2 * rank if isinstance(pads, int) else pads
    out = tuple(
        (x[n + 2] + (padding[n] + padding[rank + n] - dilations[n] * (w[n + 2] - 1) - 1))
        // steps[n]
        + 1
        for n in range(rank)
    )
    outputs = [(x[0], features, *out) for features in split or (w[0],)]
    return _finished(
        "conv",
        (
            _operand(x, nchw_in, wide_in),
            Operand(DType.F32, w, dense_strides(w), const=True),
        ),
        tuple(_operand(shape, nchw_out, wide_out) for shape in outputs),
        (
            ("dilations", dilations),
            ("group", group),
            ("pads", padding),
            ("strides", steps),
        ),
        channel=1,
        epilogue=epilogue,
    )


def matmul_workload(
    a: Shape, b: tuple[int, ...], *, epilogue: str = "bias_relu", a_strides: Shape = ()
) -> Workload:
    """A `matmul` workload with constant b, repeated along the batch axes that it lacks."""
    out = (*a[:-1], b[-1])
    lacking = len(a) - len(b)
    return _finished(
        "matmul",
        (
            Operand(DType.F32, a, a_strides or dense_strides(a)),
            Operand(
                DType.F32,
                (*a[:lacking], *b),
                (0,) * lacking + tuple(dense_strides(b)),
                const=True,
            ),
        ),
        (Operand(DType.F32, out, dense_strides(out)),),
        (),
        channel=len(out) - 1,
        epilogue=epilogue,
    )


def _operand(shape: Shape, nchw: bool, wide: int) -> Operand:
    if nchw:
        return Operand(DType.F32, shape, dense_strides(shape))
    channels = wide or shape[1]
    return Operand(DType.F32, shape, channels_last_strides((shape[0], channels, *shape[2:])))


def _finished(
    op: str,
    inputs: tuple[Operand, ...],
    outputs: tuple[Operand, ...],
    attrs: tuple[tuple[str, int | tuple[int, ...]], ...],
    *,
    channel: int,
    epilogue: str,
) -> Workload:
    extra: list[Operand] = []
    exprs: list[Expr] = []
    for output in outputs:
        expr, needed = EPILOGUES[epilogue](output, channel, len(inputs) + len(extra))
        extra += needed
        exprs.append(expr)
    results = [
        replace(output, dtype=expr.dtype) for output, expr in zip(outputs, exprs, strict=True)
    ]
    return Workload(
        op=op,
        inputs=(*inputs, *extra),
        outputs=tuple(results),
        attrs=attrs,
        epilogue=() if epilogue == "none" else tuple(exprs),
        threads=2,
    )


def _vars(output: Operand) -> tuple[Expr, ...]:
    return tuple(Var(f"o{axis}") for axis in range(len(output.shape)))


def _bias(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    count = output.shape[channel]
    at = Load(number, (Var(f"o{channel}"),), DType.F32)
    return call("add", ACC, at), [Operand(DType.F32, (count,), (1,), const=True)]


def _bias_relu(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    total, extra = _bias(output, channel, number)
    return call("max", total, const(0, DType.F32)), extra


def _residual(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    total, extra = _bias(output, channel, number)
    other = Load(number + 1, _vars(output), DType.F32)
    relu = call("max", call("add", total, other), const(0, DType.F32))
    return relu, [*extra, Operand(DType.F32, output.shape, output.strides)]


def _hardswish(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    total, extra = _bias(output, channel, number)
    gate = call("max", call("add", total, const(3, DType.F32)), const(0, DType.F32))
    gate = call("min", gate, const(6, DType.F32))
    return call("mul", call("mul", total, gate), const(1 / 6, DType.F32)), extra


def _gelu(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    total, extra = _bias(output, channel, number)
    inner = call("erf", call("mul", total, const(2**-0.5, DType.F32)))
    half = call("mul", total, const(0.5, DType.F32))
    return call("mul", half, call("add", inner, const(1, DType.F32))), extra


def _pixel_scale(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    """One factor a pixel, half precision, and one for everything."""
    shape = tuple(1 if axis == channel else d for axis, d in enumerate(output.shape))
    index = tuple(
        const(0, DType.I64) if axis == channel else Var(f"o{axis}") for axis in range(len(shape))
    )
    factor = call("cast", Load(number, index, DType.F16), dtype=DType.F32)
    whole = Load(number + 1, (), DType.F32)
    return call("mul", call("mul", ACC, factor), whole), [
        Operand(DType.F16, shape, dense_strides(shape)),
        Operand(DType.F32, (), ()),
    ]


def _masked(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    """Depends on where the element is; an operand that only some elements may read."""
    place = Var(f"o{channel}")
    short = Operand(DType.F32, (2,), (1,))
    near = call("lt", place, const(2, DType.I64))
    other = Load(number, (place,), DType.F32)
    turned = Load(number + 1, (call("mod", place, const(3, DType.I64)),), DType.F32)
    value = call("select", near, call("add", ACC, other), call("sub", ACC, turned))
    return value, [short, Operand(DType.F32, (3,), (1,))]


def _pixel_mask(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    """Depends on the indices of the pixel."""
    total: Expr = Var("o0")
    for axis in range(1, len(output.shape)):
        if axis != channel:
            total = call("add", call("mul", total, const(3, DType.I64)), Var(f"o{axis}"))
    odd = call("eq", call("mod", total, const(2, DType.I64)), const(1, DType.I64))
    return call("select", odd, ACC, const(0, DType.F32)), []


def _positive(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    """Another type of result."""
    total, extra = _bias(output, channel, number)
    return call("gt", total, const(0, DType.F32)), extra


def _half(output: Operand, channel: int, number: int) -> tuple[Expr, list[Operand]]:
    """A narrower type of result."""
    total, extra = _bias(output, channel, number)
    return call("cast", total, dtype=DType.F16), extra


EPILOGUES = {
    "none": lambda output, channel, number: (ACC, []),
    "bias": _bias,
    "bias_relu": _bias_relu,
    "residual": _residual,
    "hardswish": _hardswish,
    "gelu": _gelu,
    "pixel_scale": _pixel_scale,
    "masked": _masked,
    "pixel_mask": _pixel_mask,
    "positive": _positive,
    "half": _half,
}


def require_right(
    kernel: Kernel,
    workload: Workload,
    target: CpuTarget,
    configs: Sequence[Config],
    env: Mapping[str, int] | None = None,
) -> None:
    """Run configs of a kernel split over 1, 2 and 3 workers; hold each against the reference."""
    sizes = dict(env or {})
    inputs = random_inputs(workload, sizes)
    want = run_reference(workload, inputs, sizes)
    assert kernel.refuse(workload, target) is None
    for config in configs:
        first = run_kernel(kernel, workload, config, target, inputs, sizes, threads=1)
        for got, expected in zip(first, want, strict=True):
            error = largest_error(got, expected)
            limit = 1e-5 if expected.dtype.itemsize != 2 else 1e-3
            assert error < limit, f"{config_text(config)}: off by {error}"
        for threads in (2, 3):
            again = run_kernel(kernel, workload, config, target, inputs, sizes, threads=threads)
            for a, b in zip(first, again, strict=True):
                np.testing.assert_array_equal(a, b)
