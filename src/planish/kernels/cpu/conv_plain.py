"""Convolution of any element type, rank, grouping and layout, at modest speed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.base.shapes import Dim
from planish.kernels.cpu.conv_lines import LineShape, LineWriter, lanes_for, refuse_lines
from planish.kernels.cpu.pack import lay_out
from planish.kernels.cpu.tile_epilogue import weight_of
from planish.kernels.kernel import Config, Kernel, Source, symbol_for
from planish.kernels.workload import Workload, typical
from planish.targets.cpu import CpuTarget

NAME = "cpu.conv.plain"


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    del t
    return refuse_lines(w)


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    yield line_config(w, t)


def line_config(w: Workload, t: CpuTarget) -> Config:
    """A tile whose accumulators fit the registers: wide before tall."""
    group = int(str(w.attr("group")))
    counts = [int(str(o.shape[1])) for o in w.outputs]
    widest = max(counts) if group == 1 else sum(counts) // group
    room = 24 if t.registers >= 32 else 12
    nv = min(-(-widest // lanes_for(w, t)), 4 if t.registers >= 32 else 2)
    return (("mr", max(1, min(room // nv, 12))), ("nv", nv))


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """Pure: the same arguments give the same text."""
    return _writer(w, c, t).source()


def _writer(w: Workload, c: Config, t: CpuTarget) -> LineWriter:
    values = dict(c)
    shape = LineShape(int(values["mr"]), int(values["nv"]))
    return LineWriter(w, shape, t, symbol_for(NAME, w, c, t))


def pack(w: Workload, c: Config, t: CpuTarget, number: int, array: np.ndarray) -> np.ndarray:
    """The weights in blocks; other constants as their strides say."""
    if number != 1:
        return lay_out(w.inputs[number], array)
    return _writer(w, c, t).pack(array)


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds: a multiply-add takes two cycles, less full lanes more of them."""
    values = dict(c)
    work = float(_count(w.inputs[1].shape))
    out = w.outputs[0].shape
    inputs = w.inputs[0].shape if w.op == "conv_transpose" else out
    work *= _count((inputs[0], *inputs[2:]))
    width = lanes_for(w, t) * int(values["nv"])
    waste = -(-_count(out[1:2]) // width) * width / max(1, _count(out[1:2]))
    ends = _count(out) * (2 + max(map(weight_of, w.epilogue), default=0) / 2)
    cycles = (work * 2 + ends) * waste / lanes_for(w, t)
    return cycles / 3e9 / max(1, t.threads)


def _count(dims: tuple[Dim, ...]) -> int:
    total = 1
    for dim in dims:
        total *= typical(dim)
    return total


KERNEL = Kernel(NAME, "conv", refuse, configs, emit, pack, cost)
