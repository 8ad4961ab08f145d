"""Depthwise convolution of bytes: the same bits as the reference, whatever the layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from byte_shapes import byte_inputs, equal, of_bytes
from trial import conv, image, targets, tensor

from planish.base.dtypes import DType
from planish.base.expr import Const, Expr, Load, Temp, Var, call, const
from planish.base.shapes import Dim, symbol
from planish.kernels.check import run_kernel
from planish.kernels.conv_shape import conv_shape
from planish.kernels.cpu.conv_depthwise_int8 import KERNEL
from planish.kernels.cpu.depthwise_quads import Tile, axes_of, quads_of
from planish.kernels.cpu.requantize import take_rounding
from planish.kernels.reference import run_reference
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget, assembly

N, H, W = map(symbol, ("N", "H", "W"))
SIZES = {"N": 2, "H": 7, "W": 19}
F32, I32, U8, I8 = DType.F32, DType.I32, DType.U8, DType.I8


def depthwise(
    shape: tuple[Dim, ...],
    kernel: tuple[int, ...] | int,
    finish: str = "requantize",
    *,
    stride: int = 1,
    dilation: int = 1,
    pads: int | tuple[int, ...] = 0,
    pixel_in: int = 0,
    pixel_out: int = 0,
    x: DType = U8,
) -> Workload:
    """A depthwise layer of bytes with an epilogue of `byte_shapes.FINISHES`."""
    channels = int(str(shape[1]))
    size = (kernel,) * (len(shape) - 2) if isinstance(kernel, int) else kernel
    layer = conv(
        image(shape, pixel=pixel_in),
        channels,
        size,
        stride=stride,
        dilation=dilation,
        pads=pads,
        group=channels,
        pixel=pixel_out,
    )
    return of_bytes(layer, finish, x)


LAYERS: dict[str, Workload] = {
    **{
        f"{channels}_channels": depthwise((1, channels, 5, 6), 3, finish, pads=1)
        for channels, finish in (
            (1, "requantize"), (3, "residual"), (8, "sums"), (15, "requantize"), (16, "residual"),
            (17, "requantize"), (24, "floats"), (32, "requantize"), (40, "residual"),
            (64, "requantize"), (72, "requantize"), (96, "residual"), (144, "requantize"),
        )
    },
    "960_channels": depthwise((1, 960, 3, 2), 3, pads=1),
    "3x3_stride": depthwise((2, 24, 9, 8), 3, stride=2, pads=(0, 0, 1, 1)),
    "5x5": depthwise((1, 20, 8, 9), 5, pads=2),
    "5x5_stride": depthwise((1, 33, 7, 11), 5, "residual", stride=2, pads=2),
    "5x5_over_input": depthwise((1, 17, 2, 3), 5, pads=2),
    "7x7": depthwise((1, 40, 9, 5), 7, pads=3),
    "1x5": depthwise((1, 20, 4, 13), (1, 5), pads=(0, 2, 0, 2)),
    "5x1": depthwise((1, 20, 13, 4), (5, 1), pads=(2, 0, 2, 0)),
    "1x1": depthwise((1, 19, 5, 4), 1),
    "2x2": depthwise((1, 19, 5, 4), 2, stride=2),
    "dilated": depthwise((1, 16, 9, 10), 3, dilation=2, pads=2),
    "dilated_stride": depthwise((1, 18, 9, 10), 3, stride=2, dilation=3, pads=3),
    "long_pads": depthwise((1, 16, 3, 3), 3, pads=(4, 3, 2, 5)),
    "1d": depthwise((2, 18, 21), 3, pads=1),
    "1d_stride": depthwise((1, 40, 21), 5, "floats", stride=2, pads=2),
    "3d": depthwise((1, 18, 4, 5, 6), 3, pads=1),
    "3d_stride": depthwise((1, 7, 5, 5, 6), 3, "residual", stride=2, pads=1),
    "slices": depthwise((2, 35, 6, 7), 3, pads=1, pixel_in=50, pixel_out=41),
    "slices_residual": depthwise((2, 37, 6, 7), 3, "residual", pads=1, pixel_in=38, pixel_out=61),
    "signed": depthwise((1, 36, 6, 7), 3, pads=1, x=I8),
    "signed_sums": depthwise((1, 9, 6, 7), 5, "sums", pads=2, x=I8),
    "batch": depthwise((N, 24, 5, 7), 3, pads=1),
    "space": depthwise((N, 20, H, W), 3, "residual", pads=1),
    "space_stride": depthwise((1, 40, H, W), 5, stride=2, pads=2),
    "length": depthwise((1, 20, W), 5, pads=2),
}  # fmt: skip


def all_targets() -> dict[str, CpuTarget]:
    """Every ISA of this machine, with each of its ways to multiply bytes."""
    found = {}
    for target in targets():
        for dot in dict.fromkeys((target.dot, "pairs" if target.dot else "", "")):
            found[f"{target.isa}-{dot or 'plain'}"] = dataclasses.replace(target, dot=dot)
    return found


TARGETS = all_targets()


def hold(
    w: Workload,
    target: CpuTarget,
    config: tuple[tuple[str, int | str], ...],
    env: Mapping[str, int] = SIZES,
    *,
    extreme: bool = False,
) -> None:
    """1 to 3 workers against the reference, to the bit, between guard pages."""
    inputs = byte_inputs(w, env, extreme=extreme)
    want = run_reference(w, inputs, env)
    for threads in (1, 2, 3):
        got = run_kernel(KERNEL, w, config, target, inputs, env, threads)
        assert equal(got, want), f"{dict(config)} on {target}, {threads} workers\n{w}"


@pytest.mark.parametrize("name", LAYERS)
def test_first_choice(name: str) -> None:
    """Each ISA; ways to multiply that are not its own take turns."""
    w = LAYERS[name]
    own = [t for t in targets() if KERNEL.refuse(w, t) is None]
    assert own
    others = list(TARGETS.values())
    for target in (*own, others[list(LAYERS).index(name) % len(others)]):
        hold(w, target, next(iter(KERNEL.configs(w, target))))


@pytest.mark.parametrize("name", ["5x5_stride", "slices", "3d", "space", "length", "17_channels"])
def test_every_config(name: str) -> None:
    w = LAYERS[name]
    for config in list(KERNEL.configs(w, targets()[0]))[1:]:
        hold(w, targets()[0], config)


@pytest.mark.parametrize("tile", [(16, 1, 3, 1), (16, 4, 1, 4), (16, 3, 5, 2), (16, 2, 2, 4)])
@pytest.mark.parametrize("target", TARGETS)
def test_odd_tiles(target: str, tile: tuple[int, int, int, int]) -> None:
    for name in ("40_channels", "3x3_stride", "3d_stride"):
        hold(LAYERS[name], TARGETS[target], Tile(*tile).config)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("x", [U8, I8])
def test_nothing_saturates(target: str, x: DType) -> None:
    """255 · -128 many times over leaves 16 bits and never 32."""
    w = depthwise((1, 33, 9, 9), 7, "sums", pads=3, x=x)
    hold(w, TARGETS[target], next(iter(KERNEL.configs(w, TARGETS[target]))), extreme=True)


def test_symbolic_sizes_below_the_kernel() -> None:
    w = LAYERS["space"]
    for env in ({"N": 1, "H": 1, "W": 1}, {"N": 1, "H": 3, "W": 2}, {"N": 2, "H": 2, "W": 40}):
        hold(w, targets()[0], next(iter(KERNEL.configs(w, targets()[0]))), env)


def test_huge_values_and_zero_points() -> None:
    """What no i32 holds saturates; signed results, and a constant for all channels."""
    x = image((1, 20, 5, 5), U8)
    for low, high, zero, dtype in ((0, 255, 0, U8), (0, 255, 128, U8), (-128, 127, -5, I8)):
        value = call("cast", Temp(0, (), I32), dtype=F32)
        value = call("mul", value, Load(2, (Var("o1"),), F32))
        value = call("add", value, Load(3, (Const(0, DType.I64),), F32))
        whole = call("cast", _clamp(call("round", value), -255.0, 255.0, F32), dtype=I32)
        end = _clamp(call("add", whole, const(zero, I32)), low, high, I32)
        w = conv(
            x, 20, (3, 3), pads=1, group=20, weights=I8, dtype=dtype,
            extra=(
                dataclasses.replace(tensor((20,)), const=True),
                dataclasses.replace(tensor((1,)), const=True),
            ),
            epilogue=(call("cast", end, dtype=dtype),),
        )  # fmt: skip
        inputs = byte_inputs(w, {})
        inputs[2][::3] = 1e9
        inputs[3][:] = 0.25
        want = run_reference(w, inputs, {})
        for target in targets():
            config = next(iter(KERNEL.configs(w, target)))
            assert equal(run_kernel(KERNEL, w, config, target, inputs), want)


def _clamp(value: Expr, low: float, high: float, dtype: DType) -> Expr:
    return call("min", call("max", value, const(low, dtype)), const(high, dtype))


def test_rounding_is_taken_apart() -> None:
    inner = Load(2, (Var("o1"),), F32)
    whole = call("cast", _clamp(call("round", inner), -255.0, 255.0, F32), dtype=I32)
    end = call("cast", _clamp(call("add", whole, const(9, I32)), 0, 255, I32), dtype=U8)
    made = take_rounding(end)
    assert made is not None
    assert (made.value, made.zero, made.low, made.high, made.most) == (inner, 9, 0, 255, 246.0)
    relu = take_rounding(call("cast", call("round", call("max", inner, const(3.0, F32))), dtype=I8))
    assert relu is not None
    assert (relu.value, relu.low, relu.high) == (inner, 3, 127)
    wraps = call("cast", call("cast", call("round", inner), dtype=I32), dtype=U8)
    assert take_rounding(wraps) is None
    assert take_rounding(call("cast", inner, dtype=U8)) is None


def test_one_quad_serves_two_rows() -> None:
    _, vertical, _ = axes_of(conv_shape(depthwise((1, 4, 6, 6), 3, pads=1)))
    quads = quads_of(vertical, 2)
    assert quads.lines == ((0, 1, 2, 3),)
    assert quads.places == (((0, 1, 2, -1),), ((-1, 0, 1, 2),))


def test_refusals() -> None:
    target = targets()[0]
    layer = LAYERS["24_channels"]
    assert "s8 weights" in str(KERNEL.refuse(conv(image((1, 8, 6, 6)), 8, (3, 3), group=8), target))
    full = of_bytes(conv(image((1, 8, 6, 6)), 8, (3, 3)))
    assert "one filter a channel" in str(KERNEL.refuse(full, target))
    first = of_bytes(conv(image((1, 8, 6, 6), first=True), 8, (3, 3), group=8))
    assert "contiguous" in str(KERNEL.refuse(first, target))
    x, weights, *rest = layer.inputs
    variable = dataclasses.replace(weights, const=False)
    loose = dataclasses.replace(layer, inputs=(x, variable, *rest))
    assert "not constant" in str(KERNEL.refuse(loose, target))


def test_instructions() -> None:
    w = depthwise((1, 64, 14, 14), 3, pads=1)
    for target in TARGETS.values():
        config = next(iter(KERNEL.configs(w, target)))
        text = assembly(KERNEL.emit(w, config, target).text, target)
        expected = {"bytes": ("vpdpbusd",), "pairs": ("pmaddwd", "vpdpwssd"), "": ("",)}
        assert any(name in text for name in expected[target.dot])
        assert "pmaddubsw" not in text
        assert KERNEL.emit(w, config, target) == KERNEL.emit(w, config, target)


def test_vex_dot_product() -> None:
    """Machines with AVX-VNNI and no AVX-512 take the instruction, too."""
    for target in targets():
        if target.isa == "avx2":
            features = ",".join(filter(None, (target.features, "+avxvnni")))
            vnni = dataclasses.replace(target, dot="bytes", features=features)
            w = depthwise((1, 64, 14, 14), 3, pads=1)
            config = next(iter(KERNEL.configs(w, vnni)))
            assert "{vex}\tvpdpbusd" in assembly(KERNEL.emit(w, config, vnni).text, vnni)


def test_packed_weights() -> None:
    """Each weight occurs in the quads of each arrangement, in the lanes of its channel."""
    w = depthwise((1, 16, 6, 6), 3, pads=1)
    target = targets()[0]
    array = np.arange(16 * 9).reshape(16, 1, 3, 3).astype(np.int8)
    assert KERNEL.pack is not None
    packed = KERNEL.pack(w, Tile(16, 2, 2, 2).config, target, 1, array)
    if target.dot == "bytes":
        assert packed.shape == (1, 1, 3, 2, 1, 4, 4, 4)
        column = packed[0, 0, 1, :, 0, 1, 2]  # tap 1 of channel 4·1 + 2
        assert column.tolist() == [[*array[6, 0, :, 1], 0], [0, *array[6, 0, :, 1]]]
