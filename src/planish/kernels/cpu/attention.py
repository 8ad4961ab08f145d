"""Attention in f32: softmax(q · kᵀ · scale) · v, scores kept in the worker's scratch.

The lanes of a vector are queries, so that scores, their maxima and sums never cross lanes and
neither k nor v is copied: their elements are repeated over the lanes as they lie in memory.

    q block, turned      Q[d][query]
    scores               P[key][query]   = sum over d of k[key][d] · Q[d][query]
    running maximum      M[query], then P = 2^(P - M), running sum L[query]
    values               O[e][query]    += sum over keys of v[key][e] · P[key][query]
    result, turned back  out[query][e]   = O[e][query] / L[query]

Keys are taken in blocks; when a later block raises the maximum, L and O are scaled down first.
A unit is one block of queries of one batch element.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.shapes import Dim, ceildiv, is_static, product
from planish.kernels.cpu.epilogue import accumulator_dtype, finish, store_for
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.gemm_tile import GemmTile, multiply
from planish.kernels.cpu.panel import Matrix, pack_panel, transpose
from planish.kernels.kernel import Config, Kernel, Phase, Source, symbol_for
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Module, Val, i64, real, vector, zero

# 2^r for r in [-1/2, 1/2], relative error 8e-8.
_EXP2 = (
    1.0000000716543687,
    0.6931469670550352,
    0.24022119724860766,
    0.05550713289385223,
    0.009675541293442759,
    0.0013276466856335016,
)
_SHIFT = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
_LOWEST = -3.4028234663852886e38
_LOG2_E = math.log2(math.e)
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
    return _Writer(w, c, t).source()


@dataclass(frozen=True)
class _Scratch:
    """Byte offsets of the parts of the worker's scratch, for blocks of a number of vectors."""

    query: int
    scores: int
    values: int
    top: int  # running maximum
    total: int  # running sum
    scale: int  # what the newest block scales the earlier ones by
    patch: int  # a square block on its way out
    end: int


class _Writer:
    """Writes the one phase."""

    def __init__(self, w: Workload, c: Config, t: CpuTarget) -> None:
        values = dict(c)
        self.w, self.t = w, t
        self.nq, self.mr, self.block = (int(values[name]) for name in ("nq", "mr", "keys"))
        self.lanes = t.lanes()
        self.ty = vector("float", self.lanes)
        self.q, self.k, self.v, self.out = *w.inputs[:3], w.outputs[0]
        self.queries, self.keys = self.q.shape[-2], self.k.shape[-2]
        self.depth, self.width = int(str(self.q.shape[-1])), int(str(self.v.shape[-1]))
        self.batch = self.out.shape[:-2]
        self.end = store_for(w, t, 0, lane_axis=len(self.batch) + 1)
        self.once = isinstance(self.keys, int) and self.keys <= self.block
        self.symbol = symbol_for(KERNEL.name, w, c, t)
        self.module = Module()
        self.frame = Frame(self.module, self.symbol, w)
        self.f = self.frame.f

    def source(self) -> Source:
        """The whole module."""
        f, frame = self.f, self.frame
        vectors = ceildiv(self.queries, self.lanes)
        blocks = ceildiv(vectors, self.nq)
        extents = (*self.batch, blocks)
        frame.prepare([*extents, vectors])
        with frame.units() as unit:
            *batch, block = frame.split(unit, extents)
            if isinstance(vectors, int):
                self._even_block(batch, block, vectors)
            else:
                first = f.mul(block, self.nq)
                left = f.sub(frame.size(vectors), first)
                with f.when(f.icmp("sge", left, self.nq)):
                    self._queries(batch, f.mul(first, self.lanes), self.nq)
                with f.when(f.icmp("slt", left, self.nq)), f.loop(0, left) as one:
                    self._queries(batch, f.mul(f.add(first, one.index), self.lanes), 1)
        units = product(extents)
        return Source(
            self.module.text(), (Phase(self.symbol, units),), 0, self._layout(self.nq).end
        )

    def _even_block(self, batch: Sequence[Val], block: Val, vectors: int) -> None:
        """A block of queries where their number is known: blocks differ by at most one vector."""
        f = self.f
        count = -(-vectors // self.nq)
        short, longer = divmod(vectors, count)
        first = f.add(f.mul(block, short), f.min(block, longer))
        start = f.mul(first, self.lanes)
        if not longer:
            self._queries(batch, start, short)
            return
        more, fewer, done = f.label("more"), f.label("fewer"), f.label("done")
        f.branch_if(f.icmp("slt", block, longer), more, fewer)
        f.start(more)
        self._queries(batch, start, short + 1)
        f.branch(done)
        f.start(fewer)
        self._queries(batch, start, short)
        f.branch(done)
        f.start(done)

    def _layout(self, nq: int) -> _Scratch:
        row = nq * self.t.vector_bytes
        rows = [
            -(-self.depth // self.lanes) * self.lanes,
            self.block,
            -(-self.width // self.lanes) * self.lanes,
            1,
            1,
            1,
            -(-self.lanes // nq),
        ]
        at = [sum(rows[:n]) * row for n in range(len(rows) + 1)]
        return _Scratch(*at)

    # ---- one block of queries -------------------------------------------------------------------

    def _queries(self, batch: Sequence[Val], first: Val, nq: int) -> None:
        """All of one block of `nq` vectors of queries."""
        f, frame = self.f, self.frame
        task = _Task(self, batch, first, nq)
        task.turn_queries()
        if self.once:
            task.key_block(i64(0), i64(int(str(self.keys))))
        else:
            task.clear()
            keys = frame.size(self.keys)
            with f.loop(0, keys, self.block) as loop:
                left = f.sub(keys, loop.index)
                task.key_block(loop.index, f.min(left, i64(self.block)))
        task.store()


class _Task:
    """The code of one block of queries."""

    def __init__(self, writer: _Writer, batch: Sequence[Val], first: Val, nq: int) -> None:
        self.writer, self.batch, self.first, self.nq = writer, batch, first, nq
        self.w, self.f, self.frame = writer.w, writer.f, writer.frame
        self.lanes, self.ty, self.fused = writer.lanes, writer.ty, writer.t.fma
        self.row = nq * writer.t.vector_bytes
        self.layout = writer._layout(nq)

    def _at(self, part: int, row: Val | int = 0, v: int = 0) -> Val:
        """Address of vector `v` of a row of a part of the scratch."""
        f = self.f
        start = f.offset(self.frame.private, part + v * self.writer.t.vector_bytes)
        return f.offset(start, f.mul(i64(self.row), row))

    def _load(self, part: int, row: Val | int = 0) -> list[Val]:
        return [
            self.f.load(self.ty, self._at(part, row, v), align=self.writer.t.vector_bytes)
            for v in range(self.nq)
        ]

    def _save(self, values: Sequence[Val], part: int, row: Val | int = 0) -> None:
        for v, value in enumerate(values):
            self.f.store(value, self._at(part, row, v), align=self.writer.t.vector_bytes)

    def turn_queries(self) -> None:
        """Q: the block's queries as columns, times the scale."""
        f, frame, q = self.f, self.frame, self.writer.q
        steps = [f.mul(frame.size(s), 4) for s in q.strides[-2:]]
        start = frame.at(frame.inputs[0], q, self.batch)
        depth, queries = i64(self.writer.depth), frame.size(self.writer.queries)
        matrix = Matrix(start, depth, queries, steps[1], steps[0], "float")
        pack_panel(f, matrix, self._at(self.layout.query), self.first, self.nq, self.lanes)
        scale = float(str(self.w.attr("scale")))
        if self.w.mask is None:
            scale *= _LOG2_E
        factor = real(scale, self.ty)
        with f.loop(0, self.writer.depth) as d:
            scaled = [f.fmul(x, factor) for x in self._load(self.layout.query, d.index)]
            self._save(scaled, self.layout.query, d.index)

    def clear(self) -> None:
        """M, L and O before the first block of keys."""
        f = self.f
        self._save([real(_LOWEST, self.ty)] * self.nq, self.layout.top)
        self._save([zero(self.ty)] * self.nq, self.layout.total)
        with f.loop(0, self.writer.width) as e:
            self._save([zero(self.ty)] * self.nq, self.layout.values, e.index)

    def key_block(self, first: Val, count: Val) -> None:
        """Take a block of keys into M, L and O."""
        top = self._scores(self._rows(1, first), first, count)
        self._weights(top, count)
        self._values(self._rows(2, first), count)

    def _rows(self, number: int, first: Val) -> tuple[Val, Val, Val]:
        """A block of keys (operand 1) or values (2): its address, bytes from row to row and along."""
        operand = self.w.inputs[number]
        start = self.frame.at(self.frame.inputs[number], operand, [*self.batch, first])
        step, along = (self.f.mul(self.frame.size(s), 4) for s in operand.strides[-2:])
        return start, step, along

    # ---- scores ---------------------------------------------------------------------------------

    def _scores(self, keys: tuple[Val, Val, Val], first: Val, count: Val) -> list[Val]:
        """P of a block of keys; gives the new M."""
        f = self.f
        mr = self.writer.mr
        old = [real(_LOWEST, self.ty)] * self.nq
        if not self.writer.once:
            old = self._load(self.layout.top)
        whole = f.sub(count, f.urem(count, mr))
        with f.loop(0, whole, mr, init=old) as tile:
            tile.carry(self._score_tile(keys, first, tile.index, mr, tile.carried))
        top = tile.results
        if whole.literal is not None and whole.literal == count.literal:
            return top
        if count.literal is not None and whole.literal is not None:
            return self._score_tile(keys, first, whole, count.literal - whole.literal, top)
        with f.loop(whole, count, init=top) as tile:
            tile.carry(self._score_tile(keys, first, tile.index, 1, tile.carried))
        return tile.results

    def _score_tile(
        self,
        keys: tuple[Val, Val, Val],
        first: Val,
        at: Val,
        rows: int,
        top: Sequence[Val],
    ) -> list[Val]:
        f = self.f
        start, step, along = keys
        offsets = tuple(f.mul(step, r) for r in range(rows))
        tile = GemmTile(offsets, self.nq, self.lanes, fused=self.fused)
        a = (f.offset(start, f.mul(at, step)), along)
        b = (self._at(self.layout.query), i64(self.row))
        sums = multiply(f, tile, tile.zeros(), a, b, self.writer.depth)
        best = list(top)
        for r in range(rows):
            scores = sums[r * self.nq : (r + 1) * self.nq]
            if self.w.mask is not None:
                scores = self._masked(scores, f.add(f.add(first, at), r))
            self._save(scores, self.layout.scores, f.add(at, r))
            best = [f.select(f.fcmp("ogt", s, b), s, b) for s, b in zip(scores, best, strict=True)]
        return best

    def _masked(self, scores: Sequence[Val], key: Val) -> list[Val]:
        """Scores after the mask, in powers of two."""
        f = self.f
        axis = len(self.batch)
        queries = self.frame.size(self.writer.queries)
        made = []
        for v, score in enumerate(scores):
            query = f.add(self.first, v * self.lanes)
            exists = f.first_lanes(self.lanes, f.sub(queries, query))
            index = [*self.batch, query, key]
            assert self.w.mask is not None
            value = finish(
                self.frame, self.writer.t, self.w.mask, score, index, lane_axis=axis, mask=exists
            )
            made.append(f.fmul(value, real(_LOG2_E, self.ty)))
        return made

    # ---- weights --------------------------------------------------------------------------------

    def _weights(self, top: Sequence[Val], count: Val) -> None:
        """P from scores to powers of two; L and M brought up to date."""
        f = self.f
        total = [zero(self.ty)] * self.nq
        if not self.writer.once:
            old = self._load(self.layout.top)
            factor = [self._exp2(f.fsub(o, n)) for o, n in zip(old, top, strict=True)]
            self._save(factor, self.layout.scale)
            self._save(top, self.layout.top)
            total = [
                f.fmul(a, b) for a, b in zip(self._load(self.layout.total), factor, strict=True)
            ]
        with f.loop(0, count, init=total) as key:
            scores = self._load(self.layout.scores, key.index)
            powers = [self._exp2(f.fsub(s, m)) for s, m in zip(scores, top, strict=True)]
            self._save(powers, self.layout.scores, key.index)
            key.carry([f.fadd(a, b) for a, b in zip(key.carried, powers, strict=True)])
        self._save(key.results, self.layout.total)

    def _exp2(self, x: Val) -> Val:
        """2^x for x <= 0; NaN stays NaN."""
        f, ty = self.f, self.ty
        ints = vector("i32", self.lanes)
        tiny = f.fcmp("olt", x, real(-125.0, ty))
        held = f.select(tiny, real(-125.0, ty), x)
        shift = real(_SHIFT, ty)
        shifted = f.binary("fadd", held, shift)
        rest = f.binary("fsub", held, f.binary("fsub", shifted, shift))
        power = real(_EXP2[-1], ty)
        for factor in reversed(_EXP2[:-1]):
            power = f.fma(power, rest, real(factor, ty), fused=self.fused)
        bits = f.cast("bitcast", shifted, ints)
        places = f.splat(Val("i32", "23", 23), self.lanes)
        exponent = f.binary("shl", bits, places)
        raised = f.binary("add", f.cast("bitcast", power, ints), exponent)
        return f.select(tiny, zero(ty), f.cast("bitcast", raised, ty))

    # ---- values ---------------------------------------------------------------------------------

    def _values(self, values: tuple[Val, Val, Val], count: Val) -> None:
        """O takes in a block of keys."""
        f = self.f
        mr, width = self.writer.mr, self.writer.width
        whole = width // mr * mr
        if whole:
            with f.loop(0, whole, mr) as tile:
                self._value_tile(values, tile.index, mr, count)
        if width > whole:
            self._value_tile(values, i64(whole), width - whole, count)

    def _value_tile(self, values: tuple[Val, Val, Val], at: Val, rows: int, count: Val) -> None:
        f = self.f
        start, step, along = values
        offsets = tuple(f.mul(along, r) for r in range(rows))
        tile = GemmTile(offsets, self.nq, self.lanes, fused=self.fused)
        a = (f.offset(start, f.mul(at, along)), step)
        b = (self._at(self.layout.scores), i64(self.row))
        sums = multiply(f, tile, tile.zeros(), a, b, count)
        factor = [] if self.writer.once else self._load(self.layout.scale)
        for r in range(rows):
            new = sums[r * self.nq : (r + 1) * self.nq]
            place = f.add(at, r)
            if factor:
                old = self._load(self.layout.values, place)
                new = [
                    f.fma(o, s, n, fused=self.fused)
                    for o, s, n in zip(old, factor, new, strict=True)
                ]
            self._save(new, self.layout.values, place)

    # ---- result ---------------------------------------------------------------------------------

    def store(self) -> None:
        """Turn O back, divide by L, store."""
        f, lanes = self.f, self.lanes
        inverse = [f.fdiv(real(1.0, self.ty), total) for total in self._load(self.layout.total)]
        self._save(inverse, self.layout.total)
        width = self.writer.width
        whole = width // lanes * lanes
        with f.loop(0, self.nq) as v:
            shift = f.mul(v.index, self.writer.t.vector_bytes)
            first = f.add(self.first, f.mul(v.index, lanes))
            factor = f.load(self.ty, f.offset(self._at(self.layout.total), shift), align=16)
            if whole:
                with f.loop(0, whole, lanes) as at:
                    self._store_columns(first, shift, at.index, factor, None)
            if width > whole:
                mask = f.first_lanes(lanes, width - whole)
                self._store_columns(first, shift, i64(whole), factor, mask)

    def _store_columns(
        self, first: Val, shift: Val, at: Val, factor: Val, mask: Val | None
    ) -> None:
        """One square block: a vector of queries from `first` on, columns from `at` on."""
        f, frame, out = self.f, self.frame, self.writer.out
        axis, size = len(self.batch), self.writer.t.vector_bytes
        rows = []
        for n in range(self.lanes):
            place = f.offset(self._at(self.layout.values, f.add(at, n)), shift)
            rows.append(f.fmul(f.load(self.ty, place, align=size), factor))
        patch = self._at(self.layout.patch)
        for n, value in enumerate(transpose(f, rows)):
            f.store(value, f.offset(patch, n * size), align=size)
        target = frame.at(frame.outputs[0], out, [*self.batch, first, at])
        queries = f.sub(frame.size(self.writer.queries), first)
        with f.loop(0, f.min(queries, i64(self.lanes))) as n:
            value = f.load(self.ty, f.offset(patch, f.mul(n.index, size)), align=size)
            place = frame.move(target, out, axis, n.index)
            index = [*self.batch, f.add(first, n.index), at]
            self.writer.end.run(frame, [(value, place, index)], mask)


KERNEL = Kernel(
    "cpu.attention_f32.online", op="attention", refuse=refuse, configs=configs, emit=emit, cost=cost
)
