"""Histograms: the state depends on the data as a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planish.base.errors import InputError
from planish.quantize.histogram import BINS, Histogram

_NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
_ARRAYS = arrays(np.float32, st.integers(0, 40), elements=_NUMBERS)


def histogram(*parts: np.ndarray) -> Histogram:
    made = Histogram.new()
    for part in parts:
        made.add(part)
    return made


@given(st.lists(_ARRAYS, max_size=6), st.randoms())
@settings(deadline=None)
def test_order_and_batches_do_not_matter(parts: list[np.ndarray], random: object) -> None:
    together = histogram(np.concatenate([np.zeros(0, np.float32), *parts]))
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' own Random
    assert histogram(*shuffled).state == together.state
    merged = Histogram.new()
    for part in shuffled:
        merged.merge(histogram(part))
    assert merged.state == together.state


@given(_ARRAYS)
@settings(deadline=None)
def test_everything_is_counted(values: np.ndarray) -> None:
    made = histogram(values)
    assert made.total == values.size
    assert made.zeros == np.count_nonzero(values == 0)
    assert made.negative.sum() == np.count_nonzero(values < 0)
    if values.size:
        assert (made.low, made.high) == (values.min(), values.max())


@given(_ARRAYS.filter(lambda a: a.size and np.abs(a).max() > 1e-20))
@settings(deadline=None)
def test_numbers_lie_in_their_bins(values: np.ndarray) -> None:
    made = histogram(values)
    assert np.log2(made.width).is_integer()
    wide = np.abs(values.astype(np.float64))
    assert wide.max() < BINS * made.width
    assert wide.max() >= BINS / 2 * made.width
    place = np.floor(wide / made.width).astype(int)
    for counts, mine in ((made.positive, values > 0), (made.negative, values < 0)):
        assert np.array_equal(counts, np.bincount(place[mine], minlength=BINS))


def test_a_width_is_reached_by_merging() -> None:
    small = np.array([0.1, 0.2, -0.3], np.float32)
    large = np.array([1000.0], np.float32)
    assert histogram(small, large).state == histogram(large, small).state


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(odd: float) -> None:
    with pytest.raises(InputError, match="expected finite numbers, found"):
        histogram(np.array([1.0, odd], np.float32))


def test_half_precision_and_doubles() -> None:
    values = np.array([0.5, -2.0, 3.0])
    assert histogram(values.astype(np.float16)).state == histogram(values).state
