"""Dealing out units: complete, in order, even, and the same each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from planish.runtime.deal import deal

_items = st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1e6)), min_size=1, max_size=6)


@given(_items, st.integers(1, 9))
def test_every_unit_once(items: list[tuple[int, float]], workers: int) -> None:
    made = deal(items, workers)
    assert made == deal(items, workers)
    for (units, _), bounds in zip(items, made, strict=True):
        assert bounds[0] == 0 and bounds[-1] == units
        assert bounds == sorted(bounds) and len(bounds) == workers + 1


@given(_items, st.integers(1, 9))
def test_nobody_works_much_longer(items: list[tuple[int, float]], workers: int) -> None:
    """The fullest worker has at most one unit more than an even share."""
    costs = [max(cost, 1e-9) for _, cost in items]
    loads = [0.0] * workers
    for cost, bounds in zip(costs, deal(items, workers), strict=True):
        for w in range(workers):
            loads[w] += (bounds[w + 1] - bounds[w]) * cost
    even = sum(units * cost for (units, _), cost in zip(items, costs, strict=True)) / workers
    largest = max((c for (units, _), c in zip(items, costs, strict=True) if units), default=0.0)
    assert max(loads) <= (even + largest) * 1.0001


@given(st.integers(0, 1000), st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 9))
def test_equal_counts_get_equal_splits(units: int, a: float, b: float, workers: int) -> None:
    assert deal([(units, a)], workers) == deal([(units, b)], workers)


def test_examples() -> None:
    assert deal([(7, 1.0)], 2) == [[0, 4, 7]]
    assert deal([(1, 9.0), (8, 1.0)], 2) == [[0, 1, 1], [0, 0, 8]]
    assert deal([(1, 5.0), (1, 5.0), (1, 1.0), (1, 1.0)], 2)[:2] == [[0, 1, 1], [0, 0, 1]]
    assert deal([(3, 4.0), (10, 1.0)], 2) == [[0, 2, 3], [0, 3, 10]]
