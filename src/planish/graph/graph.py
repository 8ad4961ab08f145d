"""The graph: SSA values and nodes with ONNX semantics at the one canonical opset.

Nodes stand in topological order. Every node knows which ONNX nodes it came from (`origin`), and the
graph knows what was done to it (`history`): neither can be added later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, Shape

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
        producer: The node that makes it; None for inputs and constants.
        dims: Contents of a small integer tensor as sizes, where they follow from shapes.
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
        remove: Nodes that go. Each of their outputs that is still used must be replaced.
        add: Nodes that come, in topological order. Unnamed ones get a fresh name.
        replace: Old value -> value that its users read from now on. A graph output keeps its name:
            the replacement takes it over.
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


@dataclass
class Graph:
    """Inputs, outputs and nodes in topological order."""

    name: str
    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node]
    history: list[Event] = field(default_factory=list)
    symbols: dict[str, tuple[int, int]] = field(default_factory=dict)  # dim name -> known range

    def __post_init__(self) -> None:
        self._users: dict[Value, list[Node]] = {}
        self._names: set[str] = {value.name for value in self.inputs}
        self._count = 0
        for node in self.nodes:
            self._connect(node)

    # ---- reading --------------------------------------------------------------------------------

    def users(self, value: Value) -> list[Node]:
        """The nodes that read a value, each once, in order of creation."""
        return list(dict.fromkeys(self._users.get(value, ())))

    def only_user(self, value: Value) -> Node | None:
        """The node that alone reads a value which is no graph output; None otherwise."""
        users = self.users(value)
        return users[0] if len(users) == 1 and not self.is_output(value) else None

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
        """A name that no value or node of the graph has."""
        name = hint
        while name in self._names:
            self._count += 1
            name = f"{hint}.{self._count}"
        self._names.add(name)
        return name

    # ---- writing --------------------------------------------------------------------------------

    def apply(self, patch: Patch, step: str) -> None:
        """Carry out a rewrite and note it in the history.

        Args:
            patch: The rewrite.
            step: Name of the pass.
        """
        removed = set(map(id, patch.remove))
        first = min((i for i, n in enumerate(self.nodes) if id(n) in removed), default=None)
        last = max((i for i, n in enumerate(self.nodes) if id(n) in removed), default=None)
        for node in patch.remove:
            self._disconnect(node)
        for node in patch.add:
            node.name = self.fresh(node.name or node.op)
            self._connect(node)
        for old, new in patch.replace:
            self._replace(old, new)
        origins = [o for node in (*patch.remove, *patch.add) for o in node.origin]
        self.history.append(Event(step, patch.note, tuple(dict.fromkeys(origins))))
        at = len(self.nodes) if last is None else last + 1
        self.nodes[at:at] = patch.add
        if first is not None:
            self.nodes = [node for node in self.nodes if id(node) not in removed]
        self._restore_order()

    def _connect(self, node: Node) -> None:
        self._names.add(node.name)
        for value in node.inputs:
            if value is not None:
                self._users.setdefault(value, []).append(node)
                self._names.add(value.name)
        for value in node.outputs:
            if value is not None:
                value.producer = node
                self._names.add(value.name)

    def _disconnect(self, node: Node) -> None:
        for value in node.inputs:
            if value is not None:
                self._users[value] = [user for user in self._users[value] if user is not node]
        for value in node.outputs:
            if value is not None and value.producer is node:
                value.producer = None

    def _replace(self, old: Value, new: Value) -> None:
        for user in self.users(old):
            user.inputs = [new if value is old else value for value in user.inputs]
            self._users.setdefault(new, []).append(user)
        self._users[old] = []
        if self.is_output(old):
            self.outputs = [new if output is old else output for output in self.outputs]
            if new.producer is not None and not any(new is value for value in self.inputs):
                old.name, new.name = new.name, old.name

    def _restore_order(self) -> None:
        """Stable topological sort: a node moves only behind what it reads."""
        placed: set[int] = set()
        ordered: list[Node] = []
        mine = set(map(id, self.nodes))
        for root in self.nodes:
            stack = [(root, False)]
            while stack:
                node, ready = stack.pop()
                if id(node) in placed:
                    continue
                if ready:
                    placed.add(id(node))
                    ordered.append(node)
                    continue
                stack.append((node, True))
                for value in reversed(read_values(node)):
                    maker = value.producer
                    if maker is not None and id(maker) in mine and id(maker) not in placed:
                        stack.append((maker, False))
        self.nodes = ordered


def read_values(node: Node) -> list[Value]:
    """What a node reads, including what the bodies in its attributes read from outside."""
    values = [value for value in node.inputs if value is not None]
    for attr in node.attrs.values():
        if isinstance(attr, Graph):
            own = {id(v) for v in attr.inputs}
            own |= {id(v) for n in attr.nodes for v in n.outputs if v is not None}
            inner = [v for n in attr.nodes for v in read_values(n)] + attr.outputs
            values += [v for v in inner if id(v) not in own and not v.is_const]
    return values
