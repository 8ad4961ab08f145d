"""Transposed convolution: each phase of the output is a dense convolution over some of the taps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planish.kernels.cpu import conv_plain
from planish.kernels.cpu.conv_lines import LineShape, LineWriter, refuse_lines
from planish.kernels.cpu.pack import lay_out
from planish.kernels.kernel import Config, Kernel, Source, symbol_for
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget

NAME = "cpu.conv_transpose.lines"


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    del t
    return refuse_lines(w)


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    wide = conv_plain.line_config(w, t)
    yield wide
    values = dict(wide)
    mr, nv = int(values["mr"]), int(values["nv"])
    if nv > 1:
        yield (("mr", min(2 * mr, 12)), ("nv", -(-nv // 2)))


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


KERNEL = Kernel(NAME, "conv_transpose", refuse, configs, emit, pack, conv_plain.cost)
