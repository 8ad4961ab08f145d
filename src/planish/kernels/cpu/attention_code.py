"""The phase of the attention kernel: one block of queries of one batch element a unit.

    q block, turned      Q[d][query]
    scores               P[key][query]   = sum over d of k[key][d] · Q[d][query]
    running maximum      M[query], then P = 2^(P - M), running sum L[query]
    values               O[e][query]    += sum over keys of v[key][e] · P[key][query]
    result, turned back  out[query][e]   = O[e][query] / L[query]

Keys are taken in blocks; when a later block raises the maximum, L and O are scaled down first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planish.base.expr import Expr
from planish.base.shapes import ceildiv, product
from planish.kernels.cpu.epilogue import finish, store_for
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.gemm_tile import GemmTile, multiply
from planish.kernels.cpu.panel import Matrix, pack_panel, transpose
from planish.kernels.kernel import Phase, Source
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


@dataclass(frozen=True)
class AttentionShape:
    """What a config says about the code.

    Attributes:
        nq: Vectors of queries of a unit, at most.
        mr: Keys, or columns of v, of a register tile.
        keys: Keys of a block.
    """

    nq: int
    mr: int
    keys: int


@dataclass(frozen=True)
class _Scratch:
    """Byte offsets of the parts of the worker's scratch."""

    query: int
    scores: int
    values: int
    top: int  # running maximum
    total: int  # running sum
    scale: int  # what the newest block scales the earlier ones by
    patch: int  # a square block on its way out
    end: int


class AttentionWriter:
    """Writes the one phase of a tactic."""

    def __init__(self, w: Workload, shape: AttentionShape, t: CpuTarget, symbol: str) -> None:
        self.w, self.t, self.symbol, self.shape = w, t, symbol, shape
        self.nq = shape.nq  # vectors of queries of the code being written
        self.mr, self.block = shape.mr, shape.keys
        self.lanes, self.size, self.fused = t.lanes(), t.vector_bytes, t.fma
        self.ty = vector("float", self.lanes)
        self.q, self.k, self.v, self.out = *w.inputs[:3], w.outputs[0]
        self.queries, self.keys = self.q.shape[-2], self.k.shape[-2]
        self.depth, self.width = int(str(self.q.shape[-1])), int(str(self.v.shape[-1]))
        self.axes = self.out.shape[:-2]
        self.end = store_for(w, t, 0, lane_axis=len(self.axes) + 1)
        self.once = isinstance(self.keys, int) and self.keys <= self.block
        self.row = shape.nq * self.size
        self.layout = self._layout()
        self.module = Module()
        self.frame = Frame(self.module, symbol, w)
        self.f = self.frame.f
        self.base = self.frame.private  # the scratch of the first vector of queries
        self.first = i64(0)  # the first query
        self.batch: list[Val] = []

    def source(self) -> Source:
        """The whole module."""
        f, frame = self.f, self.frame
        vectors = ceildiv(self.queries, self.lanes)
        blocks = ceildiv(vectors, self.nq)
        extents = (*self.axes, blocks)
        frame.prepare([*extents, vectors])
        with frame.units() as unit:
            *self.batch, block = frame.split(unit, extents)
            if isinstance(vectors, int):
                self._even_block(block, vectors)
            else:
                first = f.mul(block, self.nq)
                self._block(first, f.min(f.sub(frame.size(vectors), first), i64(self.nq)))
        units = product(extents)
        return Source(self.module.text(), (Phase(self.symbol, units),), 0, self.layout.end)

    def _layout(self) -> _Scratch:
        rows = [
            -(-self.depth // self.lanes) * self.lanes,
            self.block,
            -(-self.width // self.lanes) * self.lanes,
            1,
            1,
            1,
            -(-self.lanes // self.nq),
        ]
        at = [sum(rows[:n]) * self.row for n in range(len(rows) + 1)]
        return _Scratch(*at)

    # ---- blocks of queries ----------------------------------------------------------------------

    def _even_block(self, block: Val, vectors: int) -> None:
        """A block of queries where their number is known: blocks differ by at most one vector."""
        f = self.f
        short, longer = divmod(vectors, -(-vectors // self.shape.nq))
        first = f.add(f.mul(block, short), f.min(block, longer))
        if not longer:
            self._turn_queries(first)
            self._some(short)
            self._store(first, i64(short))
            return
        self._turn_queries(first)
        more, fewer, done = f.label("more"), f.label("fewer"), f.label("done")
        is_longer = f.icmp("slt", block, longer)
        f.branch_if(is_longer, more, fewer)
        f.start(more)
        self._some(short + 1)
        f.branch(done)
        f.start(fewer)
        self._some(short)
        f.branch(done)
        f.start(done)
        self._store(first, f.select(is_longer, i64(short + 1), i64(short)))

    def _block(self, first: Val, count: Val) -> None:
        """A block of queries where it may be the last, shorter one: then vector by vector."""
        f = self.f
        self._turn_queries(first)
        full, part, done = f.label("full"), f.label("part"), f.label("done")
        f.branch_if(f.icmp("eq", count, self.nq), full, part)
        f.start(full)
        self._some(self.nq)
        f.branch(done)
        f.start(part)
        with f.loop(0, count) as v:
            self.first = f.add(self.first, f.mul(v.index, self.lanes))
            self.base = f.offset(self.base, f.mul(v.index, self.size))
            self._some(1)
        self.base = self.frame.private
        f.branch(done)
        f.start(done)
        self._store(first, count)

    def _some(self, nq: int) -> None:
        """M, L and O of `nq` vectors of queries."""
        f, frame = self.f, self.frame
        self.nq = nq
        if self.once:
            self._key_block(i64(0), i64(int(str(self.keys))))
        else:
            self._clear()
            keys = frame.size(self.keys)
            with f.loop(0, keys, self.block) as loop:
                left = f.sub(keys, loop.index)
                self._key_block(loop.index, f.min(left, i64(self.block)))
        self.nq = self.shape.nq

    def _at(self, part: int, row: Val | int = 0, v: int = 0) -> Val:
        """Address of vector `v` of a row of a part of the scratch."""
        f = self.f
        return f.offset(f.offset(self.base, part + v * self.size), f.mul(i64(self.row), row))

    def _load(self, part: int, row: Val | int = 0) -> list[Val]:
        return [
            self.f.load(self.ty, self._at(part, row, v), align=self.size) for v in range(self.nq)
        ]

    def _save(self, values: Sequence[Val], part: int, row: Val | int = 0) -> None:
        for v, value in enumerate(values):
            self.f.store(value, self._at(part, row, v), align=self.size)

    def _turn_queries(self, vector: Val) -> None:
        """Q: the block's queries, from a vector on, as columns, times the scale."""
        f, frame, q = self.f, self.frame, self.q
        self.first = f.mul(vector, self.lanes)
        steps = [f.mul(frame.size(s), 4) for s in q.strides[-2:]]
        start = frame.at(frame.inputs[0], q, self.batch)
        depth, queries = i64(self.depth), frame.size(self.queries)
        matrix = Matrix(start, depth, queries, steps[1], steps[0], "float")
        pack_panel(f, matrix, self._at(self.layout.query), self.first, self.nq, self.lanes)
        scale = float(str(self.w.attr("scale")))
        if self.w.mask is None:
            scale *= _LOG2_E
        factor = real(scale, self.ty)
        with f.loop(0, self.depth) as d:
            scaled = [f.fmul(x, factor) for x in self._load(self.layout.query, d.index)]
            self._save(scaled, self.layout.query, d.index)

    def _clear(self) -> None:
        """M, L and O before the first block of keys."""
        f = self.f
        self._save([real(_LOWEST, self.ty)] * self.nq, self.layout.top)
        self._save([zero(self.ty)] * self.nq, self.layout.total)
        with f.loop(0, self.width) as e:
            self._save([zero(self.ty)] * self.nq, self.layout.values, e.index)

    def _key_block(self, first: Val, count: Val) -> None:
        """Take a block of keys into M, L and O."""
        old = [real(_LOWEST, self.ty)] * self.nq
        if not self.once:
            old = self._load(self.layout.top)
        else:
            self._save(old, self.layout.top)
        self._scores(self._rows(1, first), count)
        if self.w.mask is not None:
            self._mask(self.w.mask, first, count)
        top = self._load(self.layout.top)
        self._weights(old, top, count)
        self._values(self._rows(2, first), count)

    def _rows(self, number: int, first: Val) -> tuple[Val, Val, Val]:
        """A block of keys (operand 1) or values (2): address, bytes from row to row and along."""
        operand = self.w.inputs[number]
        start = self.frame.at(self.frame.inputs[number], operand, [*self.batch, first])
        step, along = (self.f.mul(self.frame.size(s), 4) for s in operand.strides[-2:])
        return start, step, along

    # ---- scores ---------------------------------------------------------------------------------

    def _scores(self, keys: tuple[Val, Val, Val], count: Val) -> None:
        """P of a block of keys; M, unless a mask comes in between."""
        f, mr = self.f, self.mr
        whole = f.sub(count, f.urem(count, mr))
        with f.loop(0, whole, mr) as tile:
            self._score_tile(keys, tile.index, mr)
        if count.literal is None or whole.literal is None:
            with f.loop(whole, count) as tile:
                self._score_tile(keys, tile.index, 1)
        elif whole.literal != count.literal:
            self._score_tile(keys, whole, count.literal - whole.literal)

    def _score_tile(self, keys: tuple[Val, Val, Val], at: Val, rows: int) -> None:
        f = self.f
        start, step, along = keys
        offsets = tuple(f.mul(step, r) for r in range(rows))
        tile = GemmTile(offsets, self.nq, self.lanes, fused=self.fused)
        a = (f.offset(start, f.mul(at, step)), along)
        b = (self._at(self.layout.query), i64(self.row))
        sums = multiply(f, tile, tile.zeros(), a, b, self.depth)
        best = self._load(self.layout.top)
        for r in range(rows):
            part = sums[r * self.nq : (r + 1) * self.nq]
            self._save(part, self.layout.scores, f.add(at, r))
            best = [f.select(f.fcmp("ogt", s, b), s, b) for s, b in zip(part, best, strict=True)]
        if self.w.mask is None:
            self._save(best, self.layout.top)

    def _mask(self, mask: Expr, first: Val, count: Val) -> None:
        """Pass a block of P through the mask, into powers of two; bring M up to date."""
        f, frame, size = self.f, self.frame, self.size
        with f.loop(0, self.nq) as v:
            shift = f.mul(v.index, size)
            query = f.add(self.first, f.mul(v.index, self.lanes))
            exists = f.first_lanes(self.lanes, f.sub(frame.size(self.queries), query))
            best = f.offset(self._at(self.layout.top), shift)
            with f.loop(0, count, init=[f.load(self.ty, best, align=size)]) as key:
                place = f.offset(self._at(self.layout.scores, key.index), shift)
                score = f.load(self.ty, place, align=size)
                index = [*self.batch, query, f.add(first, key.index)]
                value = finish(
                    frame,
                    self.t,
                    mask,
                    score,
                    index,
                    lane_axis=len(self.batch),
                    mask=exists,
                )
                value = f.fmul(value, real(_LOG2_E, self.ty))
                f.store(value, place, align=size)
                top = key.carried[0]
                key.carry([f.select(f.fcmp("ogt", value, top), value, top)])
            f.store(key.results[0], best, align=size)

    # ---- weights --------------------------------------------------------------------------------

    def _weights(self, old: Sequence[Val], top: Sequence[Val], count: Val) -> None:
        """P from scores to powers of two; L and M brought up to date."""
        f = self.f
        total = [zero(self.ty)] * self.nq
        if not self.once:
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
        mr, width = self.mr, self.width
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
        factor = [] if self.once else self._load(self.layout.scale)
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

    def _store(self, vector: Val, count: Val) -> None:
        """Turn O of `count` vectors back, divide by L, store."""
        f, lanes = self.f, self.lanes
        whole = self.width // lanes * lanes
        with f.loop(0, count) as v:
            shift = f.mul(v.index, self.size)
            first = f.mul(f.add(vector, v.index), lanes)
            total = f.load(self.ty, f.offset(self._at(self.layout.total), shift), align=self.size)
            factor = f.fdiv(real(1.0, self.ty), total)
            if whole:
                with f.loop(0, whole, lanes) as at:
                    self._store_columns(first, shift, at.index, factor, None)
            if self.width > whole:
                mask = f.first_lanes(lanes, self.width - whole)
                self._store_columns(first, shift, i64(whole), factor, mask)

    def _store_columns(
        self, first: Val, shift: Val, at: Val, factor: Val, mask: Val | None
    ) -> None:
        """One square block: a vector of queries from `first` on, columns from `at` on."""
        f, frame, out = self.f, self.frame, self.out
        axis, size = len(self.batch), self.size
        rows = []
        for n in range(self.lanes):
            place = f.offset(self._at(self.layout.values, f.add(at, n)), shift)
            rows.append(f.fmul(f.load(self.ty, place, align=size), factor))
        patch = self._at(self.layout.patch)
        for n, value in enumerate(transpose(f, rows)):
            f.store(value, f.offset(patch, n * size), align=size)
        target = frame.at(frame.outputs[0], out, [*self.batch, first, at])
        queries = f.sub(frame.size(self.queries), first)
        with f.loop(0, f.min(queries, i64(self.lanes))) as row:
            value = f.load(self.ty, f.offset(patch, f.mul(row.index, size)), align=size)
            place = frame.move(target, out, axis, row.index)
            index = [*self.batch, f.add(first, row.index), at]
            self.end.run(frame, [(value, place, index)], mask)
