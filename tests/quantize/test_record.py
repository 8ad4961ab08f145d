"""Calibrations as text: what is written is read back, edits count, nonsense is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.base.errors import BuildError, CacheError
from planish.quantize.record import (
    Calibration,
    Row,
    is_calibration,
    parse_calibration,
    read_calibration,
)
from planish.quantize.rounding import Rounding

_FLOATS = st.floats(0.0, 2.0**100)
_ROWS = st.builds(
    lambda name, ends: Row(name, "max", -ends[0], ends[1], -ends[2], ends[3]),
    st.text(min_size=1),
    st.tuples(_FLOATS, _FLOATS, _FLOATS, _FLOATS),
)


def example() -> Calibration:
    return Calibration(
        "m" * 64,
        "d" * 64,
        3,
        "observer:*=max",
        (Row("x", "max", -1.0, 2.0, -1.0, 2.0), Row("a b\tc", "mse", 0.0, 5.5, 0.0, 6.0)),
        {"conv": np.array([0.1, -0.2], np.float32)},
        roundings={"a b\tc": Rounding.of(np.arange(4), np.array([0, 1, -1, 0]))},
    )


@given(rows=st.lists(_ROWS, max_size=4, unique_by=lambda row: row.value))
def test_text_and_back(rows: list[Row]) -> None:
    made = Calibration("m", "d", 1, "s", tuple(rows))
    assert parse_calibration(made.text()).rows == tuple(rows)


@given(values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8))
def test_corrections_and_back(values: list[float]) -> None:
    made = Calibration("m", "d", 1, "s", (), {"c": np.array(values, np.float32)})
    read = parse_calibration(made.text())
    assert np.array_equal(read.biases["c"], made.biases["c"])


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "net.calibration"
    example().save(path)
    read = read_calibration(path)
    assert read.text() == example().text()
    assert read.roundings == example().roundings
    assert is_calibration(path)
    assert not is_calibration(tmp_path)
    assert not is_calibration(tmp_path / "missing")


def test_an_edited_range_is_used() -> None:
    text = example().text().replace("\t2.0\t-1.0", "\t1.5\t-1.0")
    row = parse_calibration(text).row("x")
    assert row is not None
    assert (row.high, row.seen_high) == (1.5, 2.0)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("planish calibration 1", "something", "is no calibration"),
        ("x\tmax\t-1.0", "x\tmax\t0.5", "line 7: expected finite low <= 0 <= high"),
        ("x\tmax\t-1.0", "x\tmax\tnan", "line 7: expected finite low"),
        ("x\tmax\t-1.0\t", "x\tmax\t", "line 7: expected 6 columns"),
        ("-0.2", "inf", "a correction is not finite"),
        ("data d", "date d", "expected lines"),
        ("\tdigest, and the codes", "\tcodes", "could not convert"),
    ],
)
def test_nonsense_is_named(old: str, new: str, expected: str) -> None:
    text = example().text()
    assert old in text
    with pytest.raises(CacheError, match=expected):
        parse_calibration(text.replace(old, new))


def test_another_network_or_other_data() -> None:
    example().check("m" * 64)
    with pytest.raises(BuildError, match="made for the network mmmm"):
        example().check("n" * 64)
    with pytest.raises(BuildError, match="made from the data dddd"):
        example().check_data("e" * 64)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cannot read"):
        read_calibration(tmp_path / "none")
