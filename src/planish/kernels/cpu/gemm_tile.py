"""The register tile of products of run-time matrices: rows × vectors of columns, any element type.

Each step loads the vectors of one row of b, repeats one element of each row of a over the lanes,
and adds their products. a may have any strides; b's columns are neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planish.targets.ir import Function, Int, Val, element_bytes, vector, zero


@dataclass(frozen=True)
class GemmTile:
    """A tile's shape.

    Attributes:
        rows: Byte offset of each row of a from the first.
        vectors: Vectors of columns.
        lanes: Lanes of a vector.
        element: LLVM type of an element.
        mask: Lanes of the last vector that exist; None for all.
        fused: A multiply-add rounds once.
        read: Reads one element of a at an address, in type `element`; None for a plain load.
        product: What is added to an accumulator for an element of a and of b; None for a·b.
    """

    rows: tuple[Int, ...]
    vectors: int
    lanes: int
    element: str = "float"
    mask: Val | None = None
    fused: bool = True
    read: Callable[[Val], Val] | None = None
    product: Callable[[Function, Val, Val], Val] | None = None

    @property
    def ty(self) -> str:
        """The type of an accumulator."""
        return vector(self.element, self.lanes)

    def zeros(self) -> list[Val]:
        """Accumulators at the start, row by row."""
        return [zero(self.ty)] * (len(self.rows) * self.vectors)


def multiply(
    f: Function,
    tile: GemmTile,
    sums: Sequence[Val],
    a: tuple[Val, Int],
    b: tuple[Val, Int],
    steps: Int,
    unroll: int = 2,
) -> list[Val]:
    """Add a run of products to the accumulators.

    Args:
        f: The function being written.
        tile: The tile.
        sums: Its accumulators, row by row.
        a: Address of the first row's first element, bytes between steps.
        b: Address of the first step's first column, bytes between steps.
        steps: Length of the reduction.
        unroll: Steps in the body of the loop.

    Returns:
        The new accumulators.
    """
    whole = f.sub(steps, f.urem(steps, unroll))
    current = _run(f, tile, list(sums), a, b, (Val("i64", "0", 0), whole), unroll)
    if whole.literal is not None and whole.literal == (
        steps if isinstance(steps, int) else steps.literal
    ):
        return current
    end = steps if isinstance(steps, Val) else Val("i64", str(steps), steps)
    return _run(f, tile, current, a, b, (whole, end), 1)


def _run(
    f: Function,
    tile: GemmTile,
    sums: list[Val],
    a: tuple[Val, Int],
    b: tuple[Val, Int],
    bounds: tuple[Val, Val],
    count: int,
) -> list[Val]:
    if bounds[0].literal is not None and bounds[0].literal == bounds[1].literal:
        return sums
    with f.loop(*bounds, count, init=sums) as loop:
        current = list(loop.carried)
        row_a = f.offset(a[0], f.mul(loop.index, a[1]))
        row_b = f.offset(b[0], f.mul(loop.index, b[1]))
        for step in range(count):
            at_a = f.offset(row_a, f.mul(a[1], step))
            at_b = f.offset(row_b, f.mul(b[1], step))
            current = _step(f, tile, current, at_a, at_b)
        loop.carry(current)
    return loop.results


def _step(f: Function, tile: GemmTile, sums: list[Val], a: Val, b: Val) -> list[Val]:
    size = element_bytes(tile.element)
    columns = []
    for v in range(tile.vectors):
        place = f.offset(b, v * tile.lanes * size)
        last = v == tile.vectors - 1 and tile.mask is not None
        columns.append(
            f.masked_load(tile.ty, place, tile.mask)
            if last and tile.mask
            else f.load(tile.ty, place)
        )
    done = []
    for r, offset in enumerate(tile.rows):
        place = f.offset(a, offset)
        scalar = f.splat(tile.read(place) if tile.read else f.load(tile.element, place), tile.lanes)
        for v in range(tile.vectors):
            done.append(_add_product(f, tile, scalar, columns[v], sums[r * tile.vectors + v]))
    return done


def _add_product(f: Function, tile: GemmTile, a: Val, b: Val, total: Val) -> Val:
    if tile.product is None:
        return multiply_add(f, a, b, total, tile.fused)
    return f.add(total, tile.product(f, a, b))


def multiply_add(f: Function, a: Val, b: Val, c: Val, fused: bool) -> Val:
    """a*b + c in the arithmetic of the element type; integers wrap around."""
    if a.element in ("float", "double"):
        return f.fma(a, b, c, fused=fused)
    return f.binary("add", f.binary("mul", a, b), c)
