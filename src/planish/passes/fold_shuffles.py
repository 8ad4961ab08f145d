"""Channel shuffles folded into the weights of what reads them.

    a ─┐                                            a[hi] ─┐
    b ─┴ Concat ─ Reshape ─ Transpose ─ Reshape     b[hi] ─┴ Concat ─ Conv(W, columns reordered)
       ─ Slice(hi) ─ Conv(W)              becomes

A convolution of one group reads its channels in any order, if its weights follow. So it gets them
as they lie: as few runs of neighbouring channels of what was computed as there are, side by side. A
depthwise convolution, or a pointwise node, passes the order on to its readers. Shuffle, slice and
concat are then read by nobody.

Not handled: a shuffle that reaches a graph output, a convolution with groups or anything else whose
channels have a fixed order: it stays as it is, and so do those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planish.graph.graph import Graph, Node, Patch, TensorType, Value, constant
from planish.graph.infer import args_of
from planish.ops.slicing import Cut, cuts_of
from planish.passes.match import first_input, ints, is_unary, known_rank, make, origins
from planish.passes.rewrite import Pass
from planish.passes.simplify_concats import concat_axis, make_slice
from planish.passes.view_map import chain_above, map_of

_CHANNELS = 1  # the axis
Source = tuple[Value, int]  # a value and one of its channels


@dataclass(frozen=True)
class _Run:
    """Neighbouring channels of a value."""

    value: Value
    start: int
    count: int


def find(graph: Graph) -> Iterator[Patch]:
    """Convolutions and pointwise nodes behind shuffles that can be folded."""
    folding = _Folding(graph)
    for node in graph.nodes:
        if not graph.holds(node) or not known_rank(*node.inputs, *node.outputs):
            continue
        if not node.inputs or not folding.follows(node):
            continue
        channels, shuffled = folding.channels(first_input(node))
        if shuffled and not _in_order(channels):
            yield _reordered(graph, node, channels)


def _in_order(channels: list[Source]) -> bool:
    """True for all channels of one value in order."""
    value = channels[0][0]
    return channels == [(value, n) for n in range(len(channels))] and (
        value.shape[_CHANNELS] == len(channels)
    )


class _Folding:
    """Where channels come from, and whether their order may change."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._free: dict[Value, bool] = {}
        self._channels: dict[Value, tuple[list[Source], bool]] = {}

    def follows(self, node: Node) -> bool:
        """Whether a node can be rebuilt for another order of its input's channels."""
        if _takes_any_order(node):
            return True
        return (_is_depthwise(node) or is_unary(node)) and self.is_free(node.output)

    def is_free(self, value: Value) -> bool:
        """Whether all readers of a value can follow another order of its channels."""
        if value not in self._free:
            users = self.graph.users(value)
            free = bool(users) and not self.graph.is_output(value)
            self._free[value] = free and all(self._reader_follows(value, u) for u in users)
        return self._free[value]

    def _reader_follows(self, value: Value, node: Node) -> bool:
        if node.inputs.count(value) != 1 or not known_rank(*node.inputs, *node.outputs):
            return False
        if node.op == "Concat" and concat_axis(node) == _CHANNELS:
            return self.is_free(node.output)
        if node.inputs[0] is not value:
            return False
        if _is_selection(node):
            return all(v is None or self.is_free(v) for v in node.outputs)
        shuffled = _shuffle_behind(self.graph, node)
        return self.is_free(shuffled) if shuffled is not None else self.follows(node)

    def channels(self, value: Value) -> tuple[list[Source], bool]:
        """Where each channel of a value comes from, and whether a shuffle lies between."""
        if value not in self._channels:
            self._channels[value] = self._trace(value)
        return self._channels[value]

    def _trace(self, value: Value) -> tuple[list[Source], bool]:
        node = value.producer
        count = value.shape[_CHANNELS] if len(value.shape) > _CHANNELS else 0
        own = [(value, n) for n in range(count if isinstance(count, int) else 0)]
        if node is None or not own or not self.is_free(value) or not known_rank(*node.inputs):
            return own, False
        if node.op == "Concat" and concat_axis(node) == _CHANNELS:
            parts = [self.channels(v) for v in node.inputs if v is not None]
            return [c for part, _ in parts for c in part], any(found for _, found in parts)
        if _is_selection(node):
            chosen, found = self.channels(first_input(node))
            return [chosen[n] for n in _selected(node, value)], found or node.op == "Gather"
        order = _shuffle_above(value)
        if order is not None:
            before, _ = self.channels(first_input(chain_above(value)[-3]))
            return [before[n] for n in order], True
        return own, False


# ---- what rearranges ------------------------------------------------------------------------


def _shuffle_above(value: Value) -> list[int] | None:
    """The order in which a Reshape, Transpose, Reshape puts the channels; None for other chains."""
    nodes = chain_above(value)[-3:]
    if [node.op for node in nodes] != ["Reshape", "Transpose", "Reshape"]:
        return None
    shape = first_input(nodes[0]).shape
    view = map_of(nodes, shape)
    count = shape[_CHANNELS] if len(shape) > 2 else None
    if view is None or not isinstance(count, int) or view.shape != shape:
        return None
    before, after = view.source_axes, view.axes
    if any(a != b for n, (a, b) in enumerate(zip(before, after, strict=True)) if n != _CHANNELS):
        return None
    sizes = [int(str(view.atoms[atom])) for atom in before[_CHANNELS]]
    perm = [before[_CHANNELS].index(atom) for atom in after[_CHANNELS]]
    return [int(n) for n in np.arange(count).reshape(sizes).transpose(perm).reshape(-1)]


def _shuffle_behind(graph: Graph, node: Node) -> Value | None:
    """What a shuffle that starts with a node gives."""
    for _ in range(2):
        user = graph.only_user(node.output) if node.op in ("Reshape", "Transpose") else None
        if user is None:
            return None
        node = user
    return node.output if _shuffle_above(node.output) is not None else None


def _is_selection(node: Node) -> bool:
    """Whether a node picks channels by constant numbers."""
    if node.op == "Split":
        return int(node.attrs.get("axis", 0)) % len(first_input(node).shape) == _CHANNELS
    if node.op == "Gather":
        places = node.input(1)
        axis = int(node.attrs.get("axis", 0)) % len(first_input(node).shape)
        known = places is not None and ints(places) is not None and len(places.shape) == 1
        return known and axis == _CHANNELS
    cuts = cuts_of(args_of(node)) if node.op == "Slice" else None
    if cuts is None or set(cuts) != {_CHANNELS}:
        return False
    cut = cuts[_CHANNELS]
    return isinstance(cut.start, int) and isinstance(cut.count, int)


def _selected(node: Node, value: Value) -> list[int]:
    """The channels that a result of a selecting node consists of."""
    if node.op == "Gather":
        return [
            place % int(str(first_input(node).shape[_CHANNELS]))
            for place in ints(node.inputs[1]) or ()
        ]
    if node.op == "Slice":
        cut = (cuts_of(args_of(node)) or {})[_CHANNELS]
        start, count = int(str(cut.start)), int(str(cut.count))
        return [start + cut.step * n for n in range(count)]
    start = 0
    for part in node.outputs:
        if part is value:
            break
        start += 0 if part is None else int(str(part.shape[_CHANNELS]))
    return list(range(start, start + int(str(value.shape[_CHANNELS]))))


# ---- what follows ---------------------------------------------------------------------------


def _takes_any_order(node: Node) -> bool:
    weight = node.input(1)
    group = int(node.attrs.get("group", 1))
    return node.op == "Conv" and group == 1 and weight is not None and weight.is_const


def _is_depthwise(node: Node) -> bool:
    weight, bias = node.input(1), node.input(2)
    if node.op != "Conv" or weight is None or not weight.is_const:
        return False
    channels = first_input(node).shape[_CHANNELS]
    group = int(node.attrs.get("group", 1))
    return group == channels == weight.shape[0] and (bias is None or bias.is_const)


def _reordered(graph: Graph, node: Node, channels: list[Source]) -> Patch:
    """A node that reads the runs its channels come from; behind it, where needed, the old order."""
    runs, order = _runs(channels)
    source, added = _joined(graph, node, runs)
    inputs: list[Value | None] = [source, *node.inputs[1:]]
    if _takes_any_order(node):
        inputs[1] = _taken(graph, inputs[1], order, 1)
    elif _is_depthwise(node):
        inputs[1] = _taken(graph, inputs[1], order, 0)
        if len(inputs) > 2:
            inputs[2] = _taken(graph, inputs[2], order, 0)
    made = make(graph, node.op, inputs, node.output, node.attrs, sources=[node])
    added.append(made)
    if not _takes_any_order(node):
        back = constant(graph.fresh(f"{node.name}.order"), np.argsort(order))
        attrs = {"axis": _CHANNELS}
        name = f"{node.name}.shuffle"
        added.append(make(graph, "Gather", [made.output, back], node.output, attrs, sources=[node],
                          name=name))  # fmt: skip
    note = f"{node.name} reads its channels in the order in which they were made"
    return Patch(note, (node,), tuple(added), ((node.output, added[-1].output),))


def _taken(graph: Graph, value: Value | None, order: list[int], axis: int) -> Value | None:
    if value is None:
        return None
    data = np.ascontiguousarray(np.take(np.asarray(value.data), order, axis=axis))
    return constant(graph.fresh(value.name), data)


def _runs(channels: list[Source]) -> tuple[list[_Run], list[int]]:
    """Channels as runs of their sources, and where each channel of the runs stood before."""
    number = {value: n for n, value in enumerate(dict.fromkeys(value for value, _ in channels))}
    order = sorted(range(len(channels)), key=lambda n: (number[channels[n][0]], channels[n][1]))
    runs: list[_Run] = []
    for n in order:
        value, channel = channels[n]
        last = runs[-1] if runs else None
        if last is not None and last.value is value and last.start + last.count == channel:
            runs[-1] = _Run(value, last.start, last.count + 1)
        else:
            runs.append(_Run(value, channel, 1))
    return runs, order


def _joined(graph: Graph, node: Node, runs: list[_Run]) -> tuple[Value, list[Node]]:
    added: list[Node] = []
    parts: list[Value | None] = []
    for run in runs:
        if run.count == run.value.shape[_CHANNELS]:
            parts.append(run.value)
            continue
        shape = (run.value.shape[0], run.count, *run.value.shape[2:])
        like = Value(f"{run.value.name}.part", TensorType(run.value.dtype, shape))
        cut = {_CHANNELS: Cut(run.start, 1, run.count)}
        made = make_slice(graph, run.value, cut, like, [node])
        assert made is not None
        made.name = f"{node.name}.part"
        added.append(made)
        parts.append(made.output)
    if len(parts) == 1 and parts[0] is not None:
        return parts[0], added
    x = first_input(node)
    whole = Value(graph.fresh(f"{x.name}.parts"), x.type)
    made = Node("Concat", parts, [whole], {"axis": _CHANNELS}, name=f"{node.name}.parts",
                origin=origins(node))  # fmt: skip
    return whole, [*added, made]


PASS = Pass("fold_shuffles", "shuffles folded", find)
