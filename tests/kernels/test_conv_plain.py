"""The plain convolution against the reference."""

from __future__ import annotations

import pytest
from trial import biased, check, conv, image, tensor

from planish.base.shapes import symbol
from planish.kernels.cpu.line_kernels import CONV_PLAIN as KERNEL

N, H, W = symbol("N"), symbol("H"), symbol("W")


@pytest.mark.parametrize("group", [1, 2, 6])
@pytest.mark.parametrize("const_weights", [True, False])
def test_groups_and_run_time_weights(group, const_weights):
    x = image((2, 6, 6, 9))
    w = conv(x, 12, (3, 2), stride=2, pads=1, group=group, const_weights=const_weights)
    check(KERNEL, w)


@pytest.mark.parametrize("size", [(17,), (5, 6, 7), (4, 4, 3, 5)])
def test_ranks_with_dilation(size):
    x = image((2, 3, *size))
    check(KERNEL, conv(x, 5, (2,) * len(size), pads=1, dilation=2))


def test_channels_first_and_asymmetric_padding():
    x = image((2, 6, 7, 9), first=True)
    check(KERNEL, conv(x, 9, (3, 2), pads=(2, 0, 0, 3)))


def test_several_outputs():
    extra = (tensor((7,)), tensor((20,)))
    epilogue = (biased(2), biased(3, then="silu"))
    x = image((1, 6, 6, 9))
    check(KERNEL, conv(x, (7, 20), (3, 3), pads=1, extra=extra, epilogue=epilogue))


def test_symbolic_batch_and_space():
    x = image((N, 3, H, W))
    check(KERNEL, conv(x, 5, (3, 3), pads=1), {"N": 2, "H": 5, "W": 13})
    check(KERNEL, conv(x, 5, (3, 3), stride=2), {"N": 1, "H": 4, "W": 3})


@pytest.mark.parametrize("group", [1, 3])
def test_long_kernels(group):
    x = image((1, 3, 200))
    check(KERNEL, conv(x, 9, (50,), stride=7, pads=20, group=group))
