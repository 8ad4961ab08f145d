"""The register tile: pixels × vectors of output channels, held in registers over the reduction.

A step loads the weights' vectors once, broadcasts one input a pixel and does one FMA for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.kernels.cpu.pack import Columns
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Int, Val, vector

_INLINE = 160  # FMAs up to which a short reduction is written out without a loop
_LINE = 16  # f32 elements of a cache line


@dataclass(frozen=True)
class Tile:
    """Accumulators of a tile under construction.

    Attributes:
        columns: The vectors of a row.
        pixels: Byte offset of each pixel's input from the tile's first.
        unroll: Steps in the body of a loop.
        ahead: Bytes from the tile's first input to that of the tile whose inputs are fetched into
            the cache meanwhile; 0 for none.
    """

    columns: Columns
    pixels: tuple[Int, ...]
    unroll: int
    ahead: Int = 0


def reduce_steps(
    f: Function,
    target: CpuTarget,
    tile: Tile,
    sums: Sequence[Val],
    x: Val,
    weights: Val,
    steps: int,
    x_step: Int,
    active: Sequence[int],
) -> list[Val]:
    """Add a run of reduction steps to the accumulators.

    Args:
        f: Function being written.
        target: Says whether a multiply-add is one instruction.
        tile: The tile.
        sums: Its accumulators.
        x: Input of the first step for a pixel at offset 0.
        weights: Row of the first step.
        steps: Number of steps.
        x_step: Bytes between the inputs of neighbouring steps.
        active: Pixels that take part.

    Returns:
        The new accumulators.
    """
    row = tile.columns.width * 4
    fmas = len(active) * len(tile.columns.lanes)
    body = min(steps, tile.unroll) if steps * fmas > _INLINE else steps
    whole = steps // body * body
    current = list(sums)

    def run(count: int, x: Val, weights: Val) -> None:
        for step in range(count):
            _step(f, target, tile, current, f.offset(x, f.mul(x_step, step)),
                  f.offset(weights, row * step), active)  # fmt: skip

    if whole == body:
        run(whole, x, weights)
    else:
        vectors = range(len(tile.columns.lanes))
        slots = [p * len(vectors) + v for p in active for v in vectors]
        with f.loop(0, whole, body, init=[current[s] for s in slots]) as loop:
            for slot, value in zip(slots, loop.carried, strict=True):
                current[slot] = value
            moved = f.offset(x, f.mul(loop.index, x_step))
            if tile.ahead != 0:
                _fetch_ahead(f, tile, moved, loop.index, body)
            run(body, moved, f.offset(weights, f.mul(loop.index, row)))
            loop.carry([current[s] for s in slots])
        for slot, value in zip(slots, loop.results, strict=True):
            current[slot] = value
    run(steps - whole, f.offset(x, f.mul(x_step, whole)), f.offset(weights, row * whole))
    return current


def _step(
    f: Function,
    target: CpuTarget,
    tile: Tile,
    sums: list[Val],
    x: Val,
    weights: Val,
    active: Sequence[int],
) -> None:
    columns = tile.columns
    loaded = [
        f.load(vector("float", n), f.offset(weights, 4 * columns.first(v)))
        for v, n in enumerate(columns.lanes)
    ]
    for pixel in active:
        scalar = f.load("float", f.offset(x, tile.pixels[pixel]))
        for v, n in enumerate(columns.lanes):
            slot = pixel * len(columns.lanes) + v
            sums[slot] = f.fma(f.splat(scalar, n), loaded[v], sums[slot], fused=target.fma)


def _fetch_ahead(f: Function, tile: Tile, x: Val, step: Val, body: int) -> None:
    """Fetch what the next tile reads at the same steps: each pixel once a cache line."""
    turns = max(1, _LINE // body)
    share = -(-len(tile.pixels) // turns)
    distance = tile.pixels[1] if len(tile.pixels) > 1 else 0
    turn = f.urem(f.udiv(step, body), turns)
    first = f.offset(f.offset(x, tile.ahead), f.mul(f.mul(turn, share), distance))
    for n in range(share):
        f.prefetch(f.offset(first, f.mul(distance, n)))
