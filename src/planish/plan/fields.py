"""Typed access to a decoded JSON record: values are checked, errors say where they stood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from planish.base.dtypes import DType
from planish.base.errors import PlanFileError
from planish.base.shapes import Dim, Shape, Sym, dim_max, dim_min, floordiv, mod, symbol

T = TypeVar("T")

BIGGEST = 2**47  # bytes, sizes and counts beyond the address space are nonsense
_MOST_TERMS = 256
_CALLS: dict[str, Callable[[Dim, Dim], Dim]] = {
    "floordiv": floordiv,
    "mod": mod,
    "max": dim_max,
    "min": dim_min,
}
_DTYPES = {dtype.value: dtype for dtype in DType}


class Field:
    """A JSON value and where it stands in the record, e.g. "steps[3].native.phases[0].units"."""

    __slots__ = ("_value", "where")

    def __init__(self, value: Any, where: str) -> None:
        self._value = value
        self.where = where

    def wrong(self, expected: str) -> NoReturn:
        """Raise the error that says what was expected here."""
        found = repr(self._value)
        raise PlanFileError(
            f"plan record: {self.where}: expected {expected}, found {found[:60]}",
            hint="the file was written by something else than planish; build the plan again",
        )

    def __getitem__(self, name: str) -> Field:
        """A member that must be there."""
        if not isinstance(self._value, dict):
            self.wrong("an object")
        if name not in self._value:
            self.wrong(f"an object with {name!r}")
        return Field(self._value[name], f"{self.where}.{name}" if self.where else name)

    def tag(self) -> str:
        """The only key of an object."""
        if not isinstance(self._value, dict) or len(self._value) != 1:
            self.wrong("an object with one tag")
        return str(next(iter(self._value)))

    def each(self, read: Callable[[Field], T]) -> tuple[T, ...]:
        """A list, each item read the same way."""
        if not isinstance(self._value, list):
            self.wrong("a list")
        return tuple(
            [read(Field(item, f"{self.where}[{n}]")) for n, item in enumerate(self._value)]
        )

    def row(self, count: int) -> list[Field]:
        """A list of exactly `count` items."""
        if not isinstance(self._value, list) or len(self._value) != count:
            self.wrong(f"a list of {count} items")
        return [Field(item, f"{self.where}[{n}]") for n, item in enumerate(self._value)]

    def optional(self, read: Callable[[Field], T]) -> T | None:
        """None for null."""
        return None if self._value is None else read(self)

    def text(self) -> str:
        """A string."""
        if type(self._value) is not str:
            self.wrong("text")
        return self._value

    def texts(self) -> tuple[str, ...]:
        """A list of strings."""
        return self.each(Field.text)

    def flag(self) -> bool:
        """A truth value."""
        if type(self._value) is not bool:
            self.wrong("true or false")
        return self._value

    def integer(self, low: int = 0, high: int = BIGGEST) -> int:
        """An integer of the range [low, high]."""
        if type(self._value) is not int or not low <= self._value <= high:
            self.wrong(f"an integer from {low} to {high}")
        return self._value

    def number(self) -> float:
        """A finite number that is not negative."""
        if type(self._value) not in (int, float) or not 0 <= self._value < math.inf:
            self.wrong("a number that is not negative")
        return float(self._value)

    def mapping(self) -> dict[str, Any]:
        """An object of plain data, taken as it is."""
        if not isinstance(self._value, dict):
            self.wrong("an object")
        return self._value

    def integers(self) -> dict[str, int]:
        """An object of integers."""
        mapping = self.mapping()
        return {name: self[name].integer(-BIGGEST) for name in mapping}

    def dtype(self) -> DType:
        """An element type by its short name."""
        if not isinstance(self._value, str) or self._value not in _DTYPES:
            self.wrong("an element type")
        return _DTYPES[self._value]

    def dim(self) -> Dim:
        """A size, maybe symbolic."""
        if type(self._value) is int:
            return self.integer(-BIGGEST)
        return _sum(self)

    def shape(self) -> Shape:
        """A list of sizes."""
        return self.each(Field.dim)


def _sum(field: Field) -> Dim:
    total: Dim = 0
    for term in field.each(_term):
        total = total + term
    return total


def _term(field: Field) -> Dim:
    items = field.each(lambda item: item)
    if not items:
        field.wrong("a factor and its atoms")
    total: Dim = items[0].integer(-BIGGEST)
    for item in items[1:]:
        total = total * _atom(item)
        if isinstance(total, Sym) and len(total.terms) > _MOST_TERMS:
            field.wrong(f"a size of at most {_MOST_TERMS} terms")
    return total


def _atom(field: Field) -> Dim:
    if type(field._value) is not str:
        fn, a, b = field.row(3)
        if fn.text() not in _CALLS:
            fn.wrong(f"one of {sorted(_CALLS)}")
        sides = a.dim(), b.dim()
        if sides[1] == 0 and fn.text() in ("floordiv", "mod"):
            b.wrong("a size that is not 0")
        return _CALLS[fn.text()](*sides)
    name = field.text()
    if not name or any("\ud800" <= mark <= "\udfff" for mark in name):
        field.wrong("a symbol's name")
    return symbol(name)
