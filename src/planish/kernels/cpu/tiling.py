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
from planish.kernels.cpu.contraction import Window


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


@dataclass(frozen=True)
class Segment:
    """Reduction steps that run in one loop: neighbouring taps whose channels follow each other.

    Attributes:
        x: Offset of the first input from the tile's origin, in elements.
        weights: First row of the weights, in steps.
        steps: Number of steps; the input moves by its channel stride each step.
        pixels: Pixels of the tile that take part.
        times: How often this is done; the weights follow each other.
        again: Distance of the inputs from one time to the next, in elements.
    """

    x: Dim
    weights: int
    steps: int
    pixels: tuple[int, ...]
    times: int = 1
    again: Dim = 0


def segments(
    kinds: tuple[Kind, ...], windows: tuple[Window, ...], channels: int, x_channel: Dim
) -> list[Segment]:
    """The reduction of a tile over the taps of its static axes, as few runs as possible.

    Args:
        kinds: The tile along each of its static axes, outermost first.
        windows: Those axes.
        channels: Input channels.
        x_channel: Elements between neighbouring input channels.
    """
    found: list[Segment] = []
    for number, (x, pixels) in enumerate(_taps(kinds, windows)):
        if not pixels:
            continue
        last = found[-1] if found else None
        if (
            last is not None
            and last.pixels == pixels
            and last.weights + last.steps == number * channels
            and last.x + last.steps * x_channel == x
        ):
            found[-1] = Segment(last.x, last.weights, last.steps + channels, pixels)
        else:
            found.append(Segment(x, number * channels, channels, pixels))
    return _repeated(found)


def _repeated(found: list[Segment]) -> list[Segment]:
    """Join runs of like segments at equal distances."""
    joined: list[Segment] = []
    for segment in found:
        last = joined[-1] if joined else None
        if (
            last is not None
            and (last.pixels, last.steps) == (segment.pixels, segment.steps)
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
