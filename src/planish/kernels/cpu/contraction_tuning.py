"""Which tile shapes are worth timing for a layer, and what each should take."""

from __future__ import annotations

from collections.abc import Iterator

from planish.base.shapes import product
from planish.kernels.cpu.contraction import Contraction
from planish.kernels.cpu.contraction_code import Shape
from planish.kernels.kernel import Config
from planish.targets.cpu import CpuTarget


def shape_of(config: Config) -> Shape:
    """The shape that a config names."""
    return Shape(**{name: int(value) for name, value in config})


def shapes_for(problem: Contraction, target: CpuTarget) -> Iterator[Config]:
    """The configs of a layer, likeliest first."""
    tiles = ((12, 2), (6, 4), (8, 3)) if target.registers >= 32 else ((6, 2), (4, 3))
    for mr, nr in tiles:
        yield (("mr", mr), ("rows", 1), ("nr", nr), ("strip", 1), ("chunk", 0), ("unroll", 2))


def cost_of(problem: Contraction, shape: Shape, target: CpuTarget) -> float:
    """Estimated seconds."""
    pixels = product(w.extent for w in problem.windows)
    steps = sum(problem.features) * problem.taps * problem.channels
    return float(steps) * (pixels if isinstance(pixels, int) else 1) / 1e11
