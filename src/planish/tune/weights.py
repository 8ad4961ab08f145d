"""What kernels that blow weights up have to gain by it: Winograd's F(6×6) stores 64 numbers for 9.

A plan in 8 bits is meant to be small, and on a busy machine its weights come from memory. So every
byte that such weights grow by has its price in time, timed or estimated; by default about what it
takes to read it. Plans in floats have no such price: their timings decide, and where nothing is
timed the plan stays near the size of its model, those blown-up weights being traded back first that
cost the least time for the bytes they save.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planish.base import knobs
from planish.base.dtypes import DType
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.tune.compile import Tactic


def price(workload: Workload, tactic: Tactic) -> float:
    """Microseconds that a tactic must gain on one that stores weights as they are."""
    if len(workload.inputs) < 2 or workload.inputs[1].dtype is not DType.I8:
        return 0.0
    grown = weight_bytes(workload) * (_growth(workload, tactic) - 1)
    return grown * knobs.WEIGHT_PRICE.value / 1e6


def within_weights(
    found: Mapping[Workload, Sequence[Tactic]],
    uses: Mapping[Workload, int],
    target: CpuTarget,
    percent: int,
) -> dict[Workload, Tactic]:
    """The likeliest tactics whose weights stay within a share of the model's.

    Args:
        found: Tactics of each workload, likeliest first, those that the level leaves out too.
        uses: How many layers each workload stands for, each with weights of its own.
        target: The CPU.
        percent: Limit of all weights, in percent of what they are in the model.
    """
    chosen = {workload: tactics[0] for workload, tactics in found.items()}
    stored = {w: weight_bytes(w) * uses.get(w, 1) for w in found}
    spare = sum(stored.values()) * (percent - 100) / 100
    spare -= sum(stored[w] * (_growth(w, t) - 1) for w, t in chosen.items())
    if spare >= 0:
        return chosen
    costs = {
        workload: [(t, _growth(workload, t), _cost(workload, t, target) * uses.get(workload, 1))
                   for t in tactics]
        for workload, tactics in found.items()
        if _growth(workload, chosen[workload]) > 1
    }  # fmt: skip
    at = {workload: rows[0] for workload, rows in costs.items()}
    while spare < 0:
        trades = [
            ((other[2] - at[workload][2]) / saved, number, saved, workload, other)
            for number, (workload, rows) in enumerate(costs.items())
            for other in rows
            if (saved := stored[workload] * (at[workload][1] - other[1])) > 0
        ]
        if not trades:
            break
        _, _, saved, workload, other = min(trades, key=lambda trade: trade[:2])
        at[workload], chosen[workload] = other, other[0]
        spare += saved
    return chosen


def weight_bytes(workload: Workload) -> int:
    """Bytes of a workload's constant operands as the model stores them."""
    total = 0
    for operand in workload.inputs:
        elements = operand.dtype.size if operand.const else 0
        for size in operand.shape if operand.const else ():
            elements *= size if isinstance(size, int) else 1
        total += elements
    return total


def _growth(workload: Workload, tactic: Tactic) -> float:
    return 1.0 if tactic.kernel.growth is None else tactic.kernel.growth(workload, tactic.config)


def _cost(workload: Workload, tactic: Tactic, target: CpuTarget) -> float:
    cost = tactic.kernel.cost
    return 1e9 if cost is None else cost(workload, tactic.config, target)
