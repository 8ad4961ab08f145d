"""How far outputs are from those that they should be."""

from __future__ import annotations

import math

import numpy as np

Arrays = dict[str, np.ndarray]
EXACT = 120.0  # dB: what equal outputs count as; FP32 itself gives about as much


def relative_error(found: Arrays, expected: Arrays) -> float:
    """The largest difference of any output, relative to that output's largest magnitude."""
    worst = 0.0
    for name, right in expected.items():
        if name not in found or found[name].size != right.size:
            return math.inf
        got = found[name]
        difference = np.abs(got.reshape(right.shape).astype(np.float64) - right).max(initial=0.0)
        if not np.isfinite(difference):
            return math.inf
        worst = max(worst, float(difference / max(np.abs(right).max(initial=0.0), 1e-30)))
    return worst


def signal_to_noise(found: list[Arrays], expected: list[Arrays]) -> float:
    """Decibels of the worst output over several runs; -inf for other shapes, or no numbers.

    The power of what is expected over the power of the difference. 8-bit results of two runtimes
    differ by whole quanta, so that the largest difference says little; the power does.
    """
    worst = EXACT
    for name in expected[0]:
        signal = noise = 0.0
        for got, right in zip(found, expected, strict=True):
            if name not in got or got[name].size != right[name].size:
                return -math.inf
            wanted = right[name].astype(np.float64)
            signal += float((wanted**2).sum())
            noise += float(((got[name].reshape(wanted.shape) - wanted) ** 2).sum())
        if not math.isfinite(noise):
            return -math.inf
        if noise > 0.0:
            worst = min(worst, 10 * math.log10(max(signal, 1e-300) / noise))
    return worst
