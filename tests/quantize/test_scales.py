"""Scales: zero is exact, ranges are covered, weights stay within ±127."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planish.quantize.observers import Range
from planish.quantize.scales import (
    activation_scale,
    dequantize_weights,
    quantize_weights,
    weight_scales,
)

_ENDS = st.floats(0.0, 1e6, width=32, allow_subnormal=False)


@given(low=_ENDS, high=_ENDS, symmetric=st.booleans())
def test_a_scale_covers_its_range(low: float, high: float, symmetric: bool) -> None:
    made = activation_scale(Range(-low, high), symmetric)
    assert 0 <= made.zero <= 255
    assert np.float32(made.step) == made.step
    slack = made.step * 0.51
    assert made.range.low <= -low + slack
    assert made.range.high >= high - slack


def test_after_relu_the_zero_point_is_zero() -> None:
    for symmetric in (False, True):
        assert activation_scale(Range(0.0, 6.0), symmetric).zero == 0


def test_symmetric_ranges_have_their_zero_in_the_middle() -> None:
    made = activation_scale(Range(-1.0, 3.0), True)
    assert made.zero == 128
    assert made.step == pytest.approx(3.0 / 127)


def test_nothing_to_scale() -> None:
    made = activation_scale(Range(0.0, 0.0))
    assert (made.step, made.zero) == (1.0, 0)


@given(
    weights=arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
    axis=st.integers(0, 1),
    per_channel=st.booleans(),
)
def test_weights_are_off_by_half_a_step_at_most(
    weights: np.ndarray, axis: int, per_channel: bool
) -> None:
    scales = weight_scales(weights, axis, per_channel)
    codes = quantize_weights(weights, scales, axis)
    assert np.abs(codes.astype(int)).max() <= 127
    steps = scales.reshape((-1, 1) if axis == 0 else (1, -1))
    off = np.abs(dequantize_weights(codes, scales, axis).astype(np.float64) - weights)
    assert np.all(off <= steps.astype(np.float64) * 0.5001 + 1e-30)
    if not per_channel:
        assert len(set(scales.tolist())) == 1


def test_a_channel_of_zeros() -> None:
    scales = weight_scales(np.zeros((2, 3), np.float32), 0)
    assert scales.tolist() == [1.0, 1.0]


def test_a_large_bias_fits_32_bits() -> None:
    weights = np.full((1, 4), 1e-12, np.float32)
    scales = weight_scales(weights, 0, True, np.array([100.0]), 0.01)
    assert 100.0 / (0.01 * float(scales[0])) <= 2.0**30 * 1.0001
