"""Times of whole plans, kept in the timing cache: what was raced once is not raced again.

So a build that reads a cache decides as the build did that wrote it, and its plan has the same
bytes. Plans are known by what they run, not by how they were found: a plan whose tactics come from
the cache is the one that was timed when they were measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planish.plan import NativeStep, Plan
from planish.targets.cpu import CpuTarget
from planish.tune.cache import TimingCache

Measure = Callable[[Sequence[Plan]], list[float]]  # microseconds of each


@dataclass(frozen=True)
class PlanRace:
    """Plans that are timed in turns, as an entry of the timing cache."""

    network: str
    plans: tuple[str, ...]  # digests, sorted

    @property
    def digest(self) -> str:
        """16 hex digits that name the race."""
        return hashlib.sha256(" ".join(self.plans).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"plans of {self.network}, timed in turns"


class PlanTimes:
    """Times plans, or finds their times in the cache.

    Args:
        path: The timing cache; read and extended.
        target: The CPU.
        measure: Times plans in turns.
    """

    def __init__(self, path: Path, target: CpuTarget, measure: Measure) -> None:
        self._path, self._target, self._measure = path, target, measure

    def __call__(self, plans: Sequence[Plan]) -> list[float]:
        """Microseconds of a run of each plan."""
        names = [f"plan {plan_digest(plan)}" for plan in plans]
        race = PlanRace(plans[0].name, tuple(sorted(set(names))))
        cache = TimingCache(self._path)
        if not all(name in cache.times(race, self._target) for name in names):
            for name, micros in zip(names, self._measure(plans), strict=True):
                cache.record(race, self._target, name, micros)
            cache.save()
        known = cache.times(race, self._target)
        return [known[name] for name in names]


def plan_digest(plan: Plan) -> str:
    """16 hex digits that name what a plan runs: its steps but for times and reasons."""
    hasher = hashlib.sha256(f"{plan.arena} {plan.threads}".encode())
    for step in plan.steps:
        bare = replace(step, reason=()) if isinstance(step, NativeStep) else step
        hasher.update(repr(replace(bare, micros=0.0)).encode())
    return hasher.hexdigest()[:16]
