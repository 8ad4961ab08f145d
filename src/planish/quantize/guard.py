"""The accuracy guard: which layers go back to floats so that a network stays as good as it was.

    all layers in 8 bits ── inside the bound? ── done
      └─ no: layers in the order of the harm that each one does by itself
         └─ the worst 1, 2, 4, … of them in floats, until inside; then fewer, by bisection
            └─ of those, the ones that save most time go back to 8 bits, where the bound allows

What a set of float layers costs is a function that is handed in; it is called a bounded number of
times, and once for each set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Drop = Callable[[frozenset[str]], float]  # layers in floats -> how much worse than floats
_RESTORED = 6  # groups of layers that are tried in 8 bits again


@dataclass(frozen=True)
class Attempt:
    """A set of layers in floats, and what came of it.

    Attributes:
        layers: Those in floats; () for none.
        drop: How much worse the network is than in floats.
        inside: Whether that is within the bound.
    """

    layers: tuple[str, ...]
    drop: float
    inside: bool


@dataclass(frozen=True)
class Held:
    """What the guard decided.

    Attributes:
        layers: Those that stay in floats, worst first.
        inside: False where not even floats for all of them are inside the bound.
        path: What was tried, in order.
    """

    layers: tuple[str, ...]
    inside: bool
    path: tuple[Attempt, ...]


def hold_accuracy(
    drop: Drop,
    bound: float,
    rank: Callable[[], Sequence[str]],
    saved: Mapping[str, float] | None = None,
    told: Callable[[Attempt], None] | None = None,
) -> Held:
    """Find layers to keep in floats.

    Args:
        drop: What a set of layers in floats costs; NaN counts as infinite.
        bound: The most that is allowed.
        rank: Gives the layers, most harmful first; called only if it is needed.
        saved: Layer -> time that 8 bits save there; those that save most are restored first.
        told: Called with each attempt.
    """
    run = _Run(drop, bound, told)
    if run.inside(()):
        return Held((), True, tuple(run.path))
    order = list(rank())
    count = _gallop(run, order)
    if count is None:
        return Held(tuple(order), False, tuple(run.path))
    kept = order[:count]
    return Held(tuple(_restored(run, kept, saved or {})), True, tuple(run.path))


def _restored(run: _Run, kept: list[str], gains: Mapping[str, float]) -> list[str]:
    """Without the groups of layers that may as well be in 8 bits.

    Those that save most time come first, and among equals the least harmful.
    """
    order = sorted(reversed(kept[:-1]), key=lambda name: -gains.get(name, 0.0))
    size = max(1, len(order) // _RESTORED)
    for group in [order[n : n + size] for n in range(0, len(order), size)][:_RESTORED]:
        fewer = [name for name in kept if name not in group]
        if run.inside(fewer):
            kept = fewer
    return kept


def _gallop(run: _Run, order: Sequence[str]) -> int | None:
    """The fewest leading layers that are enough; None where all are not."""
    low, high = 0, 1
    while not run.inside(order[:high]):
        if high >= len(order):
            return None
        low, high = high, min(2 * high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        if run.inside(order[:middle]):
            high = middle
        else:
            low = middle
    return high


class _Run:
    """Calls `drop` and keeps the path."""

    def __init__(self, drop: Drop, bound: float, told: Callable[[Attempt], None] | None) -> None:
        self.path: list[Attempt] = []
        self._drop = drop
        self._bound = bound
        self._told = told
        self._known: dict[frozenset[str], bool] = {}

    def inside(self, layers: Iterable[str]) -> bool:
        key = frozenset(layers)
        if key not in self._known:
            found = self._drop(key)
            found = math.inf if math.isnan(found) else found
            attempt = Attempt(tuple(layers), found, found <= self._bound)
            self.path.append(attempt)
            self._known[key] = attempt.inside
            if self._told is not None:
                self._told(attempt)
        return self._known[key]
