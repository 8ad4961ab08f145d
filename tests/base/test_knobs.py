"""Declared knobs: defaults, parsing, clear errors; nobody else reads the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planish.base import knobs
from planish.base.errors import PlanishError

SOURCE = Path(knobs.__file__).parent.parent


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for knob in knobs.KNOBS:
        monkeypatch.delenv(knob.name, raising=False)
        assert knob.value == knob.default
        assert not knob.is_set
        monkeypatch.setenv(knob.name, "  ")
        assert knob.value == knob.default
        assert knob.help and knob.expects


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_DEBUG", " 3 ")
    monkeypatch.setenv("PLANISH_PIN", "On")
    monkeypatch.setenv("PLANISH_DUMP", "~/dumps")
    assert knobs.DEBUG.value == 3
    assert knobs.PIN.value is True
    assert knobs.DUMP.value == Path.home() / "dumps"
    monkeypatch.setenv("PLANISH_PIN", "0")
    assert knobs.PIN.value is False


@pytest.mark.parametrize(("name", "text"), [("DEBUG", "7"), ("DEBUG", "x"), ("PIN", "maybe")])
def test_illegal(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"PLANISH_{name}", text)
    knob = getattr(knobs, name)
    with pytest.raises(PlanishError, match=f"PLANISH_{name}='{text}': expected") as caught:
        _ = knob.value
    assert knob.help in caught.value.hint
    row = next(row for row in knobs.knob_rows() if row.name == knob.name)
    assert "illegal" in row.value and row.is_set


def test_every_knob_is_listed() -> None:
    declared = [v for v in vars(knobs).values() if isinstance(v, knobs.Knob)]
    assert list(knobs.KNOBS) == declared
    assert [row.name for row in knobs.knob_rows()] == [knob.name for knob in declared]


def test_misspelt_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_DEBGU", "1")
    assert knobs.unknown_variables() == ["PLANISH_DEBGU"]


def test_nobody_else_reads_the_environment() -> None:
    pattern = re.compile(r"os\.environ|os\.getenv|from os import")
    readers = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if pattern.search(path.read_text()) and path.name != "knobs.py"
    ]
    assert readers == []
