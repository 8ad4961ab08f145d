"""Convolution and transposed convolution of any type, rank, grouping and layout, at modest speed.

Each phase of a transposed convolution's output is a dense convolution over some of the taps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.base.shapes import Dim
from planish.kernels.cpu.conv_lines import LineShape, LineWriter, lanes_for, refuse_lines
from planish.kernels.cpu.template import template_kernel
from planish.kernels.cpu.tile_epilogue import weight_of
from planish.kernels.kernel import Config, Configs, Kernel, Source
from planish.kernels.workload import Workload, typical
from planish.targets.cpu import CpuTarget


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why these kernels cannot run `w` on `t`; None when they can."""
    del t
    return refuse_lines(w)


def _wide(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """A tile whose accumulators fit the registers: wide before tall."""
    group = int(str(w.attr("group")))
    counts = [int(str(o.shape[1])) for o in w.outputs]
    widest = max(counts) if group == 1 else sum(counts) // group
    room = 24 if t.registers >= 32 else 12
    nv = min(-(-widest // lanes_for(w, t)), 4 if t.registers >= 32 else 2)
    yield (("mr", max(1, min(room // nv, 12))), ("nv", nv))


def _wide_and_tall(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """That tile, and one half as wide and twice as tall."""
    for config in _wide(w, t):
        yield config
        shape = _shape(config)
        if shape.nv > 1:
            yield (("mr", min(2 * shape.mr, 12)), ("nv", -(-shape.nv // 2)))


def _shape(c: Config) -> LineShape:
    values = dict(c)
    return LineShape(int(values["mr"]), int(values["nv"]))


def write(w: Workload, c: Config, t: CpuTarget, symbol: str) -> Source:
    """Pure: the same arguments give the same text."""
    return LineWriter(w, _shape(c), t, symbol).source()


def pack(w: Workload, c: Config, t: CpuTarget, array: np.ndarray) -> np.ndarray:
    """The weights in blocks."""
    return LineWriter(w, _shape(c), t, "").pack(array)


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds: a multiply-add takes two cycles, less full lanes more of them."""
    work = float(_count(w.inputs[1].shape))
    out = w.outputs[0].shape
    inputs = w.inputs[0].shape if w.op == "conv_transpose" else out
    work *= _count((inputs[0], *inputs[2:]))
    width = lanes_for(w, t) * _shape(c).nv
    waste = -(-_count(out[1:2]) // width) * width / max(1, _count(out[1:2]))
    ends = _count(out) * (2 + max(map(weight_of, w.epilogue), default=0) / 2)
    cycles = (work * 2 + ends) * waste / lanes_for(w, t)
    return cycles / 3e9 / max(1, t.threads)


def _count(dims: tuple[Dim, ...]) -> int:
    total = 1
    for dim in dims:
        total *= typical(dim)
    return total


def _kernel(name: str, op: str, configs: Configs) -> Kernel:
    return template_kernel(
        name, op, refuse=refuse, configs=configs, write=write, pack=pack, cost=cost
    )


CONV_PLAIN = _kernel("cpu.conv.plain", "conv", _wide)
CONV_TRANSPOSE = _kernel("cpu.conv_transpose.lines", "conv_transpose", _wide_and_tall)
