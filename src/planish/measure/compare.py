"""How far two sets of outputs lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planish.base.errors import InputError

RTOL = 1e-3


@dataclass(frozen=True)
class Comparison:
    """One output against its reference.

    Attributes:
        name: The output.
        shape: Its shape.
        worst: Largest absolute difference.
        relative: `worst` over the largest magnitude of the reference.
        mean: Mean absolute difference.
        cosine: Cosine of the angle between the two; 1.0 for equal ones.
        nans: Elements that are NaN or infinite on one side only, or with another sign.
        passed: `worst` is within the tolerance, shapes and kinds are equal, no stray NaN.
        why: What failed; "" where it passed.
    """

    name: str
    shape: tuple[int, ...]
    worst: float
    relative: float
    mean: float
    cosine: float
    nans: int
    passed: bool
    why: str = ""


def compare_outputs(
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    rtol: float = RTOL,
    atol: float = 0.0,
) -> list[Comparison]:
    """Compare outputs by name.

    An output passes when its largest absolute difference is at most
    `atol + rtol * (largest magnitude of the reference)`. Integers and bools must be equal.

    Args:
        found: What was computed.
        expected: The reference.
        rtol: Tolerance relative to the reference's largest magnitude.
        atol: Absolute tolerance, added to it.

    Raises:
        InputError: The names differ.
    """
    if set(found) != set(expected):
        raise InputError(
            f"outputs differ in name: {sorted(set(found) ^ set(expected))} are on one side only"
        )
    return [
        _compare(n, np.asarray(found[n]), np.asarray(expected[n]), rtol, atol) for n in expected
    ]


def _compare(
    name: str, found: np.ndarray, expected: np.ndarray, rtol: float, atol: float
) -> Comparison:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        why = (
            f"{found.dtype}{list(found.shape)} where {expected.dtype}{list(expected.shape)} is due"
        )
        return Comparison(name, found.shape, np.inf, np.inf, np.inf, 0.0, 0, False, why)
    if expected.dtype == object:
        return _exact(name, found, expected)
    a = found.astype(np.float64).reshape(-1)
    b = expected.astype(np.float64).reshape(-1)
    agree = np.where(np.isfinite(b), np.isfinite(a), (a == b) | (np.isnan(a) & np.isnan(b)))
    nans = int(agree.size - agree.sum())
    finite = np.isfinite(a) & np.isfinite(b)
    gaps = np.abs(a[finite] - b[finite])
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    worst = float(gaps.max(initial=0.0))
    limit = atol + rtol * largest if expected.dtype.kind not in "iub" else 0.0
    why = f"{nans} elements are NaN or infinite on one side only" if nans else ""
    if worst > limit:
        why = f"off by {worst:.3g}, allowed is {limit:.3g}"
    norms = float(np.linalg.norm(a[finite]) * np.linalg.norm(b[finite]))
    return Comparison(
        name=name,
        shape=found.shape,
        worst=worst,
        relative=worst / largest if largest else (0.0 if worst == 0 else np.inf),
        mean=float(gaps.mean()) if gaps.size else 0.0,
        cosine=float(a[finite] @ b[finite]) / norms if norms else float(worst == 0),
        nans=nans,
        passed=not why,
        why=why,
    )


def _exact(name: str, found: np.ndarray, expected: np.ndarray) -> Comparison:
    """Texts: equal or not."""
    same = bool(np.array_equal(found, expected))
    off = 0.0 if same else np.inf
    return Comparison(
        name, found.shape, off, off, off, float(same), 0, same, "" if same else "texts"
    )
