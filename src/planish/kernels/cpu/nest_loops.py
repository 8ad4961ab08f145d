"""Loops that several parts of nest code share: sweeps by vectors, and branches that give values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planish.base.shapes import Dim
from planish.targets.ir import Function, Int, Val, i64


@dataclass(frozen=True)
class Group:
    """Vectors computed at a time: `count` of them, `lanes` apart, the first at `start`."""

    start: Val
    count: int
    lanes: int
    mask: Val | None = None

    def starts(self, f: Function) -> list[Val]:
        """Where each vector starts."""
        return [f.add(self.start, number * self.lanes) for number in range(self.count)]


Carry = Sequence[Val]
Body = Callable[[Group, Carry], Carry]


@dataclass(frozen=True)
class Sweep:
    """How a range is cut into vectors.

    Attributes:
        lanes: Lanes of a vector.
        unroll: Vectors at a time.
        masked: The rest is one masked vector; else it is done value by value.
        halved: A rest without masks is done by vectors of half the lanes, a quarter, and so on.
    """

    lanes: int
    unroll: int
    masked: bool
    halved: bool = False


def sweep(
    f: Function,
    cut: Sweep,
    start: Int,
    stop: Int,
    extent: Dim | None,
    body: Body,
    init: Carry = (),
) -> list[Val]:
    """Run `body` over [start, stop), in order, with carried values.

    Args:
        f: The function.
        cut: How to cut.
        start: Where to begin.
        stop: Where to end; not before `start`.
        extent: A number that `stop - start` equals modulo `lanes * unroll` whenever the range is
            not a whole number of groups; None where nothing is known.
        body: Takes a group and the carried values, gives the new ones.
        init: The carried values at the start.
    """
    lanes, wide = cut.lanes, cut.lanes * cut.unroll
    known = extent if isinstance(extent, int) else None
    length = f.sub(stop, start)
    values = list(init)
    if known is None or known >= wide:
        middle = f.add(start, _whole(f, length, wide))
        values = _run(f, start, middle, lanes, cut.unroll, body, values)
    else:
        middle = start if isinstance(start, Val) else i64(start)
    if cut.unroll > 1 and (known is None or known % wide >= lanes):
        following = f.add(start, _whole(f, length, lanes))
        values = _run(f, middle, following, lanes, 1, body, values)
        middle = following
    if lanes == 1 or (known is not None and known % lanes == 0):
        return values
    if not cut.masked:
        width = lanes // 2 if cut.halved else 1
        while width > 1:
            if known is None or known & width:
                following = f.add(start, _whole(f, length, width))
                values = _run(f, middle, following, width, 1, body, values)
                middle = following
            width //= 2
        return _run(f, middle, stop, 1, 1, body, values)
    rest = f.sub(stop, middle)
    if rest.literal is not None:
        group = Group(middle, 1, lanes, f.first_lanes(lanes, rest))
        return list(body(group, values)) if rest.literal > 0 else values
    return branch(
        f,
        f.icmp("sgt", rest, 0),
        lambda: list(body(Group(middle, 1, lanes, f.first_lanes(lanes, rest)), values)),
        values,
    )


def _whole(f: Function, length: Val, step: int) -> Val:
    """The largest multiple of `step` in a length."""
    if length.literal is not None:
        return i64(length.literal // step * step)
    return f.mul(f.udiv(length, step), step)


def _run(
    f: Function, start: Int, stop: Int, lanes: int, count: int, body: Body, init: Carry
) -> list[Val]:
    first, last = (v if isinstance(v, Val) else i64(v) for v in (start, stop))
    if first.literal is not None and last.literal is not None:
        trips = max(0, last.literal - first.literal) // (lanes * count)
        if trips == 0:
            return list(init)
        if trips == 1:
            return list(body(Group(first, count, lanes), init))
    with f.loop(first, last, lanes * count, init=init) as loop:
        loop.carry(body(Group(loop.index, count, lanes), loop.carried))
    return loop.results


def branch(
    f: Function, condition: Val, body: Callable[[], Sequence[Val]], otherwise: Carry
) -> list[Val]:
    """`body()` where the condition holds, else `otherwise`."""
    yes, done = f.label("then"), f.label("endif")
    before = f.block
    f.branch_if(condition, yes, done)
    f.start(yes)
    made = list(body())
    after = f.block
    f.branch(done)
    f.start(done)
    return [
        f.emit(new.ty, f"phi {new.ty} [{new.ref}, %{after}], [{old.ref}, %{before}]")
        for new, old in zip(made, otherwise, strict=True)
    ]


def either(
    f: Function,
    condition: Val,
    yes_body: Callable[[], Sequence[Val]],
    no_body: Callable[[], Sequence[Val]],
) -> list[Val]:
    """The values of one of two pieces of code."""
    yes, no, done = f.label("then"), f.label("else"), f.label("endif")
    f.branch_if(condition, yes, no)
    ends = []
    for label, body in ((yes, yes_body), (no, no_body)):
        f.start(label)
        ends.append((list(body()), f.block))
        f.branch(done)
    f.start(done)
    (first, a), (second, b) = ends
    return [
        f.emit(x.ty, f"phi {x.ty} [{x.ref}, %{a}], [{y.ref}, %{b}]")
        for x, y in zip(first, second, strict=True)
    ]
