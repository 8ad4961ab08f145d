"""Deals units of work out to workers. The same arguments always give the same split.

    deal([(7, 1.0)], 2)              [[0, 4, 7]]            worker 0 does [0, 4), worker 1 [4, 7)
    deal([(1, 9.0), (8, 1.0)], 2)    [[0, 1, 1], [0, 0, 8]] the big unit here, the small ones there

One item alone is split evenly, whatever its weight; so two items of as many units, dealt apart, get
the same split, and a step may follow another without a barrier where unit u reads only what unit u
wrote.
"""

from __future__ import annotations

from collections.abc import Sequence


def deal(items: Sequence[tuple[int, float]], workers: int) -> list[list[int]]:
    """Split items that run between the same two barriers so that the workers end together.

    Args:
        items: (units, cost of one unit) of each.
        workers: How many there are.

    Returns:
        For each item `workers + 1` bounds: worker w does the units [bounds[w], bounds[w + 1]).
    """
    if len(items) == 1:
        units, rest = divmod(items[0][0], workers)
        return [[w * units + min(w, rest) for w in range(workers + 1)]]
    loads = [0.0] * workers
    bounds: list[list[int]] = [[] for _ in items]
    # The coarsest first: small units fill the gaps that big ones leave.
    for number in sorted(range(len(items)), key=lambda n: -items[n][1]):
        units, cost = items[number]
        counts = _share(units, max(cost, 1e-9), loads)
        total = 0
        bounds[number].append(0)
        for worker, count in enumerate(counts):
            total += count
            bounds[number].append(total)
            loads[worker] += count * max(cost, 1e-9)
    return bounds


def _share(units: int, cost: float, loads: list[float]) -> list[int]:
    """How many units each worker takes, so that the fullest ends as early as can be."""
    workers = len(loads)
    if len(set(loads)) == 1:
        return [units // workers + (w < units % workers) for w in range(workers)]
    level = _level(units * cost, loads)
    counts = [min(units, max(0, int((level - load) / cost))) for load in loads]
    while sum(counts) > units:  # rounding gave a unit too many
        full = [w for w in range(workers) if counts[w]]
        counts[max(full, key=lambda w: loads[w] + counts[w] * cost)] -= 1
    even, rest = divmod(units - sum(counts), workers)
    counts = [count + even for count in counts]
    for _ in range(rest):
        counts[min(range(workers), key=lambda w: loads[w] + counts[w] * cost)] += 1
    return counts


def _level(work: float, loads: list[float]) -> float:
    """How high the work fills the loads up, as water fills a vessel with steps."""
    heights = sorted(loads)
    filled = 0.0
    for count, height in enumerate(heights[1:], 1):
        room = (height - heights[count - 1]) * count
        if filled + room >= work:
            return heights[count - 1] + (work - filled) / count
        filled += room
    return heights[-1] + (work - filled) / len(heights)
