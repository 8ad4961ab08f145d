"""Cuts a static pixel axis into tiles, and finds which tiles can share code.

Tiles of an axis differ by at most one in length. Two tiles are of one kind when they have the same
length and the same taps of the same pixels lie in the padding:

    pixels    0 1 2 3 | 4 5 6 7 | 8 9 10 11        3 taps, 1 before, 1 after
    kind      left      inner     right
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from planish.base.shapes import Dim
from planish.kernels.cpu.contraction import Contraction, Window


@dataclass(frozen=True)
class Kind:
    """Tiles of one axis that share code.

    Attributes:
        length: Pixels.
        inside: For each tap, the pixels of the tile that it finds inside the input.
        ranges: Half-open ranges of the tiles of this kind.
    """

    length: int
    inside: tuple[tuple[int, ...], ...]
    ranges: tuple[tuple[int, int], ...]

    @property
    def whole(self) -> bool:
        """True when no tap of any pixel lies in the padding."""
        return all(len(pixels) == self.length for pixels in self.inside)


@dataclass(frozen=True)
class Tiling:
    """A static axis in tiles: the first `longer` have `short + 1` pixels, the rest `short`."""

    window: Window
    count: int
    short: int
    longer: int
    kinds: tuple[Kind, ...]


def tile_axis(window: Window, length: int) -> Tiling:
    """Cut an axis of constant extent into tiles of at most `length` pixels, as even as can be."""
    extent = int(str(window.extent))
    count = max(1, -(-extent // length))
    short, longer = divmod(extent, count)
    found: dict[tuple[int, tuple[tuple[int, ...], ...]], list[tuple[int, int]]] = {}
    for tile in range(count):
        start = tile * short + min(tile, longer)
        size = short + (tile < longer)
        ranges = found.setdefault((size, _inside(window, start, size)), [])
        if ranges and ranges[-1][1] == tile:
            ranges[-1] = (ranges[-1][0], tile + 1)
        else:
            ranges.append((tile, tile + 1))
    kinds = tuple(Kind(size, inside, tuple(r)) for (size, inside), r in found.items())
    return Tiling(window, count, short, longer, kinds)


def _inside(window: Window, start: int, length: int) -> tuple[tuple[int, ...], ...]:
    pixels = range(length)
    if not window.padded:
        return (tuple(pixels),) * window.taps
    size = int(str(window.size))
    found = []
    for tap in range(window.taps):
        first = start * window.stride - window.before + tap * window.dilation
        found.append(tuple(p for p in pixels if 0 <= first + p * window.stride < size))
    return tuple(found)


Cut = tuple[int, int]  # half-open range of a step's inputs that exist


@dataclass(frozen=True)
class Segment:
    """Reduction steps that run in one loop: neighbouring taps whose channels follow each other.

    Attributes:
        x: Offset of the first input from the tile's origin, in elements.
        weights: First row of the weights, in steps.
        steps: Number of steps; the input moves by the channels of a step each time.
        pixels: Pixels of the tile that take part.
        times: How often this is done; the weights follow each other.
        again: Distance of the inputs from one time to the next, in elements.
        cuts: For a single step, the inputs of each pixel that exist; () where all do.
    """

    x: Dim
    weights: int
    steps: int
    pixels: tuple[int, ...]
    times: int = 1
    again: Dim = 0
    cuts: tuple[Cut, ...] = ()


def segments(kinds: tuple[Kind, ...], problem: Contraction) -> list[Segment]:
    """The reduction of a tile over the taps of its tiled axes, as few runs as possible.

    Args:
        kinds: The tile along each of the last axes, outermost first; () for one tap alone.
        problem: The layer.
    """
    windows = problem.windows[len(problem.windows) - len(kinds) :]
    parts = _row_parts(kinds, problem) if problem.joined else _tap_parts(kinds, windows, problem)
    stride = problem.product.depth * problem.x_channel
    found: list[Segment] = []
    for part in parts:
        last = found[-1] if found else None
        if (
            last is not None
            and last.pixels == part.pixels
            and not (last.cuts or part.cuts)
            and last.weights + last.steps == part.weights
            and last.x + last.steps * stride == part.x
        ):
            found[-1] = replace(last, steps=last.steps + part.steps)
        else:
            found.append(part)
    return _repeated(found)


def _tap_parts(
    kinds: tuple[Kind, ...], windows: tuple[Window, ...], problem: Contraction
) -> Iterator[Segment]:
    """The whole steps of each tap, and the last one where it is not whole."""
    depth, step = problem.product.depth, problem.x_channel
    whole, rest = divmod(problem.channels, depth)
    for number, (x, pixels) in enumerate(_taps(kinds, windows)):
        row = number * problem.run_steps
        if pixels and whole:
            yield Segment(x, row, whole, pixels)
        if pixels and rest:
            first = problem.first_input(whole)
            cuts = ((0, rest),) * len(pixels) if first == whole * depth else ()
            yield Segment(x + first * step, row + whole, 1, pixels, cuts=cuts)


def _row_parts(kinds: tuple[Kind, ...], problem: Contraction) -> Iterator[Segment]:
    """The steps of each row of taps, which for a pixel at the border may be cut at either end."""
    depth, channels = problem.product.depth, problem.channels
    windows = problem.windows[len(problem.windows) - len(kinds) :]
    kind = kinds[-1]
    spans = []
    for pixel in range(kind.length):
        taps = [tap for tap, pixels in enumerate(kind.inside) if pixel in pixels]
        spans.append((taps[0] * channels, (taps[-1] + 1) * channels) if taps else (0, 0))
    for number, (x, rows) in enumerate(_taps(kinds[:-1], windows[:-1])):
        for step in range(problem.run_steps):
            first = problem.first_input(step)
            pixels, cuts = [], []
            for row, (pixel, (low, high)) in itertools.product(rows, enumerate(spans)):
                cut = (max(low - first, 0), min(high - first, depth))
                if cut[0] < cut[1]:
                    pixels.append(row * kind.length + pixel)
                    cuts.append(cut)
            if pixels:
                uncut = all(cut == (0, depth) for cut in cuts)
                yield Segment(
                    x + first,
                    number * problem.run_steps + step,
                    1,
                    tuple(pixels),
                    cuts=() if uncut else tuple(cuts),
                )


def _repeated(found: list[Segment]) -> list[Segment]:
    """Join runs of like segments at equal distances."""
    joined: list[Segment] = []
    for segment in found:
        last = joined[-1] if joined else None
        if (
            last is not None
            and (last.pixels, last.steps) == (segment.pixels, segment.steps)
            and last.cuts == segment.cuts
            and last.weights + last.times * last.steps == segment.weights
            and last.times * (last.again if last.times > 1 else segment.x - last.x)
            == segment.x - last.x
        ):
            again = last.again if last.times > 1 else segment.x - last.x
            joined[-1] = replace(last, times=last.times + 1, again=again)
        else:
            joined.append(segment)
    return joined


def _taps(
    kinds: tuple[Kind, ...], windows: tuple[Window, ...]
) -> Iterator[tuple[Dim, tuple[int, ...]]]:
    """For each tap, the input's offset and the pixels of the tile, row-major, that it concerns."""
    for taps in itertools.product(*(range(w.taps) for w in windows)):
        x: Dim = 0
        pixels = [0]
        for tap, kind, window in zip(taps, kinds, windows, strict=True):
            x = x + (tap * window.dilation) * window.x
            pixels = [p * kind.length + q for p in pixels for q in kind.inside[tap]]
        yield x, tuple(pixels)
