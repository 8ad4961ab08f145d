"""Which tile shapes are worth timing for a layer, and what each should take.

The estimate counts FMAs tile by tile, with the remainders that there are, and sets against them the
bytes that each level of cache has to deliver. As in all kernels' estimates an FMA takes a cycle of
3 GHz, so that they can be compared; what else a core does is measured in these cycles.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, fields, replace

from planish.kernels.cpu.contraction import Contraction, Window
from planish.kernels.cpu.contraction_code import Shape, tile_pixels
from planish.kernels.cpu.pack import channel_blocks
from planish.kernels.cpu.tile_epilogue import epilogue_of
from planish.kernels.cpu.tiling import Kind, segments
from planish.kernels.kernel import Config
from planish.kernels.workload import typical
from planish.targets.cpu import CpuTarget

# (pixels, vectors) that fit the vector registers with the weights and a broadcast, by the number of
# registers and whether multiply-add is one instruction. One vector alone is kept short on 16
# registers: LLVM then adds into the broadcast's register, and long tiles would spill.
_TILES = {
    (32, True): ((6, 4), (5, 4), (8, 3), (7, 3), (12, 2), (10, 2), (13, 2), (24, 1), (14, 1)),
    (16, True): ((6, 2), (4, 3), (5, 2), (3, 3), (7, 1), (4, 1)),
    (16, False): ((2, 4), (3, 3), (3, 4), (4, 3), (4, 2), (6, 1)),
}
_FEW = ((1, 2), (1, 4), (2, 4), (3, 4), (4, 4))  # for few pixels: as many weights as can be
_SAFE = Shape(mr=4, rows=1, nr=2, strip=1, chunk=1, unroll=1, fetch=0)
_SHORT_ROW = 4  # pixels of a row up to which a tile takes several rows
_LONG = 64  # what a symbolic last axis is taken for in estimates
_BEST, _SECOND = 6, 3  # tiles offered with the best order of the units, and with another one too
_BODY, _UNROLL = 48, 6  # FMAs in the body of a reduction loop; steps, at most
_SOON = 200  # tiles until the next block of weights, for it to be fetched ahead
_UNIT_CYCLES = 3000  # work of a unit that makes its own cost small
_HERTZ = 3e9
_LATENCY = 4  # cycles until an FMA's result can be added to
_L2_BYTES, _L3_BYTES, _MEMORY_BYTES = 24.0, 12.0, 6.0  # a cycle and core
# FMAs a cycle, where it is not two: LLVM CPU and vector bytes.
_FMA_RATE = {("znver4", 64): 1.0}


def shape_of(config: Config) -> Shape:
    """The shape that a config names."""
    return Shape(**{name: int(value) for name, value in config})


def _config_of(shape: Shape) -> Config:
    names = (field.name for field in fields(shape))
    return tuple(zip(names, astuple(shape), strict=True))


def shapes_for(problem: Contraction, target: CpuTarget) -> Iterator[Config]:
    """The configs of a layer, likeliest first; the last is the plainest."""
    found: list[tuple[float, int, Shape]] = []
    for tile in _tiles(problem, target):
        shapes = dict.fromkeys(_orders(problem, target, tile))
        costs = sorted((cost_of(problem, shape, target), astuple(shape)) for shape in shapes)
        found += [(cost, rank, Shape(*values)) for rank, (cost, values) in enumerate(costs)]
    found.sort(key=lambda entry: entry[0])
    best = [shape for _, rank, shape in found if rank == 0][:_BEST]
    second = [shape for _, rank, shape in found if rank == 1][:_SECOND]
    for shape in dict.fromkeys((*best, *second, _SAFE)):
        yield _config_of(shape)


def _tiles(problem: Contraction, target: CpuTarget) -> list[tuple[int, int, int]]:
    """(pixels, rows, vectors) of tiles, evened out for the extents there are."""
    width = _row(problem)
    vectors = max(-(-count // target.lanes()) for count in _runs(problem))
    above = typical(problem.windows[-2].extent) if len(problem.windows) > 1 else 1
    tiles = _TILES[32 if target.registers >= 32 else 16, target.fma]
    if width * above <= _SHORT_ROW:
        tiles = (*_FEW, *tiles)
    found = []
    for mr, nr in tiles:
        if nr == 1 and vectors > 1:
            continue
        static = bool(tile_pixels(problem, _SAFE))
        even, rows = _even(width, mr) if static else mr, 1
        if width <= _SHORT_ROW and static:
            rows = _even(above, max(1, mr // even))
        found.append((even, rows, _even(vectors, nr)))
    return list(dict.fromkeys(found))


def _orders(problem: Contraction, target: CpuTarget, tile: tuple[int, int, int]) -> Iterator[Shape]:
    """A tile with the orders of units that suit it."""
    mr, rows, nr = tile
    for chunk in _chunks(problem, mr * rows, target):
        unroll = max(1, min(_BODY // (mr * rows * nr), _UNROLL))
        shape = Shape(mr, rows, nr, 1, chunk, unroll, 2)
        shape = replace(shape, strip=_strip(problem, target, shape))
        inputs = _fetches_inputs(problem, shape, target)
        weights = _fetches_weights(problem, shape, target)
        yield replace(shape, fetch=inputs * 1 + 2 + weights * 4)


def _even(total: int, most: int) -> int:
    """The largest part when `total` is cut into as few parts of at most `most` as can be."""
    return -(-total // -(-total // most))


def _chunks(problem: Contraction, pixels: int, target: CpuTarget) -> list[int]:
    """All strips for each block of weights; all blocks for each strip; and a mean."""
    total = _pixels(problem)
    strips = -(-total // pixels)
    if strips == 1:
        return [0]
    share = target.l2 // 2 // max(1, pixels * problem.channels * problem.product.x.size)
    middle = max(2, min(share, strips // 2))
    return list(dict.fromkeys((0, 1, middle if strips > 4 else 0)))


def _strip(problem: Contraction, target: CpuTarget, shape: Shape) -> int:
    """Enough tiles in a unit to make its own cost small, if enough units remain to share out."""
    cells = shape.mr * shape.rows * shape.nr
    cycles = max(1, problem.steps * cells // 2)
    tiles = -(-_row(problem) // shape.mr)
    outer = math.prod(typical(w.extent) for w in problem.windows[:-1]) // shape.rows
    blocks = max(1, sum(problem.features) // (shape.nr * target.lanes()))
    enough = max(1, tiles * max(1, outer) * blocks // (16 * target.threads))
    return max(1, min(_UNIT_CYCLES // cycles, tiles, enough))


def _runs(problem: Contraction) -> list[int]:
    """Channels of each run that blocks do not straddle."""
    per_group = sum(problem.features) // problem.group
    return [min(count, per_group) for count in problem.features]


def _fetches_inputs(problem: Contraction, shape: Shape, target: CpuTarget) -> bool:
    """Whether the next tile's inputs should be fetched: read once, and no conflict in the cache."""
    if problem.taps > 1 or problem.x_channel != 1 or shape.rows > 1 or shape.mr == 1:
        return False
    return _lines_of_a_set(problem, shape) * 2 <= _ways(target)


def _fetches_weights(problem: Contraction, shape: Shape, target: CpuTarget) -> bool:
    """Whether the next block's weights should be fetched: far away, and needed soon."""
    column = problem.product.column
    weights = column * problem.steps * sum(problem.features) // problem.group
    tiles = _pixels(problem) // (shape.mr * shape.rows)
    strips = min(tiles, shape.chunk * shape.strip) if shape.chunk else tiles
    return weights > target.l2 // 2 and shape.chunk != 1 and 1 < strips <= _SOON


def _lines_of_a_set(problem: Contraction, shape: Shape) -> int:
    """Lines of a tile's inputs that fall into one set of the first cache, whose way is a page."""
    window = problem.windows[-1]
    step = typical(window.x) * window.stride * problem.product.x.size
    if step < 64:
        return 1
    places = {(pixel * step) // 64 % 64 for pixel in range(shape.mr)}
    return -(-shape.mr // len(places))


def _ways(target: CpuTarget) -> int:
    return max(2, target.l1 // 4096)


# ---- the estimate -------------------------------------------------------------------------------


def cost_of(problem: Contraction, shape: Shape, target: CpuTarget) -> float:
    """Estimated seconds."""
    blocks = channel_blocks(problem, target.lanes(), shape.nr)
    kinds, looped = _kinds(problem, shape)
    outer = 1.0
    for window in problem.windows[: len(problem.windows) - looped]:
        outer *= typical(window.extent) * _inside(window)
    weight = epilogue_of(problem, 0).weight
    cycles = 0.0
    for columns, count in Counter(block.columns for block in blocks).items():
        vectors = len(columns.lanes)
        for kind, times in kinds.items():
            tile = _tile_cycles(problem, shape, target, kind, vectors)
            pixels = math.prod(k.length for k in kind)
            ends = 40 / shape.strip + 25 + pixels * vectors * (2 + weight / 2)
            cycles += count * times * (outer * tile + _whole(problem, looped) * ends)
    units = max(1.0, len(blocks) * _whole(problem, looped) * sum(kinds.values()) / shape.strip)
    share = math.ceil(units / target.threads) / units
    moved = _traffic(problem, shape, target, len(blocks)) * share * _rate(target)
    busy = cycles * share
    return (max(busy, moved) + 0.15 * min(busy, moved)) / _HERTZ


def _rate(target: CpuTarget) -> float:
    """FMAs that the core does in a cycle of its own."""
    return _FMA_RATE.get((target.cpu, target.vector_bytes), 2.0)


def _whole(problem: Contraction, tiled: int) -> float:
    return float(math.prod(typical(w.extent) for w in problem.windows[: -tiled or None]))


def _kinds(problem: Contraction, shape: Shape) -> tuple[Counter[tuple[Kind, ...]], int]:
    """The kinds of tiles with their numbers, and how many axes are tiled."""
    tilings = tile_pixels(problem, shape)
    if not tilings:
        window = problem.windows[-1]
        every = (tuple(range(shape.mr)),) * window.taps
        count = max(1, round(_row(problem) / shape.mr))
        single = Kind(1, ((0,),) * window.taps, ())
        return Counter({(Kind(shape.mr, every, ()),): count, (single,): 1 + shape.mr // 4}), 1
    found: Counter[tuple[Kind, ...]] = Counter({(): 1})
    for tiling in tilings:
        longer: Counter[tuple[Kind, ...]] = Counter()
        for first, count in found.items():
            for kind in tiling.kinds:
                longer[*first, kind] += count * sum(end - begin for begin, end in kind.ranges)
        found = longer
    return found, len(tilings)


def _tile_cycles(
    problem: Contraction,
    shape: Shape,
    target: CpuTarget,
    kinds: tuple[Kind, ...],
    vectors: int,
) -> float:
    """Cycles of the reduction of one tile, all taps of the axes that are not tiled inside."""
    outer = math.prod(w.taps for w in problem.windows[: len(problem.windows) - len(kinds)])
    rate, total = _rate(target), 0.0
    for run in segments(kinds, problem):
        cells = len(run.pixels) * vectors * problem.product.cycles
        step = max(cells, (len(run.pixels) + vectors) / 2 * rate, _LATENCY * rate)
        total += run.times * (run.steps * step + 6)
    pixels = math.prod(kind.length for kind in kinds)
    if pixels * vectors + vectors + 1 > target.registers:
        total *= 1.7
    if _lines_of_a_set(problem, shape) > _ways(target) + 1:
        total *= 1.6
    return total * outer * (1 + pixels / 200)  # each pixel is a stream of its own


def _inside(window: Window) -> float:
    """The part of an axis's taps that lies inside the input."""
    if not window.padded or window.taps == 1:
        return 1.0
    extent, size = typical(window.extent), typical(window.size)
    starts = (o * window.stride - window.before for o in range(extent))
    hits = sum(
        0 <= start + tap * window.dilation < size for start in starts for tap in range(window.taps)
    )
    return hits / max(1, extent * window.taps)


def _traffic(problem: Contraction, shape: Shape, target: CpuTarget, blocks: int) -> float:
    """Cycles that the caches beyond the first need to deliver weights and inputs."""
    pixels = _pixels(problem)
    steps, column = problem.steps, float(problem.product.column)
    weights = column * steps * sum(problem.features) / problem.group
    block = weights / blocks
    sizes = (typical(w.size) / typical(w.extent) for w in problem.windows)
    inputs = float(problem.product.x.size) * pixels * math.prod(sizes) * problem.channels
    tile = shape.mr * shape.rows
    tiles = max(1.0, pixels / tile)
    chunk = tiles if shape.chunk == 0 else min(tiles, float(shape.chunk * shape.strip))
    own = inputs / tiles * chunk
    total = weights / _MEMORY_BYTES
    if chunk > 1:
        inside = block + inputs / tiles < 0.8 * target.l1
        total += 0.0 if inside else (tiles - 1) * weights / _level(block, target)
        total += (tiles / chunk - 1) * weights / _level(weights, target)
        total += blocks * inputs / _level(own + block, target)
    else:
        total += (tiles - 1) * weights / _level(weights, target) + inputs / _L3_BYTES
    stored = float(problem.workload.outputs[0].dtype.size)
    return total + stored * pixels * sum(problem.features) / problem.group / _L3_BYTES


def _level(size: float, target: CpuTarget) -> float:
    """Bytes a cycle of the smallest cache that keeps so many bytes."""
    if size < 0.7 * target.l2:
        return _L2_BYTES
    return _L3_BYTES if size < 0.7 * target.l3 else _MEMORY_BYTES


def _pixels(problem: Contraction) -> int:
    return math.prod(typical(w.extent) for w in problem.windows[:-1]) * _row(problem)


def _row(problem: Contraction) -> int:
    """Pixels along the last axis."""
    extent = problem.windows[-1].extent
    return typical(extent) if isinstance(extent, int) else _LONG
