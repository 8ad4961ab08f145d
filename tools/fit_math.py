"""Derives the coefficients in planish/kernels/cpu/math_tables.py and prints them.

Each function is fitted for the smallest largest relative error by Lawson's iteration: weighted
least squares on Chebyshev points, the weights multiplied by the error until it is level. Rational
fits linearise the denominator with the one of the round before (Sanathanan and Koerner).

    python tools/fit_math.py
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np

Array = np.ndarray
_POINTS = 1200
_ROUNDS = 400


def grid(low: float, high: float) -> Array:
    nodes = np.cos(np.pi * (np.arange(_POINTS) + 0.5) / _POINTS)
    return 0.5 * (low + high) + 0.5 * (high - low) * nodes


def exactly(fn: Callable[[mpmath.mpf], mpmath.mpf], x: Array) -> Array:
    mpmath.mp.dps = 40
    return np.array([float(fn(mpmath.mpf(float(v)))) for v in x])


def polynomial(target: Array, scale: Array, x: Array, degree: int) -> tuple[Array, float]:
    """c minimising max |(target - sum c[k] x^k) * scale|."""
    width = np.abs(x).max()
    basis = np.stack([(x / width) ** k for k in range(degree + 1)], axis=1)
    weight = np.ones_like(x)
    for _ in range(_ROUNDS):
        rows = np.sqrt(weight) * scale
        c = np.linalg.lstsq(basis * rows[:, None], target * rows, rcond=None)[0]
        error = np.abs((target - basis @ c) * scale)
        weight = weight * (error / error.max() + 1e-3)
        weight /= weight.sum()
    return c / width ** np.arange(degree + 1), float(error.max())


def rational(target: Array, x: Array, top: int, bottom: int) -> tuple[Array, Array, float]:
    """p, q with q[0] = 1 minimising max |p(x)/q(x)/target - 1|."""
    width = np.abs(x).max()
    powers = np.stack([(x / width) ** k for k in range(max(top, bottom) + 1)], axis=1)
    weight, below = np.ones_like(x), np.ones_like(x)
    best: tuple[float, Array, Array] = (np.inf, powers[0], powers[0])
    for _ in range(_ROUNDS):
        rows = np.sqrt(weight) / (np.abs(target) * below)
        left = np.concatenate(
            [powers[:, : top + 1], -target[:, None] * powers[:, 1 : bottom + 1]], axis=1
        )
        c = np.linalg.lstsq(left * rows[:, None], target * rows, rcond=None)[0]
        p, q = c[: top + 1], np.concatenate([[1.0], c[top + 1 :]])
        below = powers[:, : bottom + 1] @ q
        error = np.abs((powers[:, : top + 1] @ p) / below / target - 1)
        if error.max() < best[0] and (below > 0).all():
            best = (float(error.max()), p, q)
        below = np.abs(below) + 1e-30
        weight = weight * (error / error.max() + 1e-3)
        weight /= weight.sum()
    error_max, p, q = best
    return p / width ** np.arange(top + 1), q / width ** np.arange(bottom + 1), error_max


def show(name: str, coefficients: Array, error: float | None = None) -> None:
    note = "" if error is None else f"  # relative error {error:.1e}"
    print(f"{name} = ({note}")
    for value in coefficients:
        print(f"    {float(value)!r},")
    print(")")


def tail(fn: Callable[[mpmath.mpf], mpmath.mpf], head: Array, x: Array, power: int) -> Array:
    """(fn(x) - head(x)) / x^power in full precision, head a polynomial."""

    def rest(v: mpmath.mpf) -> mpmath.mpf:
        start = sum(mpmath.mpf(float(c)) * v**k for k, c in enumerate(head))
        return (fn(v) - start) / v**power

    return exactly(rest, x)


def fit_tail(
    name: str,
    fn: Callable[[mpmath.mpf], mpmath.mpf],
    head: list[float],
    power: int,
    span: tuple[float, float],
    degree: int,
    *,
    even: bool = False,
) -> None:
    """fn(x) = head(x) + x^power * P(x), or P(x²) when `even`."""
    x = grid(*span)
    target, value = tail(fn, np.array(head), x, power), exactly(fn, x)
    argument = x * x if even else x
    scale = np.abs(x) ** power / np.abs(value)
    show(name, *polynomial(target, scale, argument, degree))


def main() -> None:
    half = float(mpmath.log(2) / 2) * 1.0001
    low, high = 0.70710678 - 1, 1.41421357 - 1
    quarter = float(mpmath.pi / 4) * 1.0001
    fit_tail("EXP", mpmath.exp, [1, 1], 2, (-half, half), 4)
    fit_tail("LOG", mpmath.log1p, [0, 1, -0.5], 3, (low, high), 8)
    fit_tail("ATAN", mpmath.atan, [0, 1], 3, (0, 1), 8, even=True)
    fit_tail("ASIN", mpmath.asin, [0, 1], 3, (0, 0.5), 5, even=True)
    fit_tail("SINH", mpmath.sinh, [0, 1], 3, (0, 1), 3, even=True)
    fit_tail("SIN", mpmath.sin, [0, 1], 3, (0, quarter), 3, even=True)
    fit_tail("COS", mpmath.cos, [1, 0, -0.5], 4, (0, quarter), 3, even=True)
    fit_tail("LOG_ATANH", mpmath.atanh, [0, 1], 3, (0, 0.17158), 5, even=True)
    fit_tail("EXP2", lambda v: mpmath.mpf(2) ** v, [1], 1, (-0.5001, 0.5001), 7)
    for name, fn, end, top, bottom in (
        ("ERF", mpmath.erf, 3.925, 6, 5),
        ("TANH", mpmath.tanh, 9.02, 6, 3),
    ):
        x = grid(1e-4, end)
        p, q, error = rational(exactly(lambda v, fn=fn: fn(v) / v, x), x * x, top, bottom)
        show(f"{name}_P", p, error)
        show(f"{name}_Q", q)


if __name__ == "__main__":
    main()
