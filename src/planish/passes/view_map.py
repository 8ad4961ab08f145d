"""Chains of Reshape and Transpose as one thing: which parts of which axes stand where.

A map cuts the axes of its source into atoms and lists, for each axis of the result, the atoms that
it is made of. Any chain of reshapes and transposes is a map as long as sizes divide each other:

    [N,12,197,64] ─ Transpose(2,0,1,3) ─ Reshape [197*N,768]         atoms N 12 197 64
                                                                      axes  (197 N) (12 64)

Not handled: cuts across axes whose sizes do not divide each other ([6,4] as [8,3]); empty tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from planish.base.shapes import Dim, Shape, floordiv, product
from planish.graph.graph import Graph, Node, TensorType, Value, constant, known_sizes
from planish.passes.match import origins

RESHAPES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))
VIEWS = RESHAPES | {"Transpose"}

Axes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ViewMap:
    """How a chain of views arranges the elements of its source.

    Attributes:
        source: Shape of the source.
        atoms: Sizes of the atoms in source order, none of them 1.
        axes: For each axis of the result its atoms, outermost first.
    """

    source: Shape
    atoms: Shape
    axes: Axes

    @property
    def shape(self) -> Shape:
        """The result's shape."""
        return tuple(product(self.atoms[a] for a in axis) for axis in self.axes)

    @property
    def source_axes(self) -> Axes:
        """The atoms of each axis of the source."""
        rest = list(range(len(self.atoms)))
        axes: list[tuple[int, ...]] = []
        for dim in self.source:
            taken: list[int] = []
            while product(self.atoms[a] for a in taken) != dim:
                taken.append(rest.pop(0))
            axes.append(tuple(taken))
        return tuple(axes)

    def transpose(self, perm: Iterable[int]) -> ViewMap:
        """The map followed by a transpose."""
        return ViewMap(self.source, self.atoms, tuple(self.axes[axis] for axis in perm))

    def reshape(self, target: Shape) -> ViewMap | None:
        """The map followed by a reshape; None where sizes do not divide each other."""
        sizes = dict(enumerate(self.atoms))
        order = list(sizes)  # of the source
        rest = list(chain.from_iterable(self.axes))
        axes: list[tuple[int, ...]] = []
        for dim in target:
            taken: list[int] = []
            while dim != 1:
                if not rest:
                    return None
                atom = rest[0]
                left, cut = exact(dim, sizes[atom]), exact(sizes[atom], dim)
                if left is not None:
                    taken.append(rest.pop(0))
                    dim = left
                elif cut is not None:
                    inner = len(sizes)
                    sizes[atom], sizes[inner] = dim, cut
                    order.insert(order.index(atom) + 1, inner)
                    taken.append(atom)
                    rest[0] = inner
                    dim = 1
                else:
                    return None
            axes.append(tuple(taken))
        if rest:
            return None
        number = {atom: n for n, atom in enumerate(order)}
        atoms = tuple(sizes[atom] for atom in order)
        return ViewMap(self.source, atoms, tuple(tuple(number[a] for a in axis) for axis in axes))

    def axis_from(self, axis: int) -> int | None:
        """The axis of the source that is this axis of the result, whole and alone."""
        if not self.axes[axis]:
            return None
        return next((n for n, s in enumerate(self.source_axes) if s == self.axes[axis]), None)


def identity(shape: Shape) -> ViewMap | None:
    """The map that changes nothing; None for a shape that is or may be empty."""
    if any(isinstance(dim, int) and dim < 1 for dim in shape):
        return None
    atoms = tuple(dim for dim in shape if dim != 1)
    numbers = iter(range(len(atoms)))
    return ViewMap(shape, atoms, tuple((next(numbers),) if dim != 1 else () for dim in shape))


def exact(a: Dim, b: Dim) -> Dim | None:
    """`a / b` where that is whole for all sizes."""
    if b == 0:
        return None
    quotient = floordiv(a, b)
    return quotient if quotient * b == a else None


def followed_by(before: ViewMap | None, node: Node) -> ViewMap | None:
    """A map followed by a view node."""
    if before is None or node.output.type.shape is None:
        return None
    if node.op == "Transpose":
        perm = node.attrs.get("perm")
        return before.transpose(reversed(range(len(before.axes))) if perm is None else perm)
    return before.reshape(node.output.shape)


def map_of(nodes: Iterable[Node], shape: Shape) -> ViewMap | None:
    """The map of a chain of views that starts at a value of some shape."""
    found = identity(shape)
    for node in nodes:
        found = followed_by(found, node)
    return found


def chain_above(value: Value) -> list[Node]:
    """The views that lead to a value, the first one first; as long as ranks are known."""
    nodes: list[Node] = []
    node = value.producer
    while node is not None and node.op in VIEWS:
        source = node.inputs[0]
        if source is None or source.type.shape is None or node.output.type.shape is None:
            break
        nodes.insert(0, node)
        node = source.producer
    return nodes


def steps_of(view: ViewMap) -> list[tuple[str, Shape]]:
    """The fewest nodes that carry out a map: ("Transpose", perm) and ("Reshape", shape)."""
    shape = view.shape
    flat = list(chain.from_iterable(view.axes))
    if flat == sorted(flat):
        return [] if shape == view.source else [("Reshape", shape)]
    perm = _order(view.axes, view.source_axes)
    if perm is not None:
        turned = tuple(view.source[axis] for axis in perm)
        last = [("Reshape", shape)] if turned != shape else []
        return [("Transpose", tuple(perm)), *last]
    middle = _middle(view.axes, flat)
    mid_shape = tuple(product(view.atoms[a] for a in axis) for axis in middle)
    perm = _order(view.axes, middle)
    assert perm is not None
    turned = tuple(mid_shape[axis] for axis in perm)
    last = [("Reshape", shape)] if turned != shape else []
    return [("Reshape", mid_shape), ("Transpose", tuple(perm)), *last]


def _middle(axes: Axes, flat: list[int]) -> Axes:
    """Runs of atoms to transpose, in source order.

    They are the result's axes where those are runs of the source; else the longest runs that the
    source and the result share.
    """
    if all(list(axis) == list(range(axis[0], axis[0] + len(axis))) for axis in axes if axis):
        ones = tuple(axis for axis in axes if not axis)
        return (*sorted(axis for axis in axes if axis), *ones)
    runs: list[tuple[int, ...]] = []
    for atom in flat:
        if runs and runs[-1][-1] == atom - 1:
            runs[-1] = (*runs[-1], atom)
        else:
            runs.append((atom,))
    return tuple(sorted(runs))


def _order(target: Axes, middle: Axes) -> list[int] | None:
    """The permutation of `middle` that puts the atoms into the target's order; None if none does.

    Axes of size 1 are put where the target has some, as far as they suffice.
    """
    flat = list(chain.from_iterable(target))
    start = {atom: n for n, atom in enumerate(flat)}
    for axis in middle:
        if any(start[b] != start[a] + 1 for a, b in pairwise(axis)):
            return None
    full = sorted((n for n, axis in enumerate(middle) if axis), key=lambda n: start[middle[n][0]])
    ones = [n for n, axis in enumerate(middle) if not axis]
    perm: list[int] = []
    for wanted in target:
        if not wanted and ones:
            perm.append(ones.pop(0))
        reached = len(wanted)
        while reached > 0 and full:
            perm.append(full.pop(0))
            reached -= len(middle[perm[-1]])
    return [*perm, *full, *ones]


def emit(graph: Graph, view: ViewMap, source: Value, hint: str, sources: list[Node]) -> list[Node]:
    """Nodes that carry out a map; [] where it changes nothing."""
    nodes: list[Node] = []
    for op, numbers in steps_of(view):
        if op == "Transpose":
            shape: Shape = tuple(source.shape[int(str(axis))] for axis in numbers)
            inputs: list[Value | None] = [source]
            attrs = {"perm": numbers}
        else:
            shape = numbers
            inputs, attrs = [source, reshape_target(graph, source.shape, shape, hint)], {}
        out = Value(graph.fresh(hint), TensorType(source.dtype, shape))
        name = sources[-1].name
        nodes.append(Node(op, inputs, [out], attrs, name=name, origin=origins(*sources)))
        source = out
    return nodes


def reshape_target(graph: Graph, source: Shape, target: Shape, hint: str) -> Value:
    """The second operand of a Reshape: a constant with 0 (as in the source) and one -1 at most."""
    numbers: list[int] = []
    for axis, dim in enumerate(target):
        if isinstance(dim, int) and dim != 0:
            numbers.append(dim)
        elif axis < len(source) and source[axis] == dim:
            numbers.append(0)
        elif dim != 0 and -1 not in numbers and all(d != 0 for d in target):
            numbers.append(-1)
        else:
            return known_sizes(graph.fresh(f"{hint}.shape"), target)
    return constant(graph.fresh(f"{hint}.shape"), np.array(numbers, dtype=np.int64))
