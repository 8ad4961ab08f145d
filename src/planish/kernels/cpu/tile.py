"""The register tile: pixels × vectors of output channels, held in registers over the reduction.

A step loads the weights' vectors once, broadcasts one input a pixel and does one FMA for each pair;
with integers, some neighbouring inputs and a dot product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.kernels.cpu.pack import Columns
from planish.kernels.cpu.products import Product
from planish.kernels.cpu.tiling import Cut
from planish.targets.ir import Function, Int, Val

_INLINE = 160  # FMAs up to which a short reduction is written out without a loop
LINE = 64  # bytes of a cache line


@dataclass(frozen=True)
class Touch:
    """Cache lines that the end of a tile will read or write.

    Attributes:
        base: Address of the first pixel's first line.
        pixel: Bytes between pixels.
        lines: Lines of a pixel.
        write: They will be written.
    """

    base: Val
    pixel: Int
    lines: int
    write: bool


@dataclass(frozen=True)
class Tile:
    """A tile's shape and how its reduction is written.

    Attributes:
        columns: The vectors of a row.
        pixels: Byte offset of each pixel's input from the tile's first.
        product: What a step does.
        unroll: Steps in the body of a loop.
        ahead: Bytes from the tile's first input to that of the tile whose inputs are fetched into
            the cache meanwhile; 0 for none.
        share: Bytes of the next block of weights that are fetched a step; 0 for none.
        touched: Lines that the end of the tile needs, fetched bit by bit during the reduction.
    """

    columns: Columns
    pixels: tuple[Int, ...]
    product: Product
    unroll: int
    ahead: Int = 0
    share: int = 0
    touched: tuple[Touch, ...] = ()

    @property
    def row(self) -> int:
        """Bytes of the weights of a step."""
        return self.columns.width * self.product.column


@dataclass(frozen=True)
class Cursor:
    """Where a reduction stands.

    Attributes:
        x: Input of a pixel at offset 0.
        weights: Row of the weights.
        following: What to fetch of the next block of weights.
    """

    x: Val
    weights: Val
    following: Val

    def moved(self, f: Function, tile: Tile, x: Int, steps: Int) -> Cursor:
        """Further by `x` bytes of input and `steps` rows of weights."""
        return Cursor(
            f.offset(self.x, x),
            f.offset(self.weights, f.mul(steps, tile.row)),
            f.offset(self.following, f.mul(steps, tile.share)),
        )


def reduce_steps(
    f: Function,
    tile: Tile,
    sums: Sequence[Val],
    at: Cursor,
    steps: int,
    gap: Val,
    active: Sequence[int],
    cuts: Sequence[Cut] = (),
) -> list[Val]:
    """Add a run of reduction steps to the accumulators.

    Args:
        f: Function being written.
        tile: The tile.
        sums: Its accumulators, pixel by pixel.
        at: Where the first step is.
        steps: Number of steps.
        gap: Bytes between neighbouring channels of a pixel.
        active: Pixels that take part.
        cuts: For a single step, which of its inputs each active pixel has; () for all.

    Returns:
        The new accumulators.
    """
    vectors = len(tile.columns.lanes)
    x_step = f.mul(gap, tile.product.depth)
    body = min(steps, tile.unroll) if steps * len(active) * vectors > _INLINE else steps
    whole = steps // body * body
    current = list(sums)

    def run(count: int, start: Cursor) -> None:
        for step in range(count):
            here = start.moved(f, tile, f.mul(x_step, step), step)
            _step(f, tile, current, here, gap, active, cuts or (None,) * len(active))

    if whole == body:
        run(whole, at)
    else:
        slots = [p * vectors + v for p in active for v in range(vectors)]
        with f.loop(0, whole, body, init=[current[s] for s in slots]) as loop:
            for slot, value in zip(slots, loop.carried, strict=True):
                current[slot] = value
            here = at.moved(f, tile, f.mul(loop.index, x_step), loop.index)
            _fetch(f, tile, here, loop.index, body)
            for touch in tile.touched:
                _touch(f, touch, f.udiv(loop.index, body), whole // body, len(tile.pixels))
            run(body, here)
            loop.carry([current[s] for s in slots])
        for slot, value in zip(slots, loop.results, strict=True):
            current[slot] = value
    run(steps - whole, at.moved(f, tile, f.mul(x_step, whole), whole))
    return current


def _step(
    f: Function,
    tile: Tile,
    sums: list[Val],
    at: Cursor,
    gap: Val,
    active: Sequence[int],
    cuts: Sequence[Cut | None],
) -> None:
    columns, product = tile.columns, tile.product
    part = tile.row // product.parts
    loaded = [
        [
            product.load(f, f.offset(at.weights, row + product.word * columns.first(v)), n)
            for row in range(0, tile.row, part)
        ]
        for v, n in enumerate(columns.lanes)
    ]
    for pixel, cut in zip(active, cuts, strict=True):
        x = product.input(f, f.offset(at.x, tile.pixels[pixel]), gap, cut)
        for v, weights in enumerate(loaded):
            slot = pixel * len(loaded) + v
            sums[slot] = product.add(f, x, weights, sums[slot])


def _fetch(f: Function, tile: Tile, at: Cursor, step: Val, body: int) -> None:
    """Fetch what will be read soon, spread over the iterations of the loop.

    Of the next tile's inputs each pixel's line once in a line's worth of steps; of the next block
    of weights as many lines as this iteration's share.
    """
    if tile.ahead != 0:
        turns = max(1, LINE // tile.product.step // body)
        count = -(-len(tile.pixels) // turns)
        distance = tile.pixels[1] if len(tile.pixels) > 1 else 0
        turn = f.urem(f.udiv(step, body), turns)
        first = f.offset(f.offset(at.x, tile.ahead), f.mul(f.mul(turn, count), distance))
        for n in range(count):
            f.prefetch(f.offset(first, f.mul(distance, n)))
    for n in range(-(-tile.share * body // LINE)):
        f.prefetch(f.offset(at.following, n * LINE), 2)


def _touch(f: Function, touch: Touch, turn: Val, turns: int, pixels: int) -> None:
    """Fetch some of the lines, so that all are asked for after two thirds of the loop's turns."""
    total = touch.lines * pixels
    count = -(-3 * total // (2 * turns))
    if turns > 2 * total:
        with f.when(f.icmp("slt", turn, total)):
            _touch_lines(f, touch, turn, 1)
    else:
        _touch_lines(f, touch, f.min(f.mul(turn, count), total - 1), count)


def _touch_lines(f: Function, touch: Touch, first: Val, count: int) -> None:
    for n in range(count):
        number = f.add(first, n)
        place = f.mul(f.udiv(number, touch.lines), touch.pixel)
        column = f.mul(f.urem(number, touch.lines), LINE)
        f.prefetch(f.offset(touch.base, f.add(place, column)), write=touch.write)
