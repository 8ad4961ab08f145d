"""Reads a graph from its text (see `text.py`), and from text that people write for tests.

Beyond what is printed, it accepts nodes without types (they are inferred), and constants given as
`random(seed)` (floats of normal distribution, integers from 0 to 9) or `random(seed, low, high)`
(evenly spread).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.shapes import Dim, evaluate, is_static, parse_dim
from planish.graph.graph import Graph, Node, TensorType, Value
from planish.graph.infer import infer_types

_SIZE_MARKS = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[][(),]""")  # or a quoted name


def parse_graph(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Graph:
    """Read a graph back from its text; types are inferred where operators are known.

    Args:
        text: The text.
        constants: Contents of the constants that the text names by their digest.

    Raises:
        ModelError: The text is no graph; says in which line and why.
    """
    rows = [(n, row) for n, row in enumerate(text.splitlines(), 1) if row.strip()]
    graph = _Reader(rows, constants or {}).graph({})
    infer_types(graph)
    return graph


class _Line:
    """A line, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, pattern: str) -> str:
        """What fits a pattern here, with the blanks before it skipped; "" if nothing does."""
        found = re.compile(rf"\s*({pattern})").match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found.group(1)

    def expect(self, pattern: str, what: str) -> str:
        """What fits a pattern here; an error if nothing does."""
        found = self.take(pattern)
        if not found:
            raise ValueError(f"expected {what}, found {self.text[self.at :].strip()!r}")
        return found

    def name(self) -> str:
        """A plain or quoted name."""
        word = self.expect(r'"(?:\\.|[^"\\])*"|[\w./$-]+', "a name")
        return str(json.loads(word)) if word.startswith('"') else word

    def type(self) -> TensorType:
        """A type such as f32[N,3]."""
        dtype = DType(self.expect(r"\w+", "a dtype"))
        self.expect(r"\[", "'['")
        if self.take(r"\*\s*\]"):
            return TensorType(dtype, None)
        return TensorType(dtype, self.sizes())

    def sizes(self) -> tuple[Dim, ...]:
        """Sizes up to the closing bracket."""
        parts, depth, start = [], 0, self.at
        for found in _SIZE_MARKS.finditer(self.text, self.at):
            mark, place = found.group(), found.start()
            depth += (mark == "(") - (mark == ")")
            if mark == "]" or (mark == "," and not depth):
                parts.append(self.text[start:place])
                start = place + 1
            if mark == "]":
                self.at = place + 1
                return tuple(parse_dim(part) for part in parts if part.strip())
        raise ValueError("a ']' is missing")

    def items(self, close: str) -> list[Any]:
        """Literals up to a closing mark."""
        values: list[Any] = []
        while not self.take(close):
            values.append(self.literal())
            self.take(",")
        return values

    def literal(self) -> Any:
        """A number, a string, a truth value or a tuple of them."""
        if self.take(r"\["):
            return tuple(self.items(r"\]"))
        word = self.expect(r'"(?:\\.|[^"\\])*"|[^\s,\])}]+', "a literal")
        if word.startswith('"'):
            return json.loads(word)
        if word in ("true", "false"):
            return word == "true"
        return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)


class _Reader:
    """Reads the lines of one text; nested graphs share it."""

    def __init__(self, rows: list[tuple[int, str]], constants: Mapping[str, np.ndarray]) -> None:
        self.rows = rows
        self.constants = constants
        self.at = 0

    def graph(self, outer: Mapping[str, Value]) -> Graph:
        known = dict(outer)
        row = self._next()
        indent = _indent(row)
        made = Graph(row.name() if row.expect("graph", "'graph'") else "", [], [], [])
        inputs, outputs, nodes = made.inputs, made.outputs, []
        while self.at < len(self.rows) and _indent(_Line(self.rows[self.at][1])) > indent:
            row = self._next()
            try:
                if row.take(r"symbol\b"):
                    name, low = row.name(), row.expect(r"\d+", "a size")
                    row.expect(r"\.\.", "'..'")
                    made.symbols[name] = (int(low), int(row.expect(r"\d+", "a size")))
                elif row.take(r"input\b"):
                    inputs.append(_declared(row, known))
                elif row.take(r"const\b"):
                    self._constant(row, known)
                elif row.take(r"sizes\b"):
                    value = _declared(row, known)
                    row.expect(r"=\s*\[", "'= ['")
                    value.dims = row.sizes()
                elif row.take(r"output\b"):
                    outputs.append(_read(row, known))
                else:
                    nodes.append(self._node(row, known))
            except (ValueError, KeyError, TypeError) as error:
                number, text = self.rows[self.at - 1]
                raise ModelError(f"line {number} of a graph's text: {error}: {text!r}") from error
        return Graph(made.name, inputs, outputs, nodes, symbols=made.symbols)

    def _next(self) -> _Line:
        if self.at >= len(self.rows):
            raise ModelError("a graph's text ends too early")
        self.at += 1
        return _Line(self.rows[self.at - 1][1])

    def _constant(self, row: _Line, known: dict[str, Value]) -> None:
        value = _declared(row, known)
        row.expect("=", "'='")
        value.data = self._data(row, value.type)

    def _data(self, row: _Line, kind: TensorType) -> np.ndarray:
        if not is_static(kind.shape or ()):
            raise ValueError(f"expected contents of a shape without symbols, found {kind}")
        shape = tuple(evaluate(dim, {}) for dim in kind.shape or ())
        if row.take(r"random\("):
            return _random(kind.dtype, shape, row.items(r"\)"))
        if row.take(r"digest\("):
            digest = row.expect(r"\w+", "a digest")
            row.expect(r"\)", "')'")
            if digest not in self.constants:
                raise ValueError(f"the contents of digest {digest} were not given")
            return self.constants[digest]
        literal = row.literal()
        items = literal if isinstance(literal, tuple) else (literal,)
        if kind.dtype.is_float:
            items = tuple(map(float, items))
        return np.array(items, dtype=kind.dtype.numpy).reshape(shape)

    def _node(self, row: _Line, known: dict[str, Value]) -> Node:
        outputs: list[tuple[str, TensorType] | None] = []
        while not row.take("="):
            if row.take("%"):
                name = row.name()
                untyped = TensorType(DType.F32, None)
                outputs.append((name, row.type() if row.take(":") else untyped))
            else:
                row.expect("_", "a value or '_'")
                outputs.append(None)
            row.take(",")
        op = row.expect(r"[\w.]+(?:::\w+)?", "an operator")
        row.expect(r"\(", "'('")
        inputs: list[Value | None] = []
        while not row.take(r"\)"):
            inputs.append(None if row.take(r"_(?=\s*[,)])") else _read(row, known))
            row.take(",")
        attrs: dict[str, Any] = {}
        while name := row.take(r"\w+(?=\s*=)"):
            row.expect("=", "'='")
            attrs[name] = self._attr(row)
        node_name = row.name() if row.take("@") else next((o[0] for o in outputs if o), op)
        origin: list[str] = []
        if row.take("<-"):
            while row.text[row.at :].strip():
                origin.append(row.name())
        else:
            origin = [node_name]
        if rest := row.text[row.at :].strip():
            raise ValueError(f"expected the end of the line, found {rest!r}")
        attrs |= self._bodies(_indent(row), known)
        values = [None if o is None else _define(*o, known) for o in outputs]
        return Node(op, inputs, values, attrs, name=node_name, origin=origin)

    def _attr(self, row: _Line) -> Any:
        if not re.compile(r"\s*[a-z]\w*\[").match(row.text, row.at):
            return row.literal()
        kind = row.type()
        row.expect(r"\{", "'{'")
        data = self._data(row, kind)
        row.expect(r"\}", "'}'")
        return data

    def _bodies(self, indent: int, known: dict[str, Value]) -> dict[str, Graph]:
        bodies: dict[str, Graph] = {}
        while self.at < len(self.rows):
            row = _Line(self.rows[self.at][1])
            if _indent(row) <= indent:
                break
            self.at += 1
            name = row.name()
            row.expect("=", "'='")
            bodies[name] = self.graph(known)
        return bodies


def _indent(row: _Line) -> int:
    return len(row.text) - len(row.text.lstrip())


def _declared(row: _Line, known: dict[str, Value]) -> Value:
    row.expect("%", "'%'")
    name = row.name()
    row.expect(":", "':' and a type")
    return _define(name, row.type(), known)


def _define(name: str, kind: TensorType, known: dict[str, Value]) -> Value:
    if name in known:
        raise ValueError(f"the value {name!r} is made twice")
    known[name] = Value(name, kind)
    return known[name]


def _read(row: _Line, known: Mapping[str, Value]) -> Value:
    row.expect("%", "a value")
    name = row.name()
    if name not in known:
        raise ValueError(f"nothing above makes the value {name!r}")
    return known[name]


def _random(dtype: DType, shape: tuple[int, ...], args: list[Any]) -> np.ndarray:
    seed, *bounds = args
    source = np.random.default_rng(int(seed))
    low, high = bounds or (0, 10)
    if dtype is DType.BOOL:
        data: np.ndarray = source.random(shape) < 0.5
    elif dtype.is_integer:
        data = source.integers(int(low), int(high), shape)
    elif bounds:
        data = source.uniform(low, high, shape)
    else:
        data = source.standard_normal(shape)
    return np.asarray(data).astype(dtype.numpy)
