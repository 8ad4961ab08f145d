"""8 bits only where they pay: whole plans are timed, conversions included.

    plan in floats ─┐
    plan in 8 bits ─┴─ per layer: time in either, conversions charged to the layer they belong to
        layers that lose go back to floats together; the new plan is timed as a whole
        … again with what loses now, as long as the plan gets faster
    the fastest of all plans is kept, the float one among them

Whole plans are timed in turns, so that what else the machine does hits each alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planish.pipeline.conversions import is_conversion
from planish.pipeline.trial import opt_feeds
from planish.plan import Plan
from planish.runtime import Engine

_REVERTS = 2  # rounds of putting layers back to floats
_CLEARLY = 0.98  # a plan must be faster by this much to count as faster
_ROUNDS = 7  # of timing whole plans in turns
_ROUND_S = 0.15  # seconds of one plan in one of them

Build = Callable[[frozenset[str]], Plan]  # layers in floats -> plan
Measure = Callable[[Sequence[Plan]], list[float]]  # microseconds of each


@dataclass(frozen=True)
class Tried:
    """A plan that was timed.

    Attributes:
        what: "fp32", "int8" or "int8 with 3 layers in fp32".
        layers: Those in floats because 8 bits did not pay.
        micros: Time of a run.
        conversions: Steps that only quantise or dequantise, and their time in microseconds.
    """

    what: str
    layers: tuple[str, ...]
    micros: float
    conversions: tuple[int, float]


@dataclass(frozen=True)
class Fastest:
    """What is kept.

    Attributes:
        plan: The fastest.
        micros: Time of a run of it.
        layers: Those that went back to floats; all of them where the float plan is kept.
        floats: Whether the float plan is kept.
        tried: Every plan that was timed.
        times: Layer -> microseconds in floats, and in 8 bits with its conversions.
    """

    plan: Plan
    micros: float
    layers: tuple[str, ...]
    floats: bool
    tried: tuple[Tried, ...]
    times: dict[str, tuple[float, float]]


def choose_by_time(
    build: Build,
    floats: Plan,
    layers: Mapping[str, Sequence[str]],
    measure: Measure,
) -> Fastest:
    """Find the fastest mix.

    Args:
        build: Builds the plan with some layers in floats.
        floats: The plan with all layers in floats.
        layers: Layer -> its ONNX nodes.
        measure: Times plans.
    """
    reverted: frozenset[str] = frozenset()
    kept = build(reverted)
    wide, narrow = measure([floats, kept])
    tried = [
        Tried("fp32", (), wide, conversions(floats)),
        Tried("int8", (), narrow, conversions(kept)),
    ]
    base, first = layer_times(floats, layers), layer_times(kept, layers)
    times = {name: (base[name], first[name]) for name in layers}
    for _ in range(_REVERTS):
        mine = layer_times(kept, layers)
        losers = {name for name in mine if mine[name] > base[name] and name not in reverted}
        if not losers:
            break
        plan = build(reverted | losers)
        now, best = measure([plan, kept])
        names = tuple(sorted(reverted | losers))
        tried.append(Tried(_what(len(names)), names, now, conversions(plan)))
        if now >= best:
            break
        kept, reverted = plan, reverted | losers
    wide, best = measure([floats, kept])
    if best > wide * _CLEARLY:
        return Fastest(floats, wide, tuple(layers), True, tuple(tried), times)
    names = tuple(name for name in layers if name in reverted)
    return Fastest(kept, best, names, False, tuple(tried), times)


def _what(count: int) -> str:
    return f"int8 with {count} layer{'s' if count > 1 else ''} in fp32"


def layer_times(plan: Plan, layers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Microseconds of each layer: a step's time is shared out evenly over its ONNX nodes."""
    of_node: dict[str, float] = {}
    for step in plan.steps:
        for name in step.origin:
            of_node[name] = of_node.get(name, 0.0) + step.micros / len(step.origin)
    return {name: sum(of_node.get(o, 0.0) for o in origin) for name, origin in layers.items()}


def conversions(plan: Plan) -> tuple[int, float]:
    """Steps that do nothing but convert: how many, and their time in all."""
    found = [step for step in plan.steps if is_conversion(step)]
    return len(found), sum(step.micros for step in found)


def time_plans(plans: Sequence[Plan]) -> list[float]:
    """Microseconds of a run of each plan, timed in turns on the same inputs; medians of minima."""
    engines = [Engine(plan) for plan in plans]
    try:
        feeds = opt_feeds(plans[0])
        outputs = [engine.run(feeds) for engine in engines]
        rounds: list[list[float]] = []
        for _ in range(_ROUNDS):
            rounds.append([])
            for engine, into in zip(engines, outputs, strict=True):
                rounds[-1].append(_quickest(engine, feeds, into))
        return [float(m) for m in np.median(np.array(rounds), axis=0)]
    finally:
        for engine in engines:
            engine.close()


def _quickest(engine: Engine, feeds: dict[str, Any], into: dict[str, Any]) -> float:
    best, end = float("inf"), time.perf_counter() + _ROUND_S
    count = 0
    while count < 3 or (time.perf_counter() < end and count < 200):
        began = time.perf_counter()
        engine.run(feeds, into)
        best = min(best, time.perf_counter() - began)
        count += 1
    return best * 1e6


def record_of(tried: Iterable[Tried]) -> list[dict[str, object]]:
    """As data, for the plan's record."""
    return [
        {
            "what": t.what,
            "layers": list(t.layers),
            "micros": t.micros,
            "conversions": t.conversions[0],
            "conversion_micros": t.conversions[1],
        }
        for t in tried
    ]
