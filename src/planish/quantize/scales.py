"""Scales and zero points: what the 256 codes of a tensor stand for.

    activations   u8, one scale a tensor, any zero point:   x ≈ (q − zero)·scale,  q = 0 … 255
    weights       s8, one scale an output channel:          w ≈ q·scale,           q = −127 … 127

Zero is exact in both: padding and Relu rely on it. After Relu the zero point is 0. The sum of the
products is exact in 32 bits, where the bias is added, rounded to the unit scale(x)·scale(w).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planish.quantize.observers import LEVELS, Range

WEIGHT_PEAK = 127
_LEAST = float(np.finfo(np.float32).tiny)  # a scale below is no normal number
_BIAS_ROOM = 2.0**30  # of 2^31: the rest is for the sum of products


@dataclass(frozen=True)
class Scale:
    """What the codes of a u8 tensor stand for: (q − zero)·step."""

    step: float  # an f32
    zero: int  # 0 … 255

    @property
    def range(self) -> Range:
        """What codes 0 and 255 stand for."""
        return Range(-self.zero * self.step, (LEVELS - self.zero) * self.step)


def activation_scale(found: Range, symmetric: bool = False) -> Scale:
    """The scale that covers a range, with zero exact.

    Rounding the zero point shifts the range by up to half a step, so an end may miss that much.

    Args:
        found: What to cover.
        symmetric: Zero point 128, or 0 where nothing is negative.
    """
    if symmetric and found.low < 0.0:
        return Scale(_step(max(-found.low / 128.0, found.high / 127.0)), 128)
    step = _step((found.high - found.low) / LEVELS)
    return Scale(step, int(np.clip(np.rint(-found.low / step), 0, LEVELS)))


def _step(exact: float) -> float:
    """As an f32 that is no smaller than any normal number; 1.0 where there is nothing to scale."""
    if exact == 0.0:
        return 1.0
    return float(np.float32(max(exact, _LEAST)))


def weight_scales(
    weights: np.ndarray,
    axis: int,
    per_channel: bool = True,
    bias: np.ndarray | None = None,
    input_step: float = 0.0,
) -> np.ndarray:
    """One f32 scale an output channel of some weights.

    Args:
        weights: Floats.
        axis: Of the output channels.
        per_channel: False: all channels share the largest scale.
        bias: One a channel. A channel whose weights are tiny beside its bias gets a larger scale,
            so that the bias in units of input_step·scale fits 32 bits.
        input_step: Of the activations that the weights meet; 0.0 where it does not matter.
    """
    wide = np.moveaxis(np.asarray(weights, np.float64), axis, 0)
    peak = np.abs(wide.reshape(wide.shape[0], -1)).max(axis=1, initial=0.0) / WEIGHT_PEAK
    if bias is not None and input_step > 0.0:
        peak = np.maximum(peak, np.abs(np.asarray(bias, np.float64)) / (input_step * _BIAS_ROOM))
    if not per_channel:
        peak = np.full_like(peak, peak.max(initial=0.0))
    scales = np.where(peak > 0.0, np.maximum(peak, _LEAST), 1.0)
    return np.asarray(scales.astype(np.float32))


def quantize_weights(weights: np.ndarray, scales: np.ndarray, axis: int) -> np.ndarray:
    """Weights as s8 codes: half to even, within ±127."""
    shape = [1] * weights.ndim
    shape[axis] = -1
    ratio = np.asarray(weights, np.float64) / scales.astype(np.float64).reshape(shape)
    return np.clip(np.rint(ratio), -WEIGHT_PEAK, WEIGHT_PEAK).astype(np.int8)


def dequantize_weights(codes: np.ndarray, scales: np.ndarray, axis: int) -> np.ndarray:
    """What the codes of weights stand for, as DequantizeLinear computes it."""
    shape = [1] * codes.ndim
    shape[axis] = -1
    return np.asarray(codes.astype(np.float32) * scales.astype(np.float32).reshape(shape))
