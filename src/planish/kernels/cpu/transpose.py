"""In-register transposition of square tiles, and weaving of rows."""

from __future__ import annotations

from collections.abc import Sequence

from planish.targets.ir import Function, Val


def transpose(f: Function, rows: Sequence[Val]) -> list[Val]:
    """The columns of as many vectors as each has lanes (a power of two).

    Step s swaps, between vectors i and i + s, the lanes whose bit s differs from the vector's.
    """
    parts = list(rows)
    count = len(parts)
    step = 1
    while step < count:
        low = [lane if not lane & step else count + lane - step for lane in range(count)]
        high = [lane + step if not lane & step else count + lane for lane in range(count)]
        for i in range(count):
            if not i & step:
                a, b = parts[i], parts[i + step]
                parts[i], parts[i + step] = f.shuffle(a, b, low), f.shuffle(a, b, high)
        step *= 2
    return parts


def weave(f: Function, rows: Sequence[Val]) -> Val:
    """One vector of the first lanes of all rows, then the second ones, and so on."""
    lanes, count = rows[0].lanes, len(rows)
    parts = [*rows]
    while len(parts) > 2:
        parts += [parts[-1]] * (len(parts) % 2)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [f.shuffle(a, b, range(2 * a.lanes)) for a, b in pairs]
    return f.shuffle(
        parts[0], parts[1], [row * lanes + lane for lane in range(lanes) for row in range(count)]
    )
