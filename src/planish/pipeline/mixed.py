"""Mixed precision by measurement: 8 bits only where the plan gets faster, conversions included.

    plan in floats ─┐
    plan in 8 bits ─┴─ per layer: time in either, conversions charged to the layer they belong to
        layers that lose go back to floats together; the new plan is timed as a whole
        … again with what loses now, as long as the plan gets faster
    the fastest of all plans is kept, the float one among them

Whole plans are timed in turns, so that what else the machine does hits each alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from planish.pipeline.conversions import is_conversion
from planish.plan import Plan

_ROUNDS = 2  # of reverting
_CLEARLY = 0.98  # a plan must be faster by this much to count as faster

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
class Mixed:
    """What is kept.

    Attributes:
        plan: The fastest.
        layers: Those that went back to floats; all of them where the float plan is kept.
        floats: Whether the float plan is kept.
        tried: Every plan that was timed.
        times: Layer -> microseconds in floats, and in 8 bits with its conversions.
    """

    plan: Plan
    layers: tuple[str, ...]
    floats: bool
    tried: tuple[Tried, ...]
    times: dict[str, tuple[float, float]]


def choose_by_time(
    build: Build,
    floats: Plan,
    layers: Mapping[str, Sequence[str]],
    measure: Measure,
    fixed: frozenset[str] = frozenset(),
) -> Mixed:
    """Find the fastest mix.

    Args:
        build: Builds the plan with some layers in floats.
        floats: The plan with all layers in floats.
        layers: Layer -> its ONNX nodes.
        measure: Times plans.
        fixed: Layers that are to stay in floats for another reason.
    """
    kept, reverted = build(fixed), fixed
    wide, narrow = measure([floats, kept])
    tried = [
        Tried("fp32", (), wide, conversions(floats)),
        Tried("int8", tuple(sorted(fixed)), narrow, conversions(kept)),
    ]
    best = narrow
    base = layer_times(floats, layers)
    first = layer_times(kept, layers)
    times = {name: (base[name], first[name]) for name in layers if name not in fixed}
    for _ in range(_ROUNDS):
        mine = layer_times(kept, layers)
        losers = {name for name in mine if mine[name] > base[name] and name not in reverted}
        if not losers:
            break
        plan = build(reverted | losers)
        now, best = measure([plan, kept])
        names = tuple(sorted((reverted | losers) - fixed))
        tried.append(Tried(_what(len(names)), names, now, conversions(plan)))
        if now >= best:
            break
        kept, reverted, best = plan, reverted | losers, now
    if kept is not floats:
        wide, best = measure([floats, kept])
    if best > wide * _CLEARLY:
        return Mixed(floats, tuple(layers), True, tuple(tried), times)
    names = tuple(name for name in layers if name in reverted - fixed)
    return Mixed(kept, names, False, tuple(tried), times)


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


def told(tried: Iterable[Tried]) -> list[dict[str, object]]:
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
