"""Chooses the tactic of each workload by timing, in the plan itself.

Every round runs whole plans. In plan r each layer runs its r-th candidate, so that all layers are
timed at once, each in the buffers, strides, threads and cache state of the real plan. After each
round the slow candidates are dropped, so that the last rounds compare the few that are close.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.tune.cache import DIGITS, TimingCache
from planish.tune.candidates import Candidates
from planish.tune.check import plainest
from planish.tune.compile import Tactic
from planish.tune.weights import price

# Runs of each plan in a round, and how much slower than the best a candidate may be to stay.
ROUNDS = ((4, 1.5), (8, 1.12), (16, 1.0))
KEPT = 4  # candidates that stay after the first round

# For each workload the tactic it runs with -> for each workload the microseconds it took, one a run
Measure = Callable[[dict[Workload, Tactic], int], dict[Workload, list[float]]]
# The error of a tactic on a workload when it is too large, None when the tactic is right
Accept = Callable[[Workload, Tactic], float | None]
Progress = Callable[[str, int, int], None]


@dataclass
class Race:
    """The candidates of one workload and how they did.

    Attributes:
        workload: The workload.
        tactics: Still in the race.
        times: Tactic text -> microseconds measured in each run.
        fixed: Chosen without a race: a pin, a single candidate, a cached time.
        prices: Tactic text -> microseconds that it must gain for what its weights grow by.
        rejected: Tactic text -> error of those whose result was off.
    """

    workload: Workload
    tactics: list[Tactic]
    times: dict[str, list[float]] = field(default_factory=dict)
    fixed: bool = False
    rejected: dict[str, float] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)

    def reject(self, tactic: Tactic, error: float) -> None:
        """Take a tactic out whose result is off."""
        self.rejected[tactic.text] = error
        self.tactics = [t for t in self.tactics if t.text != tactic.text]
        self.times.pop(tactic.text, None)

    def best(self, tactic: Tactic) -> float:
        """The fastest that a tactic was seen, microseconds; infinity if it was never timed."""
        return min(self.times.get(tactic.text, ()), default=float("inf"))

    def priced(self, tactic: Tactic) -> float:
        """The fastest that a tactic was seen and the price of its weights, microseconds."""
        return self.best(tactic) + self.prices.get(tactic.text, 0.0)

    def winner(self) -> Tactic:
        """The fastest for its price; earlier candidates win ties."""
        return min(self.tactics, key=self.priced)


def race_all(
    found: dict[Workload, Candidates],
    target: CpuTarget,
    cache: TimingCache,
    measure: Measure,
    *,
    accept: Accept | None = None,
    time_budget: float = 0.0,
    progress: Progress = lambda what, done, total: None,
) -> dict[Workload, Race]:
    """Find the fastest tactic of every workload.

    Args:
        found: Candidates of each workload; one candidate means no race.
        target: The CPU.
        cache: Times known already; extended by what is measured.
        measure: Runs the plan with the given tactics.
        accept: The error of a tactic, or None if it may win; asked of each winner.
        time_budget: Seconds after which no further round starts; 0.0: no limit.
        progress: Called with (what, done, total).
    """
    races = {w: _start(w, c, target, cache) for w, c in found.items()}
    started = time.monotonic()
    for number, (runs, keep) in enumerate(ROUNDS):
        open_races = [race for race in races.values() if not race.fixed and len(race.tactics) > 1]
        if not open_races:
            break
        total = max(len(race.tactics) for race in open_races)
        for turn in range(total):
            if time_budget and time.monotonic() - started > time_budget:
                break
            _run_turn(races, turn, runs, measure)
            progress(f"timing, round {number + 1}", turn + 1, total)
        for race in open_races:
            _drop_slow(race, keep)
    for race in races.values():
        if not race.fixed and accept is not None:
            _accept_winner(race, accept, plainest(found[race.workload].tactics))
        if not race.fixed:
            for tactic_text, times in race.times.items():
                cache.record(race.workload, target, tactic_text, min(times))
    return races


def _accept_winner(race: Race, accept: Accept, plain: Tactic) -> None:
    """Take the winner out as long as its result is off; the plain tactic stands in for none."""
    while race.tactics:
        winner = race.winner()
        error = accept(race.workload, winner)
        if error is None:
            return
        race.reject(winner, error)
    race.tactics = [plain]


def _start(workload: Workload, found: Candidates, target: CpuTarget, cache: TimingCache) -> Race:
    """A race; decided at once where the cache has a time for every candidate."""
    prices = {tactic.text: price(workload, tactic) for tactic in found.tactics}
    race = Race(workload, list(found.tactics), prices=prices)
    known = cache.times(workload, target)
    if all(tactic.text in known for tactic in race.tactics):
        race.times = {tactic.text: [known[tactic.text]] for tactic in race.tactics}
        race.fixed = True
    elif len(race.tactics) == 1:
        race.fixed = True
    return race


def _run_turn(races: dict[Workload, Race], turn: int, runs: int, measure: Measure) -> None:
    """One plan: each open race runs its candidate of this turn, the others their best so far."""
    choice = {
        w: race.tactics[turn % len(race.tactics)] if not race.fixed else race.winner()
        for w, race in races.items()
    }
    for workload, micros in measure(choice, runs).items():
        race = races[workload]
        if not race.fixed:
            times = race.times.setdefault(choice[workload].text, [])
            times += [round(one, DIGITS) for one in micros]


def _drop_slow(race: Race, keep: float) -> None:
    timed = sorted((t for t in race.tactics if t.text in race.times), key=race.priced)
    if timed:
        limit = race.priced(timed[0]) * keep
        kept = [t for t in timed if race.priced(t) <= limit][:KEPT]
        race.tactics = [t for t in race.tactics if t in kept]


def verdict(race: Race, found: Candidates, chosen: Tactic) -> tuple[str, ...]:
    """Why this tactic, and why each other one was refused, skipped or lost."""
    best = race.best(chosen)
    lines: list[str] = []
    if race.times:
        runs = sum(len(times) for times in race.times.values())
        fastest = all(best <= min(times) for times in race.times.values())
        what = "fastest" if fastest else "best for its size"
        lines.append(
            f"{chosen.text}: {what} of {len(race.times)} timed, {best:.1f} us ({runs} runs)"
            + _priced(race, chosen.text)
        )
    else:
        lines.append(f"{chosen.text}: the likeliest by estimate; nothing was timed")
    others = sorted(race.times.items(), key=lambda entry: min(entry[1]))
    for text, times in others:
        if text != chosen.text:
            ratio = min(times) / best if best > 0 else 0.0
            lines.append(f"{text}: lost, {min(times):.1f} us ({ratio:.2f}x)" + _priced(race, text))
    lines += [f"{t}: rejected, its result is off by {e:.1e}" for t, e in race.rejected.items()]
    lines += [f"{tactic.text}: not timed at this level" for tactic in found.skipped]
    lines += [f"{name}: refused, {reason}" for name, reason in found.refused]
    return tuple(lines)


def _priced(race: Race, text: str) -> str:
    """What a tactic had to gain for the bytes that its weights grow by."""
    price = race.prices.get(text, 0.0)
    return f", its larger weights counted as {price:.1f} us" if price else ""
