"""Keeps a plan near the size of its model where nothing is timed: kernels that blow weights up.

Winograd's F(6×6) stores 64 numbers for 9. Without timings to show that it pays, the blown-up
weights are traded back, those first that cost the least time for the bytes they save.
"""

from __future__ import annotations

from collections.abc import Mapping

from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.tune.candidates import Candidates
from planish.tune.compile import Tactic


def within_weights(
    found: Mapping[Workload, Candidates],
    uses: Mapping[Workload, int],
    target: CpuTarget,
    percent: int,
) -> dict[Workload, Tactic]:
    """The likeliest tactics whose weights stay within a share of the model's.

    Args:
        found: Tactics of each workload, those that the level leaves out among them.
        uses: How many layers each workload stands for, each with weights of its own.
        target: The CPU.
        percent: Limit of all weights, in percent of what they are in the model.
    """
    chosen = {workload: one.tactics[0] for workload, one in found.items()}
    stored = {w: weight_bytes(w) * uses.get(w, 1) for w in found}
    spare = sum(stored.values()) * (percent - 100) / 100
    spare -= sum(stored[w] * (_growth(w, t) - 1) for w, t in chosen.items())
    if spare >= 0:
        return chosen
    costs = {
        workload: [(t, _growth(workload, t), _cost(workload, t, target) * uses.get(workload, 1))
                   for t in (*one.tactics, *one.skipped)]
        for workload, one in found.items()
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
