"""What a build was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planish.base.errors import BuildError

PRECISIONS = ("fp32", "fp16", "int8-weights", "int8")
LEVELS = range(6)

Progress = Callable[[str, int, int], None]  # (what, done, total)


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True)
class Options:
    """What a build was asked for. Part of the plan's provenance.

    Attributes:
        precision: One of `PRECISIONS`.
        threads: Workers that share each layer; 0: every core the process may use.
        level: 0 (no timing) to 5 (every tactic).
        isa: Cap on the vector instructions; "" for the best there is.
        time_budget: Seconds that timing may take; 0.0: no limit.
        pins: (layer name or pattern, tactic): layers whose tactic the user chose.
        optimised: False where each node of the model runs by itself.
    """

    precision: str
    threads: int
    level: int
    isa: str
    time_budget: float
    pins: tuple[tuple[str, str], ...]
    optimised: bool = True


def make_options(
    precision: str,
    threads: int | None,
    level: int,
    isa: str,
    time_budget: float,
    pins: Mapping[str, str] | None,
    optimised: bool = True,
) -> Options:
    """Check the arguments of `build`.

    Raises:
        BuildError: One of them makes no sense.
    """
    if precision not in PRECISIONS:
        raise BuildError(f"precision {precision!r} is not one of {list(PRECISIONS)}")
    if level not in LEVELS:
        raise BuildError(f"level {level!r}: expected 0 (no timing) to 5 (every tactic)")
    if threads is not None and not 1 <= threads <= 4096:
        raise BuildError(f"threads {threads!r}: expected 1 to 4096, or None for all cores")
    if time_budget < 0:
        raise BuildError(f"time_budget {time_budget!r}: expected seconds, 0 for no limit")
    chosen = tuple(sorted((pins or {}).items()))
    return Options(precision, threads or 0, level, isa, float(time_budget), chosen, bool(optimised))
