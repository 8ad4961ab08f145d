"""A calibration: the range of each value that is stored in 8 bits, as text that can be edited.

    planish calibration 1
    model 5f0c…                      digest of the network it was made for
    data 91ab… 500                   digest of the data, and how many samples
    settings …                       what it was made with

    value   observer  low  high  seen_low  seen_high
    conv1   mse       0    5.91  0         6.37

    bias    corrections, one a channel
    conv1   0.0012 -0.0003 …

    input   low and high, in turns, one pair a channel
    data    -2.1179 2.2489 …

    weights digest, and the codes that are not the nearest
    conv1   8d41… eXl5gg…

Columns are parted by tabs. `low` and `high` are what is used and may be edited; what was seen is
there for comparison. A bias correction is added to the bias of the layer that it names. An
input that is named has its channels spread from their own ranges to one (see spread.py). Weights
that are named have codes one above or one below the nearest: five offsets a byte, each plus one as
a digit of base three, the first the lowest, in base64 (see rounding.py); a line that is taken out
leaves all of them at the nearest.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from planish.base.errors import BuildError, CacheError
from planish.quantize.ends import Ends
from planish.quantize.rounding import Rounding

HEADING = "planish calibration 1"
_VALUES = "value\tobserver\tlow\thigh\tseen_low\tseen_high"
_BIASES = "bias\tcorrections"
_INPUTS = "input\tlow and high, in turns"
_WEIGHTS = "weights\tdigest, and the codes that are not the nearest"
_PARTS = {_VALUES: "values", _BIASES: "biases", _INPUTS: "inputs", _WEIGHTS: "weights"}


@dataclass(frozen=True)
class Row:
    """The range of a value.

    Attributes:
        value: Its name in the optimised graph; that of the first where several share a range.
        observer: What chose the range: "max", "percentile", …; "edited" or anything else is fine.
        low, high: The range that is represented; 0 lies in it.
        seen_low, seen_high: The smallest and the largest number in the data.
    """

    value: str
    observer: str
    low: float
    high: float
    seen_low: float
    seen_high: float


@dataclass(frozen=True)
class Calibration:
    """What calibration found.

    Attributes:
        model: Digest of the network, as `graph_digest` gives it.
        data: Digest of the data; whatever order and batches they came in.
        samples: How many there were.
        settings: What was asked for, as text.
        rows: One a range, in the order of the graph.
        biases: Layer name -> what is added to its bias, one a channel.
        inputs: Input's name -> the ends of its channels.
        roundings: Layer name -> which codes of its weights are not the nearest.
    """

    model: str
    data: str
    samples: int
    settings: str
    rows: tuple[Row, ...]
    biases: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: dict[str, Ends] = field(default_factory=dict)
    roundings: dict[str, Rounding] = field(default_factory=dict)

    def row(self, value: str) -> Row | None:
        """The row of a value."""
        return next((row for row in self.rows if row.value == value), None)

    def check(self, model: str) -> None:
        """See that this calibration belongs to a network.

        Raises:
            BuildError: It was made for another one.
        """
        if self.model != model:
            raise BuildError(
                f"the calibration was made for the network {self.model[:16]}, this one is "
                f"{model[:16]}",
                hint="calibrate again with data, or give the network that it was made for",
            )

    def check_data(self, data: str) -> None:
        """See that this calibration was made from some data.

        Raises:
            BuildError: It was made from other data.
        """
        if self.data != data:
            raise BuildError(
                f"the calibration was made from the data {self.data[:16]}, these are {data[:16]}",
                hint="give the calibration alone to use it as it is, or remove it to calibrate",
            )

    def text(self) -> str:
        """As text; equal calibrations give equal text, and reading it back gives equal numbers."""
        lines = [HEADING, f"model {self.model}", f"data {self.data} {self.samples}"]
        lines += [f"settings {self.settings}", "", _VALUES]
        for row in self.rows:
            numbers = (row.low, row.high, row.seen_low, row.seen_high)
            lines.append("\t".join([_quoted(row.value), row.observer, *map(repr, numbers)]))
        if self.biases:
            lines += ["", _BIASES]
            for name, values in self.biases.items():
                shortest = " ".join(str(v) for v in np.asarray(values, np.float32))
                lines.append(f"{_quoted(name)}\t{shortest}")
        if self.inputs:
            lines += ["", _INPUTS]
            for name, ends in self.inputs.items():
                pairs = " ".join(repr(float(v)) for v in np.stack(ends, axis=1).reshape(-1))
                lines.append(f"{_quoted(name)}\t{pairs}")
        if self.roundings:
            lines += ["", _WEIGHTS]
            lines += [f"{_quoted(name)}\t{one.text}" for name, one in self.roundings.items()]
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the text to a file.

        Raises:
            CacheError: The system refused.
        """
        target = Path(path)
        try:
            target.write_text(self.text(), encoding="utf-8")
        except OSError as error:
            raise CacheError(f"cannot write the calibration {target}: {error.strerror}") from error


def is_calibration(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a calibration, by its first line."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(HEADING)) == HEADING.encode()
    except OSError:
        return False


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read what `Calibration.save` wrote.

    Raises:
        CacheError: The file cannot be read, or it is no calibration.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CacheError(f"cannot read the calibration {path}: {error}") from error
    return parse_calibration(text, str(path))


def parse_calibration(text: str, name: str = "the calibration") -> Calibration:
    """Read `Calibration.text`.

    Args:
        text: The text.
        name: What it is called in errors.

    Raises:
        CacheError: It is no calibration; says which line is wrong.
    """
    rows: list[Row] = []
    head: dict[str, str] = {}
    biases: dict[str, np.ndarray] = {}
    inputs: dict[str, Ends] = {}
    roundings: dict[str, Rounding] = {}
    lines = text.splitlines()
    if not lines or lines[0] != HEADING:
        raise CacheError(f"{name} is no calibration: its first line is not {HEADING!r}")
    part = "head"
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        if line in _PARTS:
            part = _PARTS[line]
            continue
        try:
            if part == "head":
                key, _, said = line.partition(" ")
                head[key] = said
            elif part == "values":
                rows.append(_row(line))
            elif part == "inputs":
                value, ends = _ends(line)
                inputs[value] = ends
            elif part == "weights":
                value, _, said = line.partition("\t")
                roundings[_unquoted(value)] = Rounding.parse(said)
            else:
                value, _, numbers = line.partition("\t")
                data = np.array([float(v) for v in numbers.split()], np.float32)
                if not np.all(np.isfinite(data)):
                    raise ValueError("a correction is not finite")
                biases[_unquoted(value)] = data
        except ValueError as error:
            raise CacheError(f"{name}, line {number}: {error}") from error
    try:
        data_digest, samples = head["data"].split()
        return Calibration(
            head["model"], data_digest, int(samples), head["settings"], tuple(rows), biases, inputs,
            roundings,
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise CacheError(
            f"{name}: expected lines 'model DIGEST', 'data DIGEST COUNT' and 'settings …'"
        ) from error


def _row(line: str) -> Row:
    cells = line.split("\t")
    if len(cells) != 6:
        raise ValueError(f"expected 6 columns parted by tabs, found {len(cells)}")
    low, high, seen_low, seen_high = map(float, cells[2:])
    if not (np.isfinite(low) and np.isfinite(high) and low <= 0.0 <= high):
        raise ValueError(f"expected finite low <= 0 <= high, found {low!r} and {high!r}")
    return Row(_unquoted(cells[0]), cells[1], low, high, seen_low, seen_high)


def _ends(line: str) -> tuple[str, Ends]:
    name, _, numbers = line.partition("\t")
    pairs = np.array([float(v) for v in numbers.split()], np.float64)
    if pairs.size % 2 or not np.all(np.isfinite(pairs)) or np.any(pairs[0::2] > pairs[1::2]):
        raise ValueError("expected pairs of finite numbers low <= high")
    return _unquoted(name), (pairs[0::2], pairs[1::2])


def _quoted(name: str) -> str:
    plain = name.isprintable() and not name.startswith('"') and name.strip() == name and name
    return name if plain else json.dumps(name)


def _unquoted(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text
