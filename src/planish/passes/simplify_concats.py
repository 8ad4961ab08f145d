"""Concats and what cuts them: data that was joined only to be cut again, or cut to be joined.

    Concat(Concat(a, b), c)                        becomes   Concat(a, b, c), on the same axis
    Concat(a, b) ─ Slice(within b)                 becomes   b ─ Slice, or b
    Concat(a, b, c) ─ Split(at their borders)      becomes   a, Concat(b, c), …
    x ─ Split ─ Concat(all parts in order)         becomes   x
    x ─ Slice ─ Slice                              becomes   x ─ Slice, on different axes
    Concat(a, nothing)                             becomes   a

Not handled: an inner concat that others read too (both write their results then); slices that reach
over a border; steps other than 1; sizes that are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from planish.base.shapes import Dim
from planish.graph.graph import Graph, Node, Patch, TensorType, Value
from planish.graph.infer import args_of
from planish.ops.slicing import Cut, cuts_of
from planish.passes.match import first_input, indices, known_rank, make, origins
from planish.passes.rewrite import Pass


def find(graph: Graph) -> Iterator[Patch]:
    """Cuts and joins that cancel."""
    for node in graph.nodes:
        rule = _RULES.get(node.op)
        if rule is None or not graph.holds(node) or not known_rank(*node.inputs, *node.outputs):
            continue
        patch = rule(graph, node)
        if patch is not None:
            yield patch


# ---- Concat -------------------------------------------------------------------------------------


def _concat(graph: Graph, node: Node) -> Patch | None:
    return _whole_again(graph, node) or _flattened(graph, node)


def _flattened(graph: Graph, node: Node) -> Patch | None:
    """A concat that takes over the inputs of concats before it, and drops empty ones."""
    axis = concat_axis(node)
    inputs: list[Value | None] = []
    inner: list[Node] = []
    for value in node.inputs:
        assert value is not None
        before = value.producer if graph.only_user(value) is node else None
        if before is not None and _joins(before, axis):
            inner.append(before)
            inputs += before.inputs
        else:
            inputs.append(value)
    kept = [v for v in inputs if v is not None and v.shape[axis] != 0] or inputs[:1]
    if not inner and len(kept) == len(node.inputs):
        return None
    attrs = {"axis": axis}
    made = make(graph, "Concat", kept, node.output, attrs, sources=[*inner, node])
    note = f"{node.name} takes over {', '.join(n.name for n in inner) or 'no empty input'}"
    return Patch(note, (node,), (made,), ((node.output, made.output),))


def _joins(node: Node, axis: int) -> bool:
    return node.op == "Concat" and known_rank(*node.inputs) and concat_axis(node) == axis


def _whole_again(graph: Graph, node: Node) -> Patch | None:
    """A concat of all parts of one split, in order."""
    before = first_input(node).producer
    if before is None or before.op != "Split" or list(node.inputs) != list(before.outputs):
        return None
    source = first_input(before)
    axis = int(before.attrs.get("axis", 0)) % len(source.shape)
    if axis != concat_axis(node) or source.type != node.output.type:
        return None
    if graph.is_output(node.output) and (source.producer is None or graph.is_output(source)):
        return None
    note = f"{node.name} joins what {before.name} cuts"
    return Patch(note, (node,), (), ((node.output, source),))


def concat_axis(node: Node) -> int:
    """The axis of a concat, counted from the front."""
    return int(node.attrs["axis"]) % len(first_input(node).shape)


# ---- Slice --------------------------------------------------------------------------------------


def _slice(graph: Graph, node: Node) -> Patch | None:
    before = first_input(node).producer
    cuts = cuts_of(args_of(node)) if before is not None else None
    if before is None or cuts is None:
        return None
    if before.op == "Slice":
        return _slice_of_slice(graph, before, node, cuts)
    return _slice_of_concat(graph, before, node, cuts) if before.op == "Concat" else None


def _slice_of_slice(graph: Graph, before: Node, node: Node, cuts: dict[int, Cut]) -> Patch | None:
    first = cuts_of(args_of(before))
    if first is None or set(first) & set(cuts) or not known_rank(first_input(before)):
        return None
    made = make_slice(graph, first_input(before), {**first, **cuts}, node.output, [before, node])
    if made is None:
        return None
    note = f"{before.name} and {node.name} joined into one slice"
    return Patch(note, (node,), (made,), ((node.output, made.output),))


def _slice_of_concat(graph: Graph, before: Node, node: Node, cuts: dict[int, Cut]) -> Patch | None:
    if not known_rank(*before.inputs):
        return None
    axis = concat_axis(before)
    cut = cuts.get(axis)
    if cut is None or cut.step != 1:
        return None
    start: Dim = 0
    for value in before.inputs:
        assert value is not None
        inside = cut.start - start
        rest = value.shape[axis] - inside - cut.count
        if isinstance(inside, int) and isinstance(rest, int) and inside >= 0 and rest >= 0:
            return _slice_of_part(graph, before, node, cuts, value, inside)
        start = start + value.shape[axis]
    return None


def _slice_of_part(
    graph: Graph, before: Node, node: Node, cuts: dict[int, Cut], part: Value, inside: int
) -> Patch | None:
    axis = concat_axis(before)
    moved = {**cuts, axis: Cut(inside, 1, cuts[axis].count)}
    note = f"{node.name} reads {part.name} instead of {before.name}"
    if part.type == node.output.type and all(c.start == 0 for c in moved.values()):
        if graph.is_output(node.output) and (part.producer is None or graph.is_output(part)):
            return None
        return Patch(note, (node,), (), ((node.output, part),))
    made = make_slice(graph, part, moved, node.output, [before, node])
    return None if made is None else Patch(note, (node,), (made,), ((node.output, made.output),))


def make_slice(
    graph: Graph, source: Value, cuts: dict[int, Cut], like: Value, nodes: list[Node]
) -> Node | None:
    """A Slice with constant bounds; None where they are not numbers or run backwards."""
    axes = sorted(cuts)
    starts: list[int] = []
    ends: list[int] = []
    for axis in axes:
        cut = cuts[axis]
        if not isinstance(cut.start, int) or cut.step < 1:
            return None
        to_end = cut.step == 1 and cut.start + cut.count == source.shape[axis]
        if not isinstance(cut.count, int) and not to_end:
            return None
        starts.append(cut.start)
        ends.append(cut.start + cut.count * cut.step if isinstance(cut.count, int) else 2**63 - 1)
    hint = nodes[-1].name
    bounds = [
        indices(graph, f"{hint}.starts", starts),
        indices(graph, f"{hint}.ends", ends),
        indices(graph, f"{hint}.axes", axes),
        indices(graph, f"{hint}.steps", [cuts[axis].step for axis in axes]),
    ]
    return make(graph, "Slice", [source, *bounds], like, sources=nodes)


# ---- Split --------------------------------------------------------------------------------------


def _split(graph: Graph, node: Node) -> Patch | None:
    """A split at borders of the concat before it: each part is a run of the concat's inputs."""
    before = first_input(node).producer
    axis = int(node.attrs.get("axis", 0)) % len(first_input(node).shape)
    if before is None or before.op != "Concat" or not known_rank(*before.inputs):
        return None
    if concat_axis(before) != axis or any(v is None for v in node.outputs):
        return None
    rest = [v for v in before.inputs if v is not None]
    added: list[Node] = []
    pairs: list[tuple[Value, Value]] = []
    for part in node.outputs:
        assert part is not None
        taken: list[Value] = []
        total: Dim = 0
        while rest and total != part.shape[axis]:
            taken.append(rest.pop(0))
            total = total + taken[-1].shape[axis]
        if not taken or total != part.shape[axis]:
            return None
        if len(taken) == 1 and not graph.is_output(part):
            pairs.append((part, taken[0]))
            continue
        out = Value(graph.fresh(part.name), TensorType(part.dtype, part.type.shape))
        op, attrs = ("Identity", {}) if len(taken) == 1 else ("Concat", {"axis": axis})
        added.append(Node(op, taken, [out], attrs, name=node.name, origin=origins(before, node)))
        pairs.append((part, out))
    note = f"{node.name} cuts what {before.name} joins"
    return Patch(note, (node,), tuple(added), tuple(pairs))


_RULES: dict[str, Callable[[Graph, Node], Patch | None]] = {
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
}

PASS = Pass("simplify_concats", "no-ops removed", find)
