"""Runs a kernel on a workload, every ISA of this machine, 1 to 3 workers, against the reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from planish.base.dtypes import DType
from planish.base.errors import BuildError
from planish.base.expr import Expr, Load, Temp, Var, call, const
from planish.base.shapes import Dim, evaluate
from planish.kernels.check import largest_error, run_kernel
from planish.kernels.kernel import Kernel
from planish.kernels.reference import run_reference
from planish.kernels.workload import Operand, Workload, channels_last_strides, dense_strides
from planish.targets.cpu import CpuTarget, host_target

F32 = DType.F32


def targets(threads: int = 2) -> list[CpuTarget]:
    """One target for each ISA that this machine has."""
    found = []
    for isa in ("avx512", "avx2", "neon", "generic"):
        try:
            found.append(host_target(isa=isa, threads=threads))
        except BuildError:
            continue
    return found


def random_inputs(
    w: Workload, env: Mapping[str, int] | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Values for every operand; repeated axes repeat them."""
    rng = np.random.default_rng(seed)
    made = []
    for operand in w.inputs:
        shape = [evaluate(d, dict(env or {})) for d in operand.shape]
        strides = [evaluate(d, dict(env or {})) for d in operand.strides]
        own = [1 if step == 0 else extent for extent, step in zip(shape, strides, strict=True)]
        if operand.dtype.is_float:
            values = rng.standard_normal(own)
        else:
            values = rng.integers(0 if not operand.dtype.is_signed else -50, 50, own)
        array = np.broadcast_to(values.astype(operand.dtype.numpy), shape)
        made.append(np.array(array))
    return made


def check(
    kernel: Kernel,
    w: Workload,
    env: Mapping[str, int] | None = None,
    *,
    few: int = 1,
    tolerance: float | None = None,
) -> None:
    """Hold a kernel's first config to the reference on every ISA; every split gives the same bytes.

    Args:
        kernel: The kernel.
        w: A workload that it takes.
        env: Values of the symbolic sizes.
        few: Configs to run on the best ISA.
        tolerance: Allowed error; None for the kernel's own.
    """
    limit = kernel.tolerance if tolerance is None else tolerance
    inputs = random_inputs(w, env)
    want = run_reference(w, inputs, env)
    for target in targets():
        reason = kernel.refuse(w, target)
        if reason is not None:
            pytest.fail(f"{kernel.name} refuses on {target}: {reason}")
        points = list(kernel.configs(w, target))
        assert len(set(points)) == len(points)
        for config in points[: few if target == targets()[0] else 1]:
            first = run_kernel(kernel, w, config, target, inputs, env)
            for got, right in zip(first, want, strict=True):
                error = largest_error(got, right)
                assert error <= limit, f"{config} on {target}: error {error:.2e}\n{w}"
            again = run_kernel(kernel, w, config, target, inputs, env, threads=3)
            for one, other in zip(first, again, strict=True):
                assert one.tobytes() == other.tobytes(), f"{config}: the split matters\n{w}"


def tensor(
    shape: tuple[Dim, ...], dtype: DType = F32, strides: tuple[Dim, ...] | None = None
) -> Operand:
    """A run-time operand, dense unless strides are given."""
    return Operand(dtype, shape, dense_strides(shape) if strides is None else strides)


def image(
    shape: tuple[Dim, ...], dtype: DType = F32, pixel: int = 0, first: bool = False
) -> Operand:
    """An activation [N, C, *spatial], channels last unless `first`.

    Args:
        shape: Logical shape.
        dtype: Element type.
        pixel: Elements from pixel to pixel; 0 for the number of channels.
        first: Channels first.
    """
    if first:
        return tensor(shape, dtype)
    strides = channels_last_strides((shape[0], pixel or shape[1], *shape[2:]))
    return Operand(dtype, shape, strides)


def conv(
    x: Operand,
    features: int | tuple[int, ...],
    kernel: tuple[int, ...],
    *,
    stride: int = 1,
    dilation: int = 1,
    pads: int | tuple[int, ...] = 0,
    group: int = 1,
    extra: tuple[Operand, ...] = (),
    epilogue: tuple[Expr, ...] = (),
    dtype: DType | None = None,
    pixel: int = 0,
    const_weights: bool = True,
    weights: DType | None = None,
) -> Workload:
    """A `conv` workload."""
    rank = len(kernel)
    pads = (pads,) * 2 * rank if isinstance(pads, int) else pads
    out = tuple(
        (size + pads[n] + pads[n + rank] - (k - 1) * dilation - 1) // stride + 1
        for n, (size, k) in enumerate(zip(x.shape[2:], kernel, strict=True))
    )
    counts = (features,) if isinstance(features, int) else features
    channels = int(str(x.shape[1])) // group
    shape = (sum(counts), channels, *kernel)
    w = Operand(weights or x.dtype, shape, dense_strides(shape), const_weights)
    outs = tuple(image((x.shape[0], c, *out), dtype or x.dtype, pixel) for c in counts)
    attrs = (
        ("dilations", (dilation,) * rank),
        ("group", group),
        ("pads", pads),
        ("strides", (stride,) * rank),
    )
    return Workload("conv", (x, w, *extra), outs, attrs, epilogue, threads=2)


def biased(tensor: int, axis: int = 1, then: str = "relu", dtype: DType = F32) -> Expr:
    """acc + bias[channel], through an activation."""
    total = call("add", Temp(0, (), dtype), Load(tensor, (Var(f"o{axis}"),), dtype))
    if then == "relu":
        return call("max", total, const(0, dtype))
    return call("mul", total, call("sigmoid", total)) if then == "silu" else total


def residual(tensor: int, other: int, rank: int) -> Expr:
    """relu(acc + bias[channel] + other[every index])."""
    index = tuple(Var(f"o{axis}") for axis in range(rank))
    total = call("add", biased(tensor, then="none"), Load(other, index, F32))
    return call("max", total, const(0.0, F32))


def conv_transpose(
    x: Operand,
    features: int,
    kernel: tuple[int, ...],
    *,
    stride: int = 1,
    dilation: int = 1,
    pads: int | tuple[int, ...] = 0,
    group: int = 1,
    more: int = 0,
    extra: tuple[Operand, ...] = (),
    epilogue: tuple[Expr, ...] = (),
    dtype: DType | None = None,
    const_weights: bool = True,
) -> Workload:
    """A `conv_transpose` workload; `more` is the output padding."""
    rank = len(kernel)
    pads = (pads,) * 2 * rank if isinstance(pads, int) else pads
    out = tuple(
        (size - 1) * stride + (k - 1) * dilation + 1 - pads[n] - pads[n + rank] + more
        for n, (size, k) in enumerate(zip(x.shape[2:], kernel, strict=True))
    )
    shape = (int(str(x.shape[1])), features // group, *kernel)
    w = Operand(x.dtype, shape, dense_strides(shape), const_weights)
    attrs = (
        ("dilations", (dilation,) * rank),
        ("group", group),
        ("pads", pads),
        ("strides", (stride,) * rank),
    )
    outs = (image((x.shape[0], features, *out), dtype or x.dtype),)
    return Workload("conv_transpose", (x, w, *extra), outs, attrs, epilogue, threads=2)


def matmul(
    batch: tuple[Dim, ...],
    sizes: tuple[Dim, Dim, Dim],
    *,
    dtypes: tuple[DType, DType, DType] = (F32, F32, F32),
    turned: str = "",
    repeat_b: tuple[int, ...] = (),
    extra: tuple[Operand, ...] = (),
    epilogue: tuple[Expr, ...] = (),
) -> Workload:
    """A `matmul` workload of run-time operands.

    Args:
        batch: Batch extents.
        sizes: M, K, N.
        dtypes: Of a, b and the output.
        turned: "a", "b" or "ab": operands that lie transposed in memory.
        repeat_b: Batch axes along which b is repeated.
        extra: Operands of the epilogue.
        epilogue: At most one expression.
    """
    m, k, n = sizes
    a, b = (
        Operand(dtype, (*batch, *shape), _matrix_strides((*batch, *shape), name in turned))
        for name, dtype, shape in (("a", dtypes[0], (m, k)), ("b", dtypes[1], (k, n)))
    )
    steps = tuple(0 if axis in repeat_b else step for axis, step in enumerate(b.strides))
    b = Operand(b.dtype, b.shape, steps)
    out = tensor((*batch, m, n), dtypes[2])
    return Workload("matmul", (a, b, *extra), (out,), (), epilogue, threads=2)


def _matrix_strides(shape: tuple[Dim, ...], turned: bool) -> tuple[Dim, ...]:
    if not turned:
        return dense_strides(shape)
    *batch, row, column = dense_strides((*shape[:-2], shape[-1], shape[-2]))
    return (*batch, column, row)


def attention(
    batch: tuple[Dim, Dim],
    sizes: tuple[Dim, Dim, int, int],
    *,
    mask: Expr | None = None,
    extra: tuple[Operand, ...] = (),
    epilogue: tuple[Expr, ...] = (),
) -> Workload:
    """An `attention` workload [N, heads, …] over tensors that lie as [N, position, head, width].

    Args:
        batch: N and the number of heads.
        sizes: Queries, keys, width of q and k, width of v.
        mask: What is made of the scores.
        extra: Operands of the mask and the epilogue.
        epilogue: At most one expression.
    """
    n, heads = batch
    queries, keys, depth, width = sizes
    shapes = ((queries, depth), (keys, depth), (keys, width), (queries, width))
    q, k, v, out = (
        tensor((n, heads, length, d), strides=(length * heads * d, d, heads * d, 1))
        for length, d in shapes
    )
    attrs = (("scale", depth**-0.5),)
    return Workload("attention", (q, k, v, *extra), (out,), attrs, epilogue, threads=2, mask=mask)
