"""The accuracy guard's policy: which layers go back to floats so that a network stays good.

    all layers in 8 bits ── inside the bound? ── done
      └─ no: a ladder. Rung k leaves as much noise in 8 bits as all layers but the k most harmful
         bring, and puts those in floats that lose the least time for it
         └─ a low rung inside the bound: 1, 2, 4, … until one is, then by bisection below it
            └─ of its layers, those that cost the most time are tried in 8 bits again

A layer's harm is the power of the noise that it alone brings into the outputs; harms are taken to
add up. That holds near the bound, where little noise is left, and only orders layers elsewhere.
Counted answers are uneven: a few samples on the edge may put a high rung outside the bound though a
lower one is inside, so the search comes from below.
What a set of float layers does to the network is a function that is handed in; it is called once
for each set, and at most `most_attempts` times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Drop = Callable[[frozenset[str]], float]  # layers in floats -> how much worse than floats
_RESTORED = 6  # groups of layers that are tried in 8 bits again
_FLOOR = 0.25  # of the average price: no layer counts as cheaper, for times are not that exact


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
        layers: Those that stay in floats, most harmful first.
        rung: Of the ladder; 0 where all layers may stay in 8 bits.
        inside: False where not even floats for all of them are inside the bound.
        path: What was tried, in order.
    """

    layers: tuple[str, ...]
    rung: int
    inside: bool
    path: tuple[Attempt, ...]


class Ladder:
    """Sets of layers in floats, each with less noise than the one before.

    Args:
        harms: Layer -> power of the noise that it alone brings in 8 bits; NaN counts as infinite.
        prices: Layer -> time that floats lose there, in any unit; without them all cost the same.

    Attributes:
        top: The highest rung; all layers are in floats there.
    """

    def __init__(self, harms: Mapping[str, float], prices: Mapping[str, float]) -> None:
        self._harms = {n: math.inf if math.isnan(harm) else harm for n, harm in harms.items()}
        given = [max(0.0, prices.get(name, 0.0)) for name in harms]
        floor = _FLOOR * math.fsum(given) / max(1, len(given)) or 1.0
        self._prices = {name: max(price, floor) for name, price in zip(harms, given, strict=True)}
        self._by_harm = sorted(harms, key=lambda name: -self._harms[name])
        self._by_worth = sorted(
            self._by_harm, key=lambda name: -self._harms[name] / self._prices[name]
        )
        self.top = len(harms)

    def floats(self, rung: int) -> tuple[str, ...]:
        """The layers in floats on a rung, most harmful first."""
        worst = self._by_harm[:rung]
        budget = self._left(worst)
        count = next(n for n in range(self.top + 1) if self._left(self._by_worth[:n]) <= budget)
        chosen = self._by_worth[:count]
        for name in self.dearest_first(chosen):
            fewer = [other for other in chosen if other != name]
            if self._left(fewer) <= budget:
                chosen = fewer
        kept = set(chosen if self._price(chosen) < self._price(worst) else worst)
        return tuple(name for name in self._by_harm if name in kept)

    def dearest_first(self, layers: Iterable[str]) -> list[str]:
        """Layers by what floats lose there; among equals the least harmful first."""
        return sorted(layers, key=lambda name: (-self._prices[name], self._harms[name]))

    def _left(self, floats: Iterable[str]) -> float:
        """Noise of what stays in 8 bits."""
        kept = set(floats)
        return math.fsum(harm for name, harm in self._harms.items() if name not in kept)

    def _price(self, layers: Iterable[str]) -> float:
        return math.fsum(self._prices[name] for name in layers)


def most_attempts(layers: int) -> int:
    """How many sets `hold_accuracy` tries at most."""
    return 3 + 2 * math.ceil(math.log2(max(1, layers))) + _RESTORED


def hold_accuracy(
    drop: Drop,
    bound: float,
    ladder: Callable[[], Ladder],
    told: Callable[[Attempt], None] | None = None,
) -> Held:
    """Find layers to keep in floats.

    Args:
        drop: What a set of layers in floats costs; NaN counts as infinite.
        bound: The most that is allowed.
        ladder: Gives the sets to try; called only if layers have to go back at all.
        told: Called with each attempt.
    """
    run = _Run(drop, bound, told)
    if run.inside(()):
        return Held((), 0, True, tuple(run.path))
    made = ladder()
    rung = _lowest(run, made)
    layers = made.floats(rung)
    if not run.inside(layers):
        return Held(layers, rung, False, tuple(run.path))
    return Held(_restored(run, made, layers), rung, True, tuple(run.path))


def _lowest(run: _Run, ladder: Ladder) -> int:
    """A low rung inside the bound; the top one where it is the only one left."""
    low, high = 0, min(1, ladder.top)
    while high < ladder.top and not run.inside(ladder.floats(high)):
        low, high = high, min(2 * high, ladder.top)
    while high - low > 1:
        middle = (low + high) // 2
        if run.inside(ladder.floats(middle)):
            high = middle
        else:
            low = middle
    return high


def _restored(run: _Run, ladder: Ladder, kept: tuple[str, ...]) -> tuple[str, ...]:
    """Without the layers that may as well be in 8 bits: the dearest one by one, then in groups."""
    order, start, size = ladder.dearest_first(kept), 0, 1
    for number in range(_RESTORED):
        group = order[start : start + size]
        fewer = tuple(name for name in kept if name not in group)
        if group and run.inside(fewer):
            kept = fewer
        start, size = start + size, size * 2 if number else 1
    return kept


class _Run:
    """Calls `drop` and keeps the path."""

    def __init__(self, drop: Drop, bound: float, told: Callable[[Attempt], None] | None) -> None:
        self.path: list[Attempt] = []
        self._drop = drop
        self._bound = bound
        self._told = told
        self._known: dict[frozenset[str], bool] = {}

    def inside(self, layers: tuple[str, ...]) -> bool:
        key = frozenset(layers)
        if key not in self._known:
            found = self._drop(key)
            found = math.inf if math.isnan(found) else found
            attempt = Attempt(layers, found, found <= self._bound)
            self.path.append(attempt)
            self._known[key] = attempt.inside
            if self._told is not None:
                self._told(attempt)
        return self._known[key]
