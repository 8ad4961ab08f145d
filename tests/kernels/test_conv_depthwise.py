"""Depthwise convolution against the reference."""

from __future__ import annotations

import pytest
from trial import check, conv, image, targets

from planish.base.dtypes import DType
from planish.base.shapes import symbol
from planish.kernels.conv_shape import conv_shape
from planish.kernels.cpu.conv_depthwise import KERNEL, cut_row

N, H = symbol("N"), symbol("H")


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


def test_refusals():
    target = targets()[0]
    x = image((1, 8, 6, 6))
    full = conv(x, 8, (3, 3))
    assert "one filter a channel" in str(KERNEL.refuse(full, target))
    first = conv(image((1, 8, 6, 6), first=True), 8, (3, 3), group=8)
    assert "contiguous" in str(KERNEL.refuse(first, target))
    double = conv(image((1, 8, 6, 6), DType.F64), 8, (3, 3), group=8)
    assert "f32" in str(KERNEL.refuse(double, target))
    wide = conv(image((1, 8, 6, N)), 8, (3, 3), group=8)
    assert "symbolic" in str(KERNEL.refuse(wide, target))


def test_rows_are_cut_by_pattern():
    shape = conv_shape(conv(image((1, 4, 5, 20)), 4, (3, 3), pads=1, group=4))
    runs = cut_row(shape, 5)
    assert [(r.first, r.count, r.width, r.valid) for r in runs] == [
        (0, 1, 5, (1, 7)),
        (5, 2, 5, (0, 7)),
        (15, 1, 5, (0, 6)),
    ]
