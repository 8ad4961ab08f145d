"""Which tactics of the catalogue can run a workload, and which of them are worth timing."""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.errors import BuildError
from planish.kernels.catalogue import KERNELS
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.tune.compile import Tactic
from planish.tune.weights import price

# Level -> tactics of a workload that are timed. Level 0 times nothing and takes the likeliest.
TACTICS_AT_LEVEL = (1, 2, 4, 8, 16, 1 << 30)


@dataclass(frozen=True)
class Candidates:
    """The tactics of a workload.

    Attributes:
        tactics: Those to time, likeliest first; never empty.
        skipped: Legal ones that the level leaves out.
        refused: (kernel name, reason) of those that cannot run it.
    """

    tactics: tuple[Tactic, ...]
    skipped: tuple[Tactic, ...]
    refused: tuple[tuple[str, str], ...]


def candidates(workload: Workload, target: CpuTarget, level: int) -> Candidates:
    """List the tactics of a workload.

    The kernels' own cost estimates order them; a kernel's first config is always kept from level 2
    on, since an estimate is a belief and only timing decides.

    Raises:
        BuildError: No kernel runs the workload; says why each one refuses.
    """
    refused: list[tuple[str, str]] = []
    ranked: list[tuple[float, int, Tactic]] = []
    heads: list[Tactic] = []
    for kernel in KERNELS:
        if kernel.op != workload.op:
            continue
        reason = kernel.refuse(workload, target)
        if reason is not None:
            refused.append((kernel.name, reason))
            continue
        for number, config in enumerate(kernel.configs(workload, target)):
            tactic = Tactic(kernel, config)
            cost = kernel.cost(workload, config, target) if kernel.cost else float("inf")
            cost += price(workload, tactic) / 1e6
            ranked.append((cost, len(ranked), tactic))
            if number == 0:
                heads.append(tactic)
    if not ranked:
        reasons = (
            "; ".join(f"{name}: {reason}" for name, reason in refused) or "no kernel has this op"
        )
        raise BuildError(f"no kernel runs this workload ({reasons}):\n{workload}")
    ranked.sort(key=lambda entry: entry[:2])
    limit = TACTICS_AT_LEVEL[level]
    ordered = [tactic for _, _, tactic in ranked]
    kept = ordered[:limit]
    if level >= 2:
        kept += [tactic for tactic in heads if tactic not in kept]
    skipped = [tactic for tactic in ordered if tactic not in kept]
    return Candidates(tuple(kept), tuple(skipped), tuple(refused))
