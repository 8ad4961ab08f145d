"""The order of a graph's nodes: sorted where the file's is not, problems where none is possible."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import AttributeProto, GraphProto, NodeProto


def node_name(node: NodeProto, position: int) -> str:
    """What a node is called in messages: its name, or else what it makes."""
    made = next((name for name in node.output if name), "")
    return node.name or made or f"{node.op_type}_{position}"


def outside_reads(graph: GraphProto) -> set[str]:
    """The names that a body reads from outside of it."""
    made = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    made |= {sparse.values.name for sparse in graph.sparse_initializer}
    made |= {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in reads(node)}
    return (read | {info.name for info in graph.output}) - made - {""}


def reads(node: NodeProto) -> set[str]:
    """The names that a node reads, itself or in its bodies."""
    names = {name for name in node.input if name}
    for attr in node.attribute:
        if attr.type == AttributeProto.GRAPH:
            names |= outside_reads(attr.g)
        for body in attr.graphs:
            names |= outside_reads(body)
    return names


def sorted_nodes(
    nodes: Iterable[NodeProto], known: Iterable[str], problems: list[str]
) -> list[tuple[int, NodeProto]]:
    """Nodes with their positions, each behind what it reads; as in the file where that is sorted.

    Nodes that can never run are left out; why is added to the problems: a name that nothing makes,
    a name made twice, a cycle.
    """
    listed = list(enumerate(nodes))
    read = [reads(node) for _, node in listed]
    maker: dict[str, int] = {}
    ready = set(known)
    for position, node in listed:
        for name in filter(None, node.output):
            if name in maker or name in ready:
                other = f"node {_name(listed, maker[name])}" if name in maker else "the graph"
                problems.append(f"node {node_name(node, position)!r} makes {name!r} again, as "
                                f"{other} does")  # fmt: skip
            maker.setdefault(name, position)
    placed: list[tuple[int, NodeProto]] = []
    waiting: dict[int, set[str]] = {}
    users: dict[str, list[int]] = {}
    for position, _ in listed:
        missing = read[position] - ready
        waiting[position] = missing
        for name in missing:
            users.setdefault(name, []).append(position)
    if _in_order(listed, read, ready):
        return listed
    queue = [position for position, _ in reversed(listed) if not waiting[position]]
    while queue:
        position = queue.pop()
        placed.append(listed[position])
        for name in filter(None, listed[position][1].output):
            for user in users.pop(name, ()):
                waiting[user].discard(name)
                if not waiting[user]:
                    queue.append(user)
    _explain(listed, placed, waiting, maker, problems)
    return placed


def _in_order(listed: list[tuple[int, NodeProto]], read: list[set[str]], ready: set[str]) -> bool:
    seen = set(ready)
    for position, node in listed:
        if not read[position] <= seen:
            return False
        seen.update(node.output)
    return True


def _explain(
    listed: list[tuple[int, NodeProto]],
    placed: list[tuple[int, NodeProto]],
    waiting: dict[int, set[str]],
    maker: dict[str, int],
    problems: list[str],
) -> None:
    """Say why nodes could not be placed: first what nothing makes, and only then cycles."""
    done = {position for position, _ in placed}
    left = [position for position, _ in listed if position not in done]
    unmade = [(p, name) for p in left for name in sorted(waiting[p]) if name not in maker]
    for position, name in unmade:
        problems.append(f"node {_name(listed, position)} reads {name!r}, which nothing makes")
    if left and not unmade:
        names = ", ".join(_name(listed, position) for position in left[:10])
        more = f" and {len(left) - 10} more" if len(left) > 10 else ""
        problems.append(f"nodes form a cycle or wait for one: {names}{more}")


def _name(listed: list[tuple[int, NodeProto]], position: int) -> str:
    return repr(node_name(listed[position][1], position))
