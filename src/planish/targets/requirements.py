"""What a machine must have to run a plan's code, and whether this one has it."""

from __future__ import annotations

import platform
import re
from typing import Any

from planish.base.errors import PlanFileError
from planish.targets.cpu import ISAS, CpuTarget, host_features

# Features of x86 that LLVM may turn plain code into. The others (cache control, virtualisation,
# random numbers …) appear in no generated code, so a machine without them runs the plan as well.
_X86_CODE = re.compile(
    r"(sse|ssse|avx|fma|f16c|bmi|lzcnt|popcnt|movbe|adx|gfni|vaes|aes|vpclmul|pclmul|sha|tbm|xop"
    r"|amx|cmov).*"
)


def requirements(target: CpuTarget) -> dict[str, Any]:
    """What `Plan.target` holds for code made for a target: plain data."""
    machine = target.triple.partition("-")[0]
    row = next(row for row in ISAS if row.name == target.isa and row.machine == machine)
    needs = {*row.needs, *(need for need, dot in row.dots if dot == target.dot)}
    if not row.cpu:  # made for the very CPU of the host: LLVM was free to use all it has
        features = host_features()
        needs |= {f for f in features if machine != "x86_64" or _X86_CODE.fullmatch(f)}
    return {
        "isa": target.isa,
        "machine": machine,
        "system": platform.system(),
        "triple": target.triple,
        "cpu": target.cpu,
        "needs": sorted(needs),
        "vector_bytes": target.vector_bytes,
        "threads": target.threads,
        "l1": target.l1,
        "l2": target.l2,
        "l3": target.l3,
    }


def check_host(required: dict[str, Any], origin: str) -> None:
    """Refuse code that this machine cannot run.

    Args:
        required: What `requirements` gave at build.
        origin: The plan's name, for the message.

    Raises:
        PlanFileError: The code is for another CPU or system, or the record is malformed.
    """
    needs = required.get("needs")
    texts = [required.get(key) for key in ("isa", "machine", "system", "cpu")]
    if not all(isinstance(text, str) for text in texts) or not (
        isinstance(needs, list | tuple) and all(isinstance(need, str) for need in needs)
    ):
        raise PlanFileError(
            f"{origin}: the plan does not say which CPU it needs: {required!r:.200}"
        )
    isa, machine, system, cpu = texts
    here = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    there = {"arm64": "aarch64"}.get(str(machine), machine)
    hint = "build the plan on this machine, or for a lower ISA (--isa)"
    if (there, system) != (here, platform.system()):
        raise PlanFileError(
            f"{origin}: the plan is for {machine} on {system}; this is {here} on "
            f"{platform.system()}",
            hint=hint,
        )
    missing = sorted(set(needs) - host_features())
    if missing:
        raise PlanFileError(
            f"{origin}: the plan is for {isa} ({cpu}); this CPU lacks {', '.join(missing)}",
            hint=hint,
        )
