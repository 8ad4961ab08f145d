"""Winograd's convolution against the reference, and its transforms against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from trial import check, conv, image, targets

from planish.base.shapes import symbol
from planish.kernels.cpu.conv_winograd import FLOATS as KERNEL
from planish.kernels.cpu.winograd_math import transform_filter, transforms

N, H = symbol("N"), symbol("H")


@pytest.mark.parametrize("m", [2, 4, 6])
def test_transforms_are_exact(m):
    t = transforms(m)
    data, taps, output = (
        np.array([[float(v) for v in row] for row in rows]) for rows in (t.data, t.filter, t.output)
    )
    rng = np.random.default_rng(m)
    d, g = rng.standard_normal(t.size), rng.standard_normal(3)
    want = [d[k : k + 3] @ g for k in range(m)]
    assert np.allclose(output @ ((taps @ g) * (data @ d)), want, atol=1e-12)


def test_filters_are_transformed_along_both_axes():
    t = transforms(4)
    taps = np.array([[float(v) for v in row] for row in t.filter])
    weights = np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype(np.float32)
    got = transform_filter(t, weights)
    assert np.allclose(got[:, :, 1, 2], taps @ weights[2, 1] @ taps.T, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "features", "size", "pads"),
    [
        (16, 32, (9, 11), 1),
        (32, 48, (8, 8), 1),
        (19, 35, (14, 13), 0),
        (8, 8, (3, 5), (2, 0, 1, 3)),
        (16, 8, (2, 2), 1),
    ],
)
def test_agrees(channels, features, size, pads):
    check(KERNEL, conv(image((2, channels, *size)), features, (3, 3), pads=pads), few=99)


def test_symbolic_batch_and_space():
    x = image((N, 16, H, H))
    w = conv(x, 24, (3, 3), pads=1)
    check(KERNEL, w, {"N": 2, "H": 13})
    check(KERNEL, w, {"N": 1, "H": 3})


def test_error_on_long_sums():
    """Many channels, all positive inputs as after a ReLU: the worst case for cancellation."""
    check(KERNEL, conv(image((1, 512, 6, 6)), 16, (3, 3), pads=1), few=8, tolerance=3e-5)


def test_refusals():
    target = targets()[0]
    x = image((1, 16, 8, 8))
    for w in (
        conv(x, 16, (3, 3), stride=2),
        conv(x, 16, (3, 3), dilation=2),
        conv(x, 16, (3, 3), group=2),
        conv(x, 16, (1, 3)),
    ):
        assert "3×3" in str(KERNEL.refuse(w, target))
    assert "contiguous" in str(
        KERNEL.refuse(conv(image((1, 16, 8, 8), first=True), 16, (3, 3)), target)
    )
    assert "constant" in str(KERNEL.refuse(conv(x, 16, (3, 3), const_weights=False), target))
