"""The ends of channels: the least and the largest number of each."""

from __future__ import annotations

import numpy as np

Ends = tuple[np.ndarray, np.ndarray]  # lows and highs, one a channel


def channel_ends(array: np.ndarray, axis: int) -> Ends:
    """The least and the largest number of each channel of an array."""
    rows = np.moveaxis(np.asarray(array, np.float64), axis, 0).reshape(array.shape[axis], -1)
    return rows.min(axis=1), rows.max(axis=1)


def join_ends(one: Ends, other: Ends) -> Ends:
    """The ends of two arrays together."""
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1])
