"""Depthwise convolution against the reference."""

from __future__ import annotations

import pytest
from trial import check, conv, image, targets

from planish.base.dtypes import DType
from planish.base.expr import Temp, call, const
from planish.base.shapes import symbol
from planish.kernels.conv_shape import conv_shape
from planish.kernels.cpu.conv_depthwise import KERNEL, cut_row

N, H, W = symbol("N"), symbol("H"), symbol("W")


@pytest.mark.parametrize("channels", [2, 20])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "pads"),
    [
        ((9, 11), 3, 1, 1, 1),
        ((8, 7), 3, 2, 1, (0, 0, 1, 1)),
        ((12, 13), 3, 1, 2, 2),
        ((3, 3), 5, 1, 1, 2),
        ((14, 14), 7, 1, 1, 3),
        ((30,), 3, 1, 1, 1),
        ((5, 6, 7), 3, 2, 1, 1),
    ],
)
def test_agrees(channels, size, kernel, stride, dilation, pads):
    x = image((2, channels, *size))
    check(
        KERNEL,
        conv(
            x,
            channels,
            (kernel,) * len(size),
            stride=stride,
            dilation=dilation,
            pads=pads,
            group=channels,
        ),
    )


def test_every_config():
    x = image((1, 35, 10, 15))
    check(KERNEL, conv(x, 35, (3, 3), pads=1, group=35), few=99)


@pytest.mark.parametrize(
    ("stride", "dilation", "pads"), [(1, 1, 1), (2, 1, 1), (1, 3, 0), (2, 2, 4)]
)
def test_symbolic_space(stride, dilation, pads):
    x = image((N, 20, H, W))
    w = conv(x, 20, (3, 3), stride=stride, dilation=dilation, pads=pads, group=20)
    for env in ({"N": 2, "H": 9, "W": 31}, {"N": 1, "H": 7, "W": 8}):
        check(KERNEL, w, env, few=9)


@pytest.mark.parametrize("channels", [20, 64])
def test_writes_codes(channels):
    """A float layer between layers of bytes: its sums are floats, its result is not."""
    sums = call("mul", Temp(0, (), DType.F32), const(8, DType.F32))
    clamped = call(
        "min", call("max", call("round", sums), const(0, DType.F32)), const(255, DType.F32)
    )
    codes = call("cast", clamped, dtype=DType.U8)
    x = image((2, channels, 9, 11))
    w = conv(x, channels, (3, 3), pads=1, group=channels, epilogue=(codes,), dtype=DType.U8)
    check(KERNEL, w)


def test_symbolic_length():
    """Rows shorter than the kernel, too."""
    w = conv(image((1, 20, W)), 20, (5,), pads=2, group=20)
    for width in (1, 2, 5, 40):
        check(KERNEL, w, {"W": width})


def test_refusals():
    target = targets()[0]
    x = image((1, 8, 6, 6))
    full = conv(x, 8, (3, 3))
    assert "one filter a channel" in str(KERNEL.refuse(full, target))
    first = conv(image((1, 8, 6, 6), first=True), 8, (3, 3), group=8)
    assert "contiguous" in str(KERNEL.refuse(first, target))
    double = conv(image((1, 8, 6, 6), DType.F64), 8, (3, 3), group=8)
    assert "f32" in str(KERNEL.refuse(double, target))


def test_rows_are_cut_by_pattern():
    shape = conv_shape(conv(image((1, 4, 5, 20)), 4, (3, 3), pads=1, group=4))
    runs = cut_row(shape, 5)
    assert [(r.first, r.count, r.width, r.valid) for r in runs] == [
        (0, 1, 5, (1, 7)),
        (5, 2, 5, (0, 7)),
        (15, 1, 5, (0, 6)),
    ]
