"""Transposed convolution against the reference."""

from __future__ import annotations

import pytest
from trial import check, conv_transpose, image

from planish.base.shapes import symbol
from planish.kernels.cpu.line_kernels import CONV_TRANSPOSE as KERNEL

N, H = symbol("N"), symbol("H")


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_strides_and_dilations(stride, dilation):
    x = image((2, 5, 6, 7))
    check(KERNEL, conv_transpose(x, 19, (3, 2), stride=stride, dilation=dilation, pads=1))


def test_taps_that_leave_outputs_empty():
    check(KERNEL, conv_transpose(image((1, 5, 4, 3)), 6, (2, 1), stride=3, more=2))


@pytest.mark.parametrize("size", [(11,), (3, 4, 5)])
def test_ranks_channels_first_run_time_weights(size):
    x = image((1, 3, *size), first=True)
    w = conv_transpose(x, 5, (3,) * len(size), stride=2, pads=1, const_weights=False)
    check(KERNEL, w)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (4, 1), (4, 2), (6, 4)])
def test_long_kernels(stride, dilation):
    x = image((1, 3, 40))
    check(KERNEL, conv_transpose(x, 5, (50,), stride=stride, dilation=dilation, pads=7))
