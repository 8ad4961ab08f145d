"""3×3 convolution by Winograd's F(m×m, 3×3), after Lavin and Gray (2015), in f32 or in integers.

The output is cut into tiles of m×m pixels. Each tile's (m+2)² inputs are transformed, lanes along
the channels; at each of the (m+2)² points the tiles of a block times the transformed weights is a
matrix product; its results are transformed back, lanes along the output channels.

"fused": a unit does all of it for a block of tiles. "split": a first phase transforms all inputs
into shared scratch, then units are blocks of tiles times blocks of output channels, so that with
few tiles each worker reads its own part of the weights once.

Integer sums are exact (`winograd_numbers`): a quarter of the products, of 16 bits instead of 8.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import is_static
from planish.kernels.conv_shape import ConvShape, conv_shape, refuse_shape
from planish.kernels.cpu.epilogue import accumulator_dtype
from planish.kernels.cpu.operands import refuse_bytes
from planish.kernels.cpu.template import template_kernel
from planish.kernels.cpu.winograd_code import LINE, WinogradShape, WinogradWriter, channel_blocks
from planish.kernels.cpu.winograd_numbers import Numbers, float_numbers, integer_numbers
from planish.kernels.kernel import Config, Kernel, Refuse, Source
from planish.kernels.workload import NARROW_SUMS, Workload, typical
from planish.targets.cpu import CpuTarget


def _refuse_operands(w: Workload) -> str | None:
    """Why shapes or layouts cannot be taken, whatever the type of numbers; None when they can."""
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


def _refuse_floats(w: Workload, t: CpuTarget) -> str | None:
    del t
    if any(o.dtype is not DType.F32 for o in w.inputs[:2]):
        return "an operand is not f32"
    if any(accumulator_dtype(w, n) is not DType.F32 for n in range(len(w.outputs))):
        return "the sums are not f32"
    return _refuse_operands(w)


def _refuse_bytes(w: Workload, t: CpuTarget) -> str | None:
    if reason := refuse_bytes(w) or _refuse_operands(w):
        return reason
    if not t.dot:
        return "the target has no products of 16-bit pairs"
    if w.sum_bits > NARROW_SUMS:
        return f"sums may lie beyond 2 to the {NARROW_SUMS}, which exact transforms need"
    return None


@dataclass(frozen=True)
class _Arithmetic:
    """A type of numbers as this template takes it.

    Attributes:
        refuse: Why a workload cannot be taken on a target.
        numbers: The arithmetic of tiles of m outputs.
        sizes: The values of m.
        depth: Channels of a step of a product.
        growth: Bytes of a transformed weight over those of a stored one.
        step: Cycles of a step of a product, pmaddwd and an addition being one instruction.
        moves: Cycles of a vector of inputs and one of outputs at a point of their transforms.
    """

    refuse: Refuse
    numbers: Callable[[int, Workload, CpuTarget], Numbers]
    sizes: tuple[int, ...]
    depth: int
    growth: int
    step: float
    moves: tuple[int, int]


_FLOATS = _Arithmetic(
    _refuse_floats,
    lambda m, _, t: float_numbers(m, t),
    sizes=(2, 4, 6),
    depth=1,
    growth=1,
    step=1.0,
    moves=(6, 4),
)
_BYTES = _Arithmetic(
    _refuse_bytes,
    lambda m, w, t: integer_numbers(m, w.inputs[0].dtype, t),
    sizes=(4,),
    depth=2,
    growth=2,
    step=1.25,
    moves=(10, 8),
)

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
# Units a worker from which "split", whose inputs take several times the layer's own memory, is not
# offered for bytes: a plan in 8 bits is meant to be small, and there are units enough to share.
_UNITS = 3


def _configs(own: _Arithmetic, w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first: for each tile size and form the cheapest."""
    groups: dict[tuple[int, str], list[tuple[float, Config]]] = {}
    for config in _candidates(own, w, t):
        m, form = int(config[0][1]), str(config[1][1])
        groups.setdefault((m, form), []).append((_cost(own, w, config, t), config))
    chosen = [one for group in groups.values() for one in sorted(group)[:_EACH]]
    for _, config in sorted(chosen)[:_MOST]:
        yield config


def _candidates(own: _Arithmetic, w: Workload, t: CpuTarget) -> Iterator[Config]:
    s = conv_shape(w)
    words = -(-s.channels // own.depth)
    widest = max(-(-typical(o.shape[1]) // t.lanes()) for o in w.outputs)
    for m, form in itertools.product(own.sizes, ("fused", "split")):
        if m > 2 and all(typical(out) <= m // 2 for out in s.out):
            continue
        tiles, points = _tiletypical(s, m), (m + 2) ** 2
        for (nv, mr), times in itertools.product(_TILES[t.registers], (1, 2, 4, 8)):
            width, count = min(nv, widest), mr * times
            row = width * t.vector_bytes + (words * 4 + LINE if form == "fused" else 0)
            fits = points * row * count <= t.l2 * 3 // 4 or times == 1
            if own.depth > 1 and form == "split" and tiles >= _UNITS * t.threads * count:
                continue
            if width == nv and fits and (times == 1 or count < tiles + mr):
                yield (("m", m), ("form", form), ("tiles", count), ("mr", mr), ("nv", nv))


def _tiletypical(s: ConvShape, m: int) -> int:
    """Tiles of the whole output; a symbolic batch counts as one."""
    count = typical(s.batch)
    for out in s.out:
        count *= -(-typical(out) // m)
    return max(1, count)


def _cost(own: _Arithmetic, w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds at 3 GHz: products, transforms, reading weights, waiting for the last."""
    s, values, lanes = conv_shape(w), dict(c), t.lanes()
    m, nv, mr, count = (int(values[name]) for name in ("m", "nv", "mr", "tiles"))
    points, tiles, words = (m + 2) ** 2, _tiletypical(s, m), -(-s.channels // own.depth)
    blocks, last = divmod(tiles, count)
    rows = blocks * count + -(-last // mr) * mr
    blocks += last > 0
    vectors = [-(-typical(o.shape[1]) // lanes) for o in w.outputs]
    outs, passes = sum(vectors), sum(-(-v // nv) for v in vectors)
    step = max(mr * nv, mr + nv + 1) / (mr * nv)
    products = points * rows * outs * (words * step + 2 + 12 / (mr * nv))
    products *= own.step * (2 if own.depth > 1 and t.dot == "pairs" else 1)
    moved = tiles * points * (own.moves[0] * -(-words // lanes) + own.moves[1] * outs)
    weights = points * words * outs * lanes * 4
    scratch = points * count * (words * 4 + LINE + nv * t.vector_bytes)
    crowded = 1.0 if scratch < t.l2 * 2 // 5 else 1.07
    rate = 0.003 if weights + scratch < t.l2 * 4 // 5 else 0.01 if weights < t.l3 // 2 else 0.1
    units = blocks if values["form"] == "fused" else blocks * passes
    balance = -(-units // t.threads) * t.threads / units
    cycles = ((products + moved) * crowded + weights * (0.05 + rate * blocks)) * balance
    return (cycles / max(1, t.threads) + 3000 * (values["form"] == "split")) / 3e9


def _kernel(name: str, own: _Arithmetic) -> Kernel:
    def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
        return _configs(own, w, t)

    def cost(w: Workload, c: Config, t: CpuTarget) -> float:
        return _cost(own, w, c, t)

    def pack(w: Workload, c: Config, t: CpuTarget, array: np.ndarray) -> np.ndarray:
        """Weights as U[block][point][word][o], the blocks one after the other."""
        values, lanes = dict(c), t.lanes()
        points = own.numbers(int(values["m"]), w, t).filter(array)
        parts = []
        for block in channel_blocks(w, int(values["nv"]), lanes):
            part = points[:, :, block.feature : block.feature + block.used]
            missing = block.vectors * lanes - block.used
            parts.append(np.pad(part, [(0, 0), (0, 0), (0, missing), (0, 0)]))
        return np.concatenate([part.ravel() for part in parts])

    def growth(w: Workload, c: Config) -> float:
        """The (m+2)² numbers of a transformed 3×3 filter over its nine."""
        del w
        return own.growth * (int(dict(c)["m"]) + 2) ** 2 / 9

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
        return WinogradWriter(w, shape, own.numbers(shape.m, w, t), t, symbol).source()

    return template_kernel(
        name,
        "conv",
        refuse=own.refuse,
        configs=configs,
        write=write,
        pack=pack,
        cost=cost,
        growth=growth,
    )


FLOATS = _kernel("cpu.conv_f32.winograd", _FLOATS)
BYTES = _kernel("cpu.conv_u8.winograd", _BYTES)
