"""Every environment variable that planish reads, a row each: its type, its default, a help line.

Read one as `knobs.SPIN_US.value`; the environment is looked at on each reading, so a test or a user
may set it at any time before the thing it steers is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from planish.base.errors import PlanishError

T = TypeVar("T")


@dataclass(frozen=True)
class Knob(Generic[T]):
    """A declared environment variable.

    Attributes:
        name: The variable.
        default: Value where it is not set or empty.
        parse: Text to value; raises ValueError.
        expects: What a legal text is, for people.
        help: What it does.
    """

    name: str
    default: T
    parse: Callable[[str], T]
    expects: str
    help: str

    @property
    def value(self) -> T:
        """The value in force.

        Raises:
            PlanishError: The variable is set to something that is not legal.
        """
        text = os.environ.get(self.name, "")
        if not text.strip():
            return self.default
        try:
            return self.parse(text.strip())
        except ValueError:
            raise PlanishError(
                f"environment variable {self.name}={text!r}: expected {self.expects}",
                hint=f"{self.help}; unset it for the default, {self.default}",
            ) from None

    @property
    def is_set(self) -> bool:
        """Whether the environment says something."""
        return bool(os.environ.get(self.name, "").strip())


def _integer(name: str, default: int, low: int, high: int, help: str) -> Knob[int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return Knob(name, default, parse, f"an integer from {low} to {high}", help)


def _switch(name: str, default: bool, help: str) -> Knob[bool]:
    words = {"0": False, "off": False, "no": False, "1": True, "on": True, "yes": True}

    def parse(text: str) -> bool:
        if text.lower() not in words:
            raise ValueError(text)
        return words[text.lower()]

    return Knob(name, default, parse, "0 or 1", help)


def _path(name: str, help: str) -> Knob[Path | None]:
    return Knob(name, None, lambda text: Path(text).expanduser(), "a path", help)


DEBUG = _integer(
    "PLANISH_DEBUG",
    0,
    0,
    6,
    "what to print: 1 stages and times, 2 steps, 3 chosen kernels and refusals, 4 emitted source, "
    "5 the graph after each pass, 6 machine code",
)
DUMP = _path("PLANISH_DUMP", "folder for numbered text files, one a stage of the build")
CHECK = _integer(
    "PLANISH_CHECK",
    1,
    0,
    2,
    "checks during a build: 0 none, 1 verify the graph after each pass, 2 also compare numerically",
)
STOP_AFTER = _integer(
    "PLANISH_STOP_AFTER",
    -1,
    -1,
    2**31,
    "apply only this many graph rewrites, to find a wrong one by bisection; -1: all",
)
CACHE_DIR = _path("PLANISH_CACHE_DIR", "folder of the timing cache; default: the user's own")
THREADS = _integer(
    "PLANISH_THREADS", 0, 0, 4096, "workers of a context; 0: the plan's, at most the usable cores"
)
SPIN_US = _integer(
    "PLANISH_SPIN_US",
    20,
    0,
    10_000_000,
    "microseconds that a waiting worker spins before it yields its core, where cores suffice",
)
YIELD_US = _integer(
    "PLANISH_YIELD_US",
    2000,
    0,
    10_000_000,
    "microseconds that a waiting worker yields before it sleeps",
)
PIN = _switch(
    "PLANISH_PIN",
    False,
    "pin each worker but the calling thread to a core of its own; off by default, since it was "
    "measured to gain nothing and to lose where other processes want the cores, too",
)
HUGE_PAGES = _switch("PLANISH_HUGE_PAGES", True, "ask for huge pages for the activation arena")
SHAPE_CACHE = _integer(
    "PLANISH_SHAPE_CACHE", 64, 1, 100_000, "input shapes that a context keeps ready to run"
)
VERIFY_WEIGHTS = _switch(
    "PLANISH_VERIFY_WEIGHTS", True, "check the SHA-256 of a plan's weights on each load"
)

WEIGHT_GROWTH = _integer(
    "PLANISH_WEIGHT_GROWTH",
    250,
    100,
    10_000,
    "most weights of a plan of level 0, in percent of the model's; from level 1 on timing decides, "
    "with PLANISH_WEIGHT_PRICE for 8-bit weights",
)

WEIGHT_PRICE = _integer(
    "PLANISH_WEIGHT_PRICE",
    80,
    0,
    1_000_000,
    "microseconds that a kernel must save for each MB that its form of 8-bit weights is larger; 0 "
    "for speed alone",
)

KNOBS: tuple[Knob[int] | Knob[bool] | Knob[Path | None], ...] = (
    DEBUG,
    DUMP,
    CHECK,
    STOP_AFTER,
    CACHE_DIR,
    THREADS,
    SPIN_US,
    YIELD_US,
    PIN,
    HUGE_PAGES,
    SHAPE_CACHE,
    VERIFY_WEIGHTS,
    WEIGHT_GROWTH,
    WEIGHT_PRICE,
)


@dataclass(frozen=True)
class KnobRow:
    """A knob as `planish doctor` lists it."""

    name: str
    value: str  # the value in force, or the illegal text with a note
    is_set: bool
    help: str


def knob_rows() -> list[KnobRow]:
    """Every knob with the value in force. An illegal setting is told, not raised."""
    rows = []
    for knob in KNOBS:
        try:
            text = "" if knob.value is None else str(knob.value)
        except PlanishError:
            text = f"{os.environ[knob.name]!r} is illegal: expected {knob.expects}"
        rows.append(KnobRow(knob.name, text, knob.is_set, knob.help))
    return rows


def unknown_variables() -> list[str]:
    """Variables of the environment that start with PLANISH_ and are no knob: likely misspelt."""
    known = {knob.name for knob in KNOBS}
    return sorted(n for n in os.environ if n.startswith("PLANISH_") and n not in known)
