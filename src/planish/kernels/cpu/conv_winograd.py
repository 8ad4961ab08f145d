"""f32 3×3 convolution by Winograd's F(m×m, 3×3), after Lavin and Gray (2015).

The output is cut into tiles of m×m pixels. Each tile's (m+2)² inputs are transformed, lanes along
the channels; at each of the (m+2)² points the tiles of a block times the transformed weights is a
matrix product; its results are transformed back, lanes along the output channels.

"fused": a unit does all of it for a block of tiles. "split": a first phase transforms all inputs
into shared scratch, then units are blocks of tiles times blocks of output channels, so that with
few tiles each worker reads its own part of the weights once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import is_static
from planish.kernels.conv_shape import ConvShape, conv_shape, refuse_shape
from planish.kernels.cpu.epilogue import accumulator_dtype
from planish.kernels.cpu.template import template_kernel
from planish.kernels.cpu.winograd_code import LINE, WinogradShape, WinogradWriter, channel_blocks
from planish.kernels.cpu.winograd_math import transform_filter, transforms
from planish.kernels.kernel import Config, Source
from planish.kernels.workload import Workload, typical
from planish.targets.cpu import CpuTarget


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    del t
    if any(o.dtype is not DType.F32 for o in w.inputs[:2]):
        return "Winograd is f32 only"
    if any(accumulator_dtype(w, n) is not DType.F32 for n in range(len(w.outputs))):
        return "the sums are not f32"
    if not w.inputs[1].const:
        return "the weights are not constant"
    if reason := refuse_shape(w):
        return reason
    s = conv_shape(w)
    if s.kernel != (3, 3) or s.stride != (1, 1) or s.dilation != (1, 1) or s.group != 1:
        return "not a 3×3 kernel of stride 1, dilation 1 and one group"
    if w.inputs[0].strides[1] != 1:
        return "channels are not the contiguous axis"
    if not is_static(o.shape[1] for o in w.outputs):
        return "the output channels are symbolic"
    if s.channels < 8 or s.features < 8:
        return "too few channels to pay for the transforms"
    return None


# (vectors of output channels, tiles) of register tiles, by the number of registers.
_TILES = {
    32: (
        *((4, mr) for mr in (6, 5, 4)),
        *((3, mr) for mr in (8, 7, 6, 5)),
        *((2, mr) for mr in (12, 11, 10, 9, 8, 7)),
        *((1, mr) for mr in (24, 16, 12)),
    ),
    16: (*((2, mr) for mr in (6, 5, 4)), (3, 4), *((1, mr) for mr in (12, 10, 8))),
}
_EACH = 2  # tactics of each tile size and form that are worth timing
_MOST = 10  # tactics in all


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first: for each tile size and form the cheapest."""
    groups: dict[tuple[int, str], list[tuple[float, Config]]] = {}
    for config in _candidates(w, t):
        m, form = int(config[0][1]), str(config[1][1])
        groups.setdefault((m, form), []).append((cost(w, config, t), config))
    chosen = [one for group in groups.values() for one in sorted(group)[:_EACH]]
    for _, config in sorted(chosen)[:_MOST]:
        yield config


def _candidates(w: Workload, t: CpuTarget) -> Iterator[Config]:
    s = conv_shape(w)
    widest = max(-(-typical(o.shape[1]) // t.lanes()) for o in w.outputs)
    for m, form in itertools.product((2, 4, 6), ("fused", "split")):
        if m > 2 and all(typical(out) <= m // 2 for out in s.out):
            continue
        tiles, points = _tiletypical(s, m), (m + 2) ** 2
        for (nv, mr), times in itertools.product(_TILES[t.registers], (1, 2, 4, 8)):
            width, count = min(nv, widest), mr * times
            row = width * t.vector_bytes + (s.channels * 4 + LINE if form == "fused" else 0)
            fits = points * row * count <= t.l2 * 3 // 4 or times == 1
            if width == nv and fits and (times == 1 or count < tiles + mr):
                yield (("m", m), ("form", form), ("tiles", count), ("mr", mr), ("nv", nv))


def _tiletypical(s: ConvShape, m: int) -> int:
    """Tiles of the whole output; a symbolic batch counts as one."""
    count = typical(s.batch)
    for out in s.out:
        count *= -(-typical(out) // m)
    return max(1, count)


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds at 3 GHz: products, transforms, reading weights, waiting for the last."""
    s, values, lanes = conv_shape(w), dict(c), t.lanes()
    m, nv, mr, count = (int(values[name]) for name in ("m", "nv", "mr", "tiles"))
    points, tiles = (m + 2) ** 2, _tiletypical(s, m)
    blocks, last = divmod(tiles, count)
    rows = blocks * count + -(-last // mr) * mr
    blocks += last > 0
    vectors = [-(-typical(o.shape[1]) // lanes) for o in w.outputs]
    outs, passes = sum(vectors), sum(-(-v // nv) for v in vectors)
    step = max(mr * nv, mr + nv + 1) / (mr * nv)
    products = points * rows * outs * (s.channels * step + 2 + 12 / (mr * nv))
    moved = tiles * points * (6 * -(-s.channels // lanes) + 4 * outs)
    weights = points * s.channels * outs * lanes * 4
    own = points * count * (s.channels * 4 + LINE + nv * t.vector_bytes)
    crowded = 1.0 if own < t.l2 * 2 // 5 else 1.07
    rate = 0.003 if weights + own < t.l2 * 4 // 5 else 0.01 if weights < t.l3 // 2 else 0.1
    units = blocks if values["form"] == "fused" else blocks * passes
    balance = -(-units // t.threads) * t.threads / units
    cycles = ((products + moved) * crowded + weights * (0.05 + rate * blocks)) * balance
    return (cycles / max(1, t.threads) + 3000 * (values["form"] == "split")) / 3e9


def pack(w: Workload, c: Config, t: CpuTarget, array: np.ndarray) -> np.ndarray:
    """Weights as U[block][point][c][o], the blocks one after the other."""
    values, lanes = dict(c), t.lanes()
    points = transform_filter(transforms(int(values["m"])), array)
    points = points.reshape(-1, *points.shape[2:])
    parts = []
    for block in channel_blocks(w, int(values["nv"]), lanes):
        part = points[:, :, block.feature : block.feature + block.used]
        parts.append(np.pad(part, [(0, 0), (0, 0), (0, block.vectors * lanes - block.used)]))
    return np.concatenate([part.ravel() for part in parts])


def growth(w: Workload, c: Config) -> float:
    """The (m+2)² numbers of a transformed 3×3 filter over its nine."""
    del w
    return (int(dict(c)["m"]) + 2) ** 2 / 9


def write(w: Workload, c: Config, t: CpuTarget, symbol: str) -> Source:
    """Pure: the same arguments give the same text."""
    values = dict(c)
    shape = WinogradShape(
        m=int(values["m"]),
        fused=values["form"] == "fused",
        tiles=int(values["tiles"]),
        mr=int(values["mr"]),
        nv=int(values["nv"]),
    )
    return WinogradWriter(w, shape, t, symbol).source()


KERNEL = template_kernel(
    "cpu.conv_f32.winograd",
    "conv",
    refuse=refuse,
    configs=configs,
    write=write,
    pack=pack,
    cost=cost,
    growth=growth,
)
