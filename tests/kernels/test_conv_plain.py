"""The plain convolution against the reference."""

from __future__ import annotations

import pytest
from trial import biased, check, conv, image, residual, tensor

from planish.base.dtypes import DType
from planish.base.shapes import symbol
from planish.kernels.cpu.conv_plain import KERNEL

N, H, W = symbol("N"), symbol("H"), symbol("W")


@pytest.mark.parametrize(
    ("dtype", "result", "tolerance"),
    [
        (DType.F32, DType.F32, 1e-5),
        (DType.F64, DType.F64, 1e-12),
        (DType.F16, DType.F16, 2e-3),
        (DType.BF16, DType.BF16, 2e-2),
        (DType.I32, DType.I32, 0.0),
        (DType.U64, DType.U64, 0.0),
        (DType.U8, DType.I32, 0.0),
        (DType.I8, DType.I32, 0.0),
    ],
)
def test_types(dtype, result, tolerance):
    x = image((2, 5, 6, 9), dtype)
    check(KERNEL, conv(x, 19, (3, 3), pads=1, dtype=result), tolerance=tolerance)


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


def test_residual_in_wide_buffers():
    extra = (tensor((18,)), image((2, 18, 5, 4), pixel=31))
    w = conv(
        image((2, 4, 5, 4), pixel=9),
        18,
        (3, 3),
        pads=1,
        pixel=21,
        extra=extra,
        epilogue=(residual(2, 3, 4),),
    )
    check(KERNEL, w)


def test_symbolic_batch_and_space():
    x = image((N, 3, H, W))
    check(KERNEL, conv(x, 5, (3, 3), pads=1), {"N": 2, "H": 5, "W": 13})
    check(KERNEL, conv(x, 5, (3, 3), stride=2), {"N": 1, "H": 4, "W": 3})
