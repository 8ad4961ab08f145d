"""Observers: ranges by each rule, and the edge cases of the divergence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planish.base.errors import BuildError
from planish.quantize.histogram import BINS, Histogram
from planish.quantize.observers import (
    HALF_LEVELS,
    LEVELS,
    OBSERVERS,
    Range,
    divergence,
    entropy_threshold,
    observe,
)

NAMES = sorted(OBSERVERS)


def of(values: np.ndarray) -> Histogram:
    made = Histogram.new()
    made.add(values.astype(np.float32))
    return made


@pytest.mark.parametrize("name", NAMES)
@given(
    values=arrays(
        np.float32,
        st.integers(1, 60),
        elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
    )
)
@settings(deadline=None, max_examples=60)
def test_ranges_hold_zero_and_stay_within_the_data(name: str, values: np.ndarray) -> None:
    found = observe(of(values), name)
    assert min(0.0, values.min()) <= found.low <= 0.0 <= found.high <= max(0.0, values.max())


@pytest.mark.parametrize("name", NAMES)
def test_all_zeros(name: str) -> None:
    assert observe(of(np.zeros(5)), name) == Range(0.0, 0.0)
    assert observe(Histogram.new(), name) == Range(0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_is_kept(name: str) -> None:
    found = observe(of(np.full(100, 3.0)), name)
    assert found.low == 0.0
    assert found.high == pytest.approx(3.0, rel=1e-3)


def test_max_keeps_everything() -> None:
    assert observe(of(np.array([-1.0, 5.0])), "max") == Range(-1.0, 5.0)
    assert observe(of(np.array([2.0, 5.0])), "max") == Range(0.0, 5.0)


def test_percentile_keeps_its_share() -> None:
    values = np.arange(1, 10001) / 10000
    found = observe(of(values), "percentile", percentile=99.0)
    assert found.low == 0.0
    assert found.high == pytest.approx(0.99, abs=2e-3)
    both = observe(of(np.concatenate([values, -values])), "percentile", percentile=99.0)
    assert both.low == pytest.approx(-0.99, abs=2e-3)
    assert both.high == pytest.approx(0.99, abs=2e-3)
    assert observe(of(values), "percentile", percentile=100.0).high == pytest.approx(1.0, rel=1e-3)


def test_mse_is_the_least_error_of_all_ends() -> None:
    values = np.random.default_rng(0).laplace(size=20000)
    found = observe(of(values), "mse")

    def error(low: float, high: float) -> float:
        step = (high - low) / LEVELS
        zero = np.rint(-low / step)
        codes = np.clip(np.rint(values / step) + zero, 0, LEVELS)
        return float(np.mean(((codes - zero) * step - values) ** 2))

    mine = error(found.low, found.high)
    for factor in (0.5, 0.8, 0.9, 1.1, 1.25):
        assert mine <= error(found.low * factor, found.high * factor) * 1.02


def test_a_lone_outlier_is_cut() -> None:
    values = np.random.default_rng(0).standard_normal(200000)
    values[0] = 60.0
    for name in ("percentile", "entropy"):
        assert observe(of(values), name).high < 20.0, name


def test_a_peak_at_zero_decides_nothing() -> None:
    bulk = np.abs(np.random.default_rng(0).standard_normal(20000)) + 0.01
    more = np.concatenate([bulk, np.zeros(10**6)])
    for name in ("mse", "entropy"):
        assert observe(of(bulk), name) == observe(of(more), name), name


def test_an_unknown_observer() -> None:
    with pytest.raises(BuildError, match="observer 'median'"):
        observe(of(np.ones(2)), "median")


# ---- divergence ---------------------------------------------------------------------------------


def test_nothing_is_lost_where_bins_are_levels() -> None:
    assert divergence(np.arange(1.0, 129.0), 0.0, 128) == pytest.approx(0.0, abs=1e-12)


def test_even_counts_lose_nothing() -> None:
    assert divergence(np.ones(1024), 0.0, 128) == pytest.approx(0.0, abs=1e-12)


@given(
    counts=arrays(np.float64, st.integers(8, 64), elements=st.integers(0, 50).map(float)),
    tail=st.integers(0, 100),
)
def test_divergence_is_never_negative(counts: np.ndarray, tail: int) -> None:
    counts[-1] = max(counts[-1], 1.0)
    found = divergence(counts, float(tail), 8)
    assert np.isfinite(found)
    assert found >= -1e-12


@given(counts=arrays(np.int64, BINS, elements=st.integers(0, 3)), levels=st.just(HALF_LEVELS))
@settings(deadline=None, max_examples=10)
def test_thresholds_lie_where_something_is(counts: np.ndarray, levels: int) -> None:
    found = entropy_threshold(counts.astype(np.float64), levels)
    if found is not None:
        assert levels <= found < BINS
        assert counts[found - 1] > 0


def test_fewer_bins_than_levels_keep_all() -> None:
    counts = np.zeros(BINS)
    counts[:100] = 1.0
    assert entropy_threshold(counts, 128) is None
    assert entropy_threshold(np.zeros(BINS), 128) is None


def test_ties_go_to_the_widest() -> None:
    assert entropy_threshold(np.ones(BINS), 128) is None  # every width loses nothing
