"""The reduction of a register tile: loops over taps and channels around the steps of the tile.

Taps of the tiled axes are laid out when the code is made, so that those in the padding have no
code; taps of the other axes are loops whose bounds leave out the padding at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.kernels.cpu.contraction import Contraction, Window
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.tile import Cursor, Tile, reduce_steps
from planish.kernels.cpu.tiling import Segment
from planish.targets.ir import Val, i64

_WRITTEN_OUT = 200  # FMAs of repeated taps up to which they are written without a loop


@dataclass(frozen=True)
class Reduction:
    """Reduces one tile.

    Attributes:
        frame: The phase being written.
        problem: The layer.
        tile: The tile.
        runs: The reduction over the tiled axes and the channels.
    """

    frame: Frame
    problem: Contraction
    tile: Tile
    runs: Sequence[Segment]

    def reduce(self, sums: list[Val], at: Cursor, loops: Sequence[tuple[Window, Val]]) -> list[Val]:
        """Add everything to the accumulators.

        Args:
            sums: Accumulators at the start.
            at: First tap and channel of the tile's first pixel.
            loops: The axes whose taps are looped over, and the index of the tile along them.

        Returns:
            Accumulators at the end.
        """
        f, frame = self.frame.f, self.frame
        if not loops:
            for run in self.runs:
                x = f.mul(frame.size(run.x), self.problem.product.x.size)
                sums = self._run(sums, run, at.moved(f, self.tile, x, run.weights))
            return sums
        window, index = loops[0]
        inner = self.problem.steps
        for other in self.problem.windows[: self.problem.windows.index(window) + 1]:
            inner //= other.taps
        low, high = self._tap_range(window, index)
        with f.loop(low, high, init=sums) as loop:
            step = self.problem.product.x.size * window.dilation
            x = f.mul(loop.index, f.mul(frame.size(window.x), step))
            moved = at.moved(f, self.tile, x, f.mul(loop.index, inner))
            loop.carry(self.reduce(loop.carried, moved, loops[1:]))
        return loop.results

    def _run(self, sums: list[Val], run: Segment, at: Cursor) -> list[Val]:
        """One segment of the reduction."""
        f, tile = self.frame.f, self.tile
        again = f.mul(self.frame.size(run.again), self.problem.product.x.size)
        fmas = run.steps * run.times * len(run.pixels) * len(tile.columns.lanes)
        if run.times == 1 or fmas <= _WRITTEN_OUT:
            for time in range(run.times):
                moved = at.moved(f, tile, f.mul(again, time), run.steps * time)
                sums = self._steps(sums, run, moved)
            return sums
        with f.loop(0, run.times, init=sums) as loop:
            moved = at.moved(f, tile, f.mul(loop.index, again), f.mul(loop.index, run.steps))
            loop.carry(self._steps(loop.carried, run, moved))
        return loop.results

    def _steps(self, sums: list[Val], run: Segment, at: Cursor) -> list[Val]:
        f = self.frame.f
        gap = f.mul(self.frame.size(self.problem.x_channel), self.problem.product.x.size)
        return reduce_steps(f, self.tile, sums, at, run.steps, gap, run.pixels, run.cuts)

    def _tap_range(self, window: Window, index: Val) -> tuple[Val, Val]:
        """The taps of a pixel that lie inside the input, half-open."""
        f = self.frame.f
        if not window.padded:
            return i64(0), i64(window.taps)
        first = f.sub(window.before, f.mul(index, window.stride))
        beyond = f.add(first, self.frame.size(window.size))

        def clamp(distance: Val) -> Val:
            positive = f.max(distance, i64(0))
            taps = f.udiv(f.add(positive, window.dilation - 1), window.dilation)
            return f.min(taps, i64(window.taps))

        return clamp(first), clamp(beyond)
