"""How a network is to be quantised."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from planish.base.errors import BuildError

OBSERVER_NAMES = ("auto", "max", "percentile", "mse", "entropy")
WEIGHT_ROUNDINGS = ("hessian", "nearest")
_FLAGS = ("per_channel", "symmetric", "equalise", "correct_biases", "spread_inputs")
LAYER_PRECISIONS = ("int8", "fp32")

Rules = tuple[tuple[str, str], ...]  # (pattern, what it says); the last that fits counts


@dataclass(frozen=True)
class Settings:
    """How a network is to be quantised. Patterns are those of shells: *, ?, [abc].

    Attributes:
        observers: (pattern of value or layer names, observer).
        layers: (pattern of layer names, "int8" or "fp32").
        percentile: Of the values that the percentile observer keeps, in percent.
        per_channel: A scale for each output channel of the weights; else one for all.
        symmetric: Ranges of activations lie even around zero.
        equalise: Where all channels share a weight scale, balance those of consecutive layers first
            (see equalise.py).
        correct_biases: Take the mean error out of each layer's result (see correct.py).
        spread_inputs: Give each channel of the network's inputs all 256 codes (see spread.py).
        round_weights: "hessian": by what the layer's results lose (see rounding.py); "nearest".
    """

    observers: Rules = (("*", "auto"),)
    layers: Rules = ()
    percentile: float = 99.99
    per_channel: bool = True
    symmetric: bool = False
    equalise: bool = True
    correct_biases: bool = True
    spread_inputs: bool = True
    round_weights: str = "hessian"

    @property
    def text(self) -> str:
        """In one line."""
        rules = (("observer", self.observers), ("layer", self.layers))
        said = [f"{what}:{pattern}={name}" for what, rows in rules for pattern, name in rows]
        said.append(f"percentile={self.percentile!r}")
        for flag in _FLAGS:
            said.append(f"{flag}={'yes' if getattr(self, flag) else 'no'}")
        said.append(f"round_weights={self.round_weights}")
        return " ".join(said)

    def observer(self, names: Iterable[str]) -> str:
        """The observer of a value, given all names that it goes by."""
        return matching(self.observers, names) or "auto"


def make_settings(
    observer: str | Mapping[str, str] = "auto",
    layer_precisions: Mapping[str, str] | None = None,
    *,
    percentile: float = 99.99,
    per_channel: bool = True,
    symmetric: bool = False,
    equalise: bool = True,
    correct_biases: bool = True,
    spread_inputs: bool = True,
    round_weights: str = "hessian",
) -> Settings:
    """Check what a user asked for.

    Args:
        observer: A name of `OBSERVER_NAMES` for all values, or pattern -> name.
        layer_precisions: Pattern -> "int8" or "fp32".
        percentile: As in `Settings`.
        per_channel: As in `Settings`.
        symmetric: As in `Settings`.
        equalise: As in `Settings`.
        correct_biases: As in `Settings`.
        spread_inputs: As in `Settings`.
        round_weights: A name of `WEIGHT_ROUNDINGS`.

    Raises:
        BuildError: A name is unknown, or the percentile is no percentage.
    """
    observers = {"*": observer} if isinstance(observer, str) else {"*": "auto", **observer}
    for pattern, name in observers.items():
        if name not in OBSERVER_NAMES:
            raise BuildError(f"observer {name!r} of {pattern!r}: not one of {list(OBSERVER_NAMES)}")
    layers = dict(layer_precisions or {})
    for pattern, name in layers.items():
        if name not in LAYER_PRECISIONS:
            raise BuildError(
                f"precision {name!r} of layers {pattern!r}: not one of {list(LAYER_PRECISIONS)}"
            )
    if not 50.0 < percentile <= 100.0:
        raise BuildError(f"percentile {percentile!r}: expected more than 50, at most 100")
    if round_weights not in WEIGHT_ROUNDINGS:
        raise BuildError(
            f"rounding of weights {round_weights!r}: not one of {list(WEIGHT_ROUNDINGS)}"
        )
    return Settings(
        tuple(observers.items()),
        tuple(layers.items()),
        float(percentile),
        bool(per_channel),
        bool(symmetric),
        bool(equalise),
        bool(correct_biases),
        bool(spread_inputs),
        round_weights,
    )


def matching(rules: Sequence[tuple[str, str]], names: Iterable[str]) -> str | None:
    """What the last rule says whose pattern fits one of some names."""
    known = list(names)
    for pattern, said in reversed(rules):
        if any(fnmatch.fnmatchcase(name, pattern) for name in known):
            return said
    return None
