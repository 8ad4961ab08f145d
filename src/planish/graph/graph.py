"""The graph: SSA values and nodes with ONNX semantics at the one canonical opset.

Nodes stand in topological order. Every node knows which ONNX nodes it came from (`origin`), and the
graph knows what was done to it (`history`): neither can be added later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, Shape, symbols_of
from planish.ops.op import is_unknown

Attrs = dict[str, Any]  # int, float, str, tuples of them, numpy arrays, Graph for bodies


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a value; `shape` is None where even the rank is unknown."""

    dtype: DType
    shape: Shape | None

    def __str__(self) -> str:
        shape = "*" if self.shape is None else ",".join(map(str, self.shape))
        return f"{self.dtype}[{shape}]"


class Value:
    """A tensor of the graph. Compared by identity; `name` is unique in its graph.

    Attributes:
        name: Unique name; graph inputs and outputs keep the model's names.
        type: Element type and shape.
        data: The contents, for a constant; else None. Never written to.
        producer: The node that makes it; None for inputs, constants and sizes.
        dims: Contents of a small tensor of whole numbers as sizes, where they follow from shapes.
    """

    __slots__ = ("_digest", "data", "dims", "name", "producer", "type")

    def __init__(self, name: str, type: TensorType, data: np.ndarray | None = None) -> None:
        self.name = name
        self.type = type
        self.data = data
        self.producer: Node | None = None
        self.dims: tuple[Dim, ...] | None = None
        self._digest: str | None = None

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        """Shape; only for values of known rank.

        Raises:
            ValueError: The rank is unknown.
        """
        if self.type.shape is None:
            raise ValueError(f"the rank of {self.name!r} is not known")
        return self.type.shape

    @property
    def is_const(self) -> bool:
        """True when the contents are known."""
        return self.data is not None

    @property
    def is_sizes(self) -> bool:
        """True for contents that are known sizes, some symbolic, and that no node makes."""
        return self.data is None and self.producer is None and self.dims is not None

    @property
    def digest(self) -> str:
        """Hash of a constant's dtype, shape and bytes, for merging equal ones."""
        if self._digest is None:
            array = np.ascontiguousarray(self.data)
            raw = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
            text = f"{array.dtype}{array.shape}".encode()
            self._digest = hashlib.sha256(text + raw).hexdigest()[:16]
        return self._digest

    def __repr__(self) -> str:
        return f"%{self.name}:{self.type}"


def constant(name: str, data: np.ndarray) -> Value:
    """A constant value with the type of its array."""
    return Value(name, TensorType(DType.from_numpy(data.dtype), tuple(data.shape)), data)


def told_sizes(node: Node) -> set[str]:
    """The data-dependent sizes that running a node tells: its results have them, no operand has."""
    told = {name for value in node.outputs for name in unknown_sizes(value)}
    return told - {name for value in node.inputs for name in unknown_sizes(value)} if told else told


def unknown_sizes(value: Value | None) -> list[str]:
    """The data-dependent sizes in a value's shape and contents."""
    if value is None:
        return []
    dims = (*(value.type.shape or ()), *(value.dims or ()))
    return [name for dim in dims for name in symbols_of(dim) if is_unknown(name)]


def known_sizes(name: str, dims: Sequence[Dim], like: TensorType | None = None) -> Value:
    """Sizes that no node computes: for operands that only say how large a result is.

    Args:
        name: Name of the value.
        dims: The sizes.
        like: Type of the value; None: a list of i64.
    """
    value = Value(name, like or TensorType(DType.I64, (len(dims),)))
    value.dims = tuple(dims)
    return value


class Node:
    """An operator application.

    Attributes:
        name: Unique in its graph; the ONNX name where there was one.
        op: ONNX operator name; other domains are written "domain::Op".
        inputs: Values; None for an optional input left out.
        outputs: Values this node makes; an optional output nobody wants is None.
        attrs: Attributes, defaults of the canonical opset filled in by the importer only where the
            operator's meaning needs them.
        origin: Names of the ONNX nodes it came from.
    """

    __slots__ = ("attrs", "inputs", "name", "op", "origin", "outputs")

    def __init__(
        self,
        op: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[Value | None],
        attrs: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        origin: Iterable[str] = (),
    ) -> None:
        self.op = op
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.attrs: Attrs = dict(attrs or {})
        self.name = name
        self.origin = tuple(dict.fromkeys(origin))

    @property
    def output(self) -> Value:
        """The only, or first, output."""
        first = self.outputs[0]
        if first is None:
            raise ValueError(f"node {self.name!r} has no first output")
        return first

    def input(self, position: int) -> Value | None:
        """The input at a position, None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def __repr__(self) -> str:
        return f"{self.op}({self.name})"


@dataclass(frozen=True)
class Patch:
    """One rewrite, as a value: applied as a whole or not at all.

    Attributes:
        note: What it does, for the history and for `explain`, e.g. "bn1 folded into conv1".
        remove: Nodes that go. Each of their outputs that is still used must be replaced. What
            nobody but them reads goes too, and need not be listed.
        add: Nodes that come, in topological order. Unnamed ones get a fresh name.
        replace: Old value -> value with the same contents that its users read from now on. What
            `add` makes for it takes over its name, and a graph output keeps its name in any case.
    """

    note: str
    remove: tuple[Node, ...] = ()
    add: tuple[Node, ...] = ()
    replace: tuple[tuple[Value, Value], ...] = ()


@dataclass(frozen=True)
class Event:
    """A line of the history: which pass did what to which ONNX nodes."""

    step: str
    note: str
    origin: tuple[str, ...]


class Graph:
    """Inputs, outputs and nodes in topological order.

    Attributes:
        name: For people.
        inputs: Values the caller gives.
        outputs: Values the caller gets.
        history: What was done to the graph, in order.
        symbols: Known ranges of symbolic dims, by name.
        folded: Inputs of the model that are constants here, for it has values for them.
    """

    def __init__(
        self,
        name: str,
        inputs: list[Value],
        outputs: list[Value],
        nodes: list[Node],
        history: list[Event] | None = None,
        symbols: dict[str, tuple[int, int]] | None = None,
        folded: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self.history: list[Event] = [] if history is None else history
        self.symbols: dict[str, tuple[int, int]] = {} if symbols is None else symbols
        self.folded: tuple[str, ...] = tuple(folded)
        self._order: list[Node] = list(nodes)
        self._place: dict[Node, int] = {node: n for n, node in enumerate(nodes)}
        self._after: dict[Node, list[Node]] = {}  # added since the last ordering
        self._ordered = True
        self._users: dict[Value, dict[Node, None]] = {}
        self._names: set[str] = {value.name for value in self.inputs}
        self._node_names: set[str] = {node.name for node in nodes}
        self._hints: dict[str, str] = {}  # name made up here -> the hint it was made from
        self._counts: dict[str, int] = {}
        for node in nodes:
            self._connect(node)

    # ---- reading --------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[Node]:
        """All nodes in topological order. A new list after each change: do not edit it."""
        if not self._ordered:
            self._restore_order()
        return self._order

    def holds(self, node: Node) -> bool:
        """True while a node is part of the graph."""
        return node in self._place

    def users(self, value: Value) -> list[Node]:
        """The nodes that read a value, themselves or in their bodies; each once."""
        return list(self._users.get(value, ()))

    def only_user(self, value: Value) -> Node | None:
        """The node that alone reads a value which is no graph output; None otherwise."""
        users = self._users.get(value, {})
        return next(iter(users)) if len(users) == 1 and not self.is_output(value) else None

    def is_output(self, value: Value) -> bool:
        """True for a graph output."""
        return any(value is output for output in self.outputs)

    def values(self) -> Iterator[Value]:
        """Every value once: inputs, then what the nodes read and make."""
        seen: dict[Value, None] = dict.fromkeys(self.inputs)
        for node in self.nodes:
            seen.update(dict.fromkeys(v for v in (*node.inputs, *node.outputs) if v is not None))
        seen.update(dict.fromkeys(self.outputs))
        return iter(seen)

    def fresh(self, hint: str) -> str:
        """A name that no value of the graph has."""
        name = self._unused(hint, self._names)
        self._names.add(name)
        return name

    def _unused(self, hint: str, taken: set[str]) -> str:
        base = self._hints.get(hint, hint)
        name = base
        while name in taken:
            self._counts[base] = self._counts.get(base, 0) + 1
            name = f"{base}.{self._counts[base]}"
            self._hints[name] = base
        return name

    # ---- writing --------------------------------------------------------------------------------

    def apply(self, patch: Patch, step: str) -> None:
        """Carry out a rewrite and note it in the history.

        Nodes whose results only the removed nodes read go with them.

        Args:
            patch: The rewrite.
            step: Name of the pass.

        Raises:
            ValueError: A graph output would become a graph input or another graph output.
        """
        for old, new in patch.replace:
            if self.is_output(old) and (self.is_output(new) or new in self.inputs):
                raise ValueError(f"graph output {old.name!r} cannot become {new.name!r}")
        anchor = max(patch.remove, key=self._place.__getitem__, default=None)
        for node in patch.remove:
            self._disconnect(node)
        for node in patch.add:
            self._connect(node)
        unnamed = {value for node in patch.add for value in node.outputs if value is not None}
        for old, new in patch.replace:
            if new in unnamed or self.is_output(old) or (new.is_const and not self.users(new)):
                unnamed.discard(new)
                old.name, new.name = new.name, old.name
            self.redirect(old, new)
        if anchor is None:
            self._place.update(dict.fromkeys(patch.add, len(self._order)))
            self._order = [*self._order, *patch.add]
        else:
            self._place.update(dict.fromkeys(patch.add, self._place[anchor]))
            self._after.setdefault(anchor, []).extend(patch.add)
        for node in patch.remove:
            del self._place[node]
        dead = self._drop_dead([v for node in patch.remove for v in read_values(node)])
        for node in patch.add:
            node.name = self._unused(node.name or node.op, self._node_names)
            self._node_names.add(node.name)
        self._ordered = False
        origins = [o for node in (*patch.remove, *dead, *patch.add) for o in node.origin]
        self.history.append(Event(step, patch.note, tuple(dict.fromkeys(origins))))

    def _drop_dead(self, values: list[Value]) -> list[Node]:
        """Remove the makers of values that nobody reads any more, and what only they read."""
        dropped: list[Node] = []
        while values:
            maker = values.pop().producer
            if maker is None or maker not in self._place:
                continue
            made = [value for value in maker.outputs if value is not None]
            if any(self._users.get(value) or self.is_output(value) for value in made):
                continue
            if told_sizes(maker):
                continue  # a pass that knows all types may remove it
            self._disconnect(maker)
            del self._place[maker]
            dropped.append(maker)
            values += read_values(maker)
        return dropped

    def redirect(self, old: Value, new: Value) -> None:
        """Let everything that reads one value, bodies included, read another."""
        for user in self.users(old):
            user.inputs = [new if value is old else value for value in user.inputs]
            for attr in user.attrs.values():
                if isinstance(attr, Graph):
                    attr.redirect(old, new)
            if new in read_values(user):
                self._users.setdefault(new, {})[user] = None
        self._users[old] = {}
        self.outputs = [new if output is old else output for output in self.outputs]

    def reread(self, node: Node, old: Value, new: Value) -> None:
        """Let one node read another value in place of one; others read on what they read."""
        self._users[old].pop(node, None)
        node.inputs = [new if value is old else value for value in node.inputs]
        for read in read_values(node):
            self._users.setdefault(read, {})[node] = None
            self._names.add(read.name)
        self._ordered = False

    def _connect(self, node: Node) -> None:
        for read in read_values(node):
            self._users.setdefault(read, {})[node] = None
            self._names.add(read.name)
        for value in node.outputs:
            if value is not None:
                value.producer = node
                self._names.add(value.name)

    def _disconnect(self, node: Node) -> None:
        self._node_names.discard(node.name)
        for read in read_values(node):
            self._users[read].pop(node, None)
        for value in node.outputs:
            if value is not None and value.producer is node:
                value.producer = None

    def _restore_order(self) -> None:
        """Stable topological sort: a node moves only behind what it reads."""
        listed: list[Node] = []
        stack = list(reversed(self._order))
        while stack:
            node = stack.pop()
            if node in self._place:
                listed.append(node)
            stack.extend(reversed(self._after.pop(node, [])))
        placed: dict[Node, None] = {}
        for root in listed:
            waiting = [(root, False)]
            while waiting:
                node, ready = waiting.pop()
                if node in placed:
                    continue
                if ready:
                    placed[node] = None
                    continue
                waiting.append((node, True))
                for value in reversed(read_values(node)):
                    maker = value.producer
                    if maker is not None and maker in self._place and maker not in placed:
                        waiting.append((maker, False))
        self._order = list(placed)
        self._place = {node: n for n, node in enumerate(self._order)}
        self._after = {}
        self._ordered = True


def read_values(node: Node) -> list[Value]:
    """What a node reads, including what the bodies in its attributes read from outside."""
    values = [value for value in node.inputs if value is not None]
    for attr in node.attrs.values():
        if isinstance(attr, Graph):
            own = set(attr.inputs)
            own |= {v for n in attr.nodes for v in n.outputs if v is not None}
            inner = [v for n in attr.nodes for v in read_values(n)] + attr.outputs
            values += [v for v in inner if v not in own and not v.is_const]
    return values
