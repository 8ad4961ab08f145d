"""Operands of a workload, and the loops around them brought to their simplest form.

Two loops that every operand walks as if they were one become one; a loop of one pass vanishes. So
equal work has an equal workload, however the model spelled its shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.expr import Const, Expr, Load, Size, Var, loads_of, replace_loads
from planish.base.shapes import Dim
from planish.graph.graph import Value
from planish.kernels.workload import Operand
from planish.lower.storage import Storage

At = tuple[Expr, ...]


@dataclass
class Source:
    """An operand on its way into a workload.

    Attributes:
        storage: Where it lies.
        data: Contents, for a constant; else None.
        const: The kernel may repack it.
    """

    storage: Storage
    data: np.ndarray | None = None
    const: bool = False

    def operand(self) -> Operand:
        """As the workload has it."""
        view = self.storage
        return Operand(view.dtype, view.shape, view.strides, self.const)


class Operands:
    """Numbers what an expression reads. Each value is one operand until views are split off."""

    def __init__(self, place: Callable[[Value], Source]) -> None:
        self._place = place
        self._numbers: dict[int, int] = {}
        self._views: dict[tuple[int, tuple[Dim, ...]], int] = {}
        self.sources: list[Source] = []

    def add(self, source: Source) -> int:
        """A further operand; its number."""
        self.sources.append(source)
        return len(self.sources) - 1

    def load(self, value: Value, at: At) -> Load:
        """An access of a value from outside the layer."""
        if id(value) not in self._numbers:
            self._numbers[id(value)] = self.add(self._place(value))
        return Load(self._numbers[id(value)], at, value.dtype)

    def view(self, number: int, shape: tuple[Dim, ...], strides: tuple[Dim, ...]) -> int:
        """The number of operand `number` seen with other axes; equal views share one."""
        key = (number, (*shape, *strides))
        if key not in self._views:
            old = self.sources[number]
            seen = Storage(old.storage.buffer, shape, strides, old.storage.offset)
            self._views[key] = self.add(Source(seen, old.data, old.const))
        return self._views[key]


@dataclass(frozen=True)
class Loop:
    """A loop of the iteration space."""

    var: str
    extent: Dim


def walk_strides(load: Load, source: Source, loops: Sequence[Loop]) -> tuple[Dim, ...] | None:
    """Elements that an access moves for a step of each loop; None if it is not that simple."""
    strides: dict[str, Dim] = {}
    for where, stride in zip(load.index, source.storage.strides, strict=True):
        match where:
            case Const(value=0):
                continue
            case Var(name=name):
                strides[name] = strides.get(name, 0) + stride
            case _:
                return None
    names = {loop.var for loop in loops}
    if not set(strides) <= names:
        return None
    return tuple(strides.get(loop.var, 0) for loop in loops)


def merge_loops(loops: list[Loop], walks: list[list[Dim]]) -> tuple[list[Loop], list[list[Dim]]]:
    """Merge neighbouring loops that every operand walks as one.

    Args:
        loops: Outermost first.
        walks: For each operand, its stride along each loop.

    Returns:
        Loops and strides after merging; a merged loop keeps the inner loop's variable.
    """
    kept = [n for n, loop in enumerate(loops) if loop.extent != 1]
    loops = [loops[n] for n in kept]
    walks = [[walk[n] for n in kept] for walk in walks]
    n = len(loops) - 2
    while n >= 0:
        inner = loops[n + 1]
        if all(walk[n] == walk[n + 1] * inner.extent for walk in walks):
            loops[n : n + 2] = [Loop(inner.var, loops[n].extent * inner.extent)]
            for walk in walks:
                walk[n : n + 2] = [walk[n + 1]]
        n -= 1
    return loops, walks


def renumber(expr: Expr, numbers: dict[int, int]) -> Expr:
    """An expression with its operands renumbered."""
    return replace_loads(expr, lambda e: Load(numbers[e.tensor], e.index, e.dtype))


def used_sources(
    exprs: Sequence[Expr], sources: list[Source], first: int = 0
) -> tuple[list[Source], dict[int, int]]:
    """The operands that expressions still read, and their new numbers; the first ones stay."""
    used = list(range(first))
    for expr in exprs:
        used += [load.tensor for load in loads_of(expr)]
    order = list(dict.fromkeys(used))
    return [sources[n] for n in order], {old: new for new, old in enumerate(order)}


def loop_index(loop_vars: Sequence[str]) -> At:
    """Variables as an index."""
    return tuple(Var(name) for name in loop_vars)


def size_of(dim: Dim) -> Expr:
    """A size as an expression."""
    return Const(dim, Var("").dtype) if isinstance(dim, int) else Size(dim)
