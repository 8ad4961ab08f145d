"""Rounded quotients by a constant without a division.

    nearest (clamp (div x s) low high)  →  nearest (fma y r (mul y e))    y = clamp x low·s high·s

r is 1/s and e what r lacks, so that the product is the quotient but for a tiny error. Both forms
grow with x, so they give the same integers if they step from one to the next at the same x. That
is checked here for each integer in the range; where it fails the division stays.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

_SPAN = 1 << 10  # integers between the bounds; more are not worth the check
_NEAR = 6  # floats on each side of a step at which the forms are compared
_SCALES = (2.0**-60, 2.0**60)  # far from overflow and denormals


@dataclass(frozen=True)
class Reciprocal:
    """How to divide by a constant.

    Attributes:
        factor: 1/s, rounded.
        rest: What the factor lacks.
        low, high: Bounds of the dividend that give those of the quotient.
    """

    factor: float
    rest: float
    low: float
    high: float


@functools.lru_cache(maxsize=1024)
def reciprocal(divisor: float, low: int, high: int) -> Reciprocal | None:
    """How to get round(clamp(x / divisor, low, high)) by an fma; None where that is not exact."""
    usual = _SCALES[0] < divisor < _SCALES[1]
    if not usual or high - low > _SPAN or math.frexp(divisor)[0] == 0.5:
        return None  # a power of two is multiplied by exactly anyway
    s = np.float32(divisor)
    factor = np.float32(1 / float(s))
    rest = np.float32((1 - float(factor) * float(s)) / float(s))  # the numerator is exact
    first, last = np.float32(low) * s, np.float32(high) * s
    steps = np.append(np.arange(low, high) + 0.5, [low, high])
    x = (steps * float(s)).astype(np.float32)
    near = [x]
    for towards in (np.float32(-np.inf), np.float32(np.inf)):
        y = x
        for _ in range(_NEAR):
            y = np.nextafter(y, towards)
            near.append(y)
    x = np.clip(np.concatenate(near), first, last)
    if not np.array_equal(np.rint(x / s), np.rint(_product(x, factor, rest))):
        return None
    if np.rint(first / s) != low or np.rint(last / s) != high:
        return None
    return Reciprocal(float(factor), float(rest), float(first), float(last))


def _product(x: np.ndarray, factor: np.float32, rest: np.float32) -> np.ndarray:
    """fma(x, factor, x * rest) in f32; the inner product is exact in f64."""
    small = (x * rest).astype(np.float64)
    return np.asarray((x.astype(np.float64) * np.float64(factor) + small).astype(np.float32))
