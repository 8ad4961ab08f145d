"""Attention in f32: softmax(q · kᵀ · scale) · v, scores kept in the worker's scratch.

The lanes of a vector are queries, so that scores, their maxima and sums never cross lanes and
neither k nor v is copied: their elements are repeated over the lanes as they lie in memory.

A unit is one block of queries of one batch element.
"""

from __future__ import annotations

from collections.abc import Iterator

from planish.base.dtypes import DType
from planish.base.shapes import Dim, is_static
from planish.kernels.cpu.attention_code import AttentionShape, AttentionWriter
from planish.kernels.cpu.epilogue import accumulator_dtype
from planish.kernels.kernel import Config, Kernel, Source, symbol_for
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget

NAME = "cpu.attention_f32.online"
_MOST_SCORES = 512 << 10  # bytes of scratch that the scores of one block may take


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    q, _, v = w.inputs[:3]
    if any(o.dtype is not DType.F32 for o in w.inputs[:3]):
        return "attention is f32 only"
    if accumulator_dtype(w, 0) is not DType.F32:
        return "the epilogue does not start from f32"
    if not is_static((q.shape[-1], v.shape[-1])):
        return "the width of the heads is symbolic"
    if max(int(str(q.shape[-1])), int(str(v.shape[-1]))) * t.vector_bytes > t.l2 // 4:
        return "the heads are too wide for the scratch"
    return None


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    keys = w.inputs[1].shape[-2]
    queries = w.inputs[0].shape[-2]
    tiles = ((4, 6), (3, 8), (2, 12)) if t.registers >= 32 else ((2, 6), (3, 4), (1, 10))
    vectors = -(-queries // t.lanes()) if isinstance(queries, int) else 1 << 30
    seen = set()
    for nq, mr in tiles:
        nq = min(nq, vectors)
        mr = mr if nq > 1 else max(mr, 12)
        row = nq * t.vector_bytes
        blocks = [max(mr, t.l1 // row // mr * mr)]
        if isinstance(keys, int) and keys * row <= _MOST_SCORES:
            blocks.insert(0, keys)
        for block in blocks:
            if isinstance(keys, int):
                block = min(block, max(keys, 1))
            if (nq, block) not in seen:
                seen.add((nq, block))
                yield (("nq", nq), ("mr", mr), ("keys", block))


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds: FMAs and exponentials of whole tiles at 3 GHz."""
    q, k, v = w.inputs[:3]
    values = dict(c)
    nq, mr = int(values["nq"]), int(values["mr"])
    queries, keys = _guess(q.shape[-2]), _guess(k.shape[-2])
    batch = 1
    for extent in w.outputs[0].shape[:-2]:
        batch *= _guess(extent)
    vectors = -(-queries // t.lanes())
    depth = _guess(q.shape[-1]) + _guess(v.shape[-1])
    step = max(mr * nq, mr + nq + 1) / (mr * nq)
    blocks = -(-keys // int(values["keys"]))
    cycles = batch * vectors * (keys * (depth * step + 20) + 3 * blocks * depth)
    return cycles / 3e9 / max(1, t.threads)


def _guess(dim: Dim) -> int:
    return max(dim, 1) if isinstance(dim, int) else 128


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """Pure: the same arguments give the same text."""
    values = dict(c)
    shape = AttentionShape(int(values["nq"]), int(values["mr"]), int(values["keys"]))
    return AttentionWriter(w, shape, t, symbol_for(NAME, w, c, t)).source()


KERNEL = Kernel(NAME, op="attention", refuse=refuse, configs=configs, emit=emit, cost=cost)
