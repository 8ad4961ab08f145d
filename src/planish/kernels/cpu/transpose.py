"""In-register transposition of square tiles."""

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
