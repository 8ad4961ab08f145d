"""How far two sets of outputs lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planish.base.errors import InputError


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
        nans: Elements that are NaN or infinite on one side only.
        passed: `relative` is within the tolerance, shapes and dtypes are equal, no stray NaN.
    """

    name: str
    shape: tuple[int, ...]
    worst: float
    relative: float
    mean: float
    cosine: float
    nans: int
    passed: bool


def compare_outputs(
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    tolerance: float = 1e-3,
) -> list[Comparison]:
    """Compare outputs by name.

    Args:
        found: What was computed.
        expected: The reference.
        tolerance: Allowed difference relative to the reference's largest magnitude.

    Raises:
        InputError: The names differ.
    """
    if set(found) != set(expected):
        raise InputError(
            f"outputs differ in name: {sorted(set(found) ^ set(expected))} are on one side only"
        )
    return [_compare(name, found[name], expected[name], tolerance) for name in expected]


def _compare(name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> Comparison:
    if found.shape != expected.shape or found.dtype.kind != expected.dtype.kind:
        return Comparison(name, found.shape, np.inf, np.inf, np.inf, 0.0, 0, False)
    if expected.dtype == object:
        same = bool(np.array_equal(found, expected))
        return Comparison(name, found.shape, 0.0, 0.0 if same else np.inf, 0.0, 1.0, 0, same)
    a = found.astype(np.float64).reshape(-1)
    b = expected.astype(np.float64).reshape(-1)
    if not a.size:
        return Comparison(name, found.shape, 0.0, 0.0, 0.0, 1.0, 0, True)
    same_kind = np.where(np.isfinite(b), np.isfinite(a), (a == b) | (np.isnan(a) & np.isnan(b)))
    nans = int((~same_kind).sum())
    finite = np.isfinite(a) & np.isfinite(b)
    gaps = np.abs(a - b)[finite]
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    worst = float(gaps.max(initial=0.0))
    relative = worst / largest if largest else (0.0 if worst == 0 else np.inf)
    norms = float(np.linalg.norm(a[finite]) * np.linalg.norm(b[finite]))
    cosine = float(a[finite] @ b[finite]) / norms if norms else float(worst == 0)
    mean = float(gaps.mean()) if gaps.size else 0.0
    passed = nans == 0 and relative <= tolerance
    return Comparison(name, found.shape, worst, relative, mean, cosine, nans, passed)
