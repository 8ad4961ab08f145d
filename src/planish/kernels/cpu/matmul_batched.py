"""Matmul of two run-time tensors, batch by batch, with a register tile over rows and columns of b.

A unit is a block of rows times one panel of columns of one batch element. Rows of b are read where
they lie when its columns are neighbours ("none"); otherwise the panel is copied first, to the
worker's scratch by each unit ("unit") or once for all in a phase of its own ("phase").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from planish.base.dtypes import DType
from planish.base.shapes import Dim, ceildiv, product
from planish.kernels.cpu.arithmetic import Arithmetic, register_type
from planish.kernels.cpu.epilogue import Cell, accumulator_dtype, split_bias
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.gemm_tile import GemmTile, multiply
from planish.kernels.cpu.narrow import NARROW
from planish.kernels.cpu.panel import Matrix, pack_panel
from planish.kernels.cpu.vector_math import VectorMath
from planish.kernels.kernel import Config, Kernel, Phase, Source, symbol_for
from planish.kernels.workload import Workload, typical
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Module, Val, element_bytes, i64, zero

DTYPES = (DType.F32, DType.F64, DType.I32, DType.U32, DType.I64, DType.U64)


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why this kernel cannot run `w` on `t`; None when it can."""
    del t
    a, b = w.inputs[:2]
    if a.dtype not in DTYPES:
        return f"{a.dtype} is not one of {[str(d) for d in DTYPES]}"
    if b.dtype is not a.dtype or accumulator_dtype(w, 0) is not a.dtype:
        return "the operands and the sum differ in type"
    return None


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """The points worth timing, likeliest first."""
    a, b = w.inputs[:2]
    lanes = t.lanes(a.dtype.size)
    m, columns = typical(a.shape[-2]), typical(b.shape[-1])
    packs = ["phase"]
    if isinstance(b.shape[-2], int) and b.shape[-2] * 4 * lanes * a.dtype.size <= t.l2:
        packs.insert(0, "unit")
    if b.strides[-1] == 1:
        packs.insert(0, "none")
    tiles = ((6, 4), (8, 3), (12, 2), (24, 1)) if t.registers >= 32 else ((6, 2), (4, 3), (12, 1))
    seen = set()
    for rows, vectors in tiles:
        mr = _even(m, rows)
        nv = _even(-(-columns // lanes), vectors)
        if (mr, nv) in seen:
            continue
        seen.add((mr, nv))
        for pack in packs:
            yield (("mr", mr), ("nv", nv), ("mb", _row_block(w, t, mr, pack)), ("pack", pack))


def _even(extent: int, limit: int) -> int:
    """The length of the longest of the fewest equal pieces of at most `limit`."""
    return -(-extent // -(-extent // limit))


def _row_block(w: Workload, t: CpuTarget, mr: int, pack: str) -> int:
    """Rows of a unit: all when b is copied by each unit, else enough to share out the work."""
    m = typical(w.inputs[0].shape[-2])
    if pack == "unit":
        return -(-m // mr) * mr
    return min(-(-m // mr) * mr, -(-96 // mr) * mr)


def cost(w: Workload, c: Config, t: CpuTarget) -> float:
    """Estimated seconds: FMAs at a tile's efficiency, plus the copies of b, at 3 GHz."""
    a, b = w.inputs[:2]
    values = dict(c)
    mr, nv = int(values["mr"]), int(values["nv"])
    lanes = t.lanes(a.dtype.size)
    batch = 1
    for extent in w.outputs[0].shape[:-2]:
        batch *= typical(extent)
    m, k, n = typical(a.shape[-2]), typical(a.shape[-1]), typical(b.shape[-1])
    tiles = -(-m // mr) * -(-n // (nv * lanes)) * batch
    cycles = tiles * (k * max(mr * nv, mr + nv + 1) + 4 * nv + 10.0)
    if values["pack"] != "none":
        cycles += batch * k * n * (0.2 if b.strides[-1] == 1 else 0.6)
    if values["pack"] == "phase":
        cycles += 4000
    if b.const and m > 1:
        cycles *= 1.3  # rows of b that lie apart: measured against packed blocks
    return cycles / 3e9 / max(1, t.threads)


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """Pure: the same arguments give the same text."""
    return BatchedWriter(w, c, t, symbol_for(KERNEL.name, w, c, t)).source()


class BatchedWriter:
    """Writes the phases, for operands of any type; `pack` is "phase" unless they are summed in it.

    Args:
        w: The workload.
        c: One of `configs`.
        t: The target.
        symbol: Name of the code.
    """

    def __init__(self, w: Workload, c: Config, t: CpuTarget, symbol: str) -> None:
        values = dict(c)
        self.w, self.t = w, t
        self.mr, self.nv, self.mb = (int(values[name]) for name in ("mr", "nv", "mb"))
        self.pack = str(values["pack"])
        self.symbol = symbol
        self.a, self.b, self.out = w.inputs[0], w.inputs[1], w.outputs[0]
        self.sum = accumulator_dtype(w, 0)
        self.element = register_type(self.sum)
        self.size = element_bytes(self.element)  # of sums and of packed elements
        self.lanes = t.lanes(self.size)
        self.width = self.nv * self.lanes
        self.m, self.k, self.n = self.a.shape[-2], self.a.shape[-1], self.b.shape[-1]
        self.batch = self.out.shape[:-2]
        self.bias = split_bias(w, t, 0, lane_axis=len(self.batch) + 1)
        self.panels: Dim = ceildiv(self.n, self.width)
        self.panel_bytes: Dim = ceildiv(self.k, self.lanes) * self.lanes * self.width * self.size
        self.module = Module()

    def source(self) -> Source:
        """The whole module."""
        phases = []
        scratch: Dim = 0
        private = 0
        if self.pack == "phase":
            units = self._pack_phase(self.symbol + "p")
            phases.append(Phase(self.symbol + "p", units))
            scratch = units * self.panel_bytes
        elif self.pack == "unit":
            private = int(str(self.panel_bytes))
        phases.append(Phase(self.symbol, self._main_phase()))
        return Source(self.module.text(), tuple(phases), scratch, private)

    def _begin(self, symbol: str) -> Frame:
        self.frame = Frame(self.module, symbol, self.w)
        self.f = self.frame.f
        self.arithmetic = Arithmetic(VectorMath(self.f, self.t))
        return self.frame

    def _reader(self, dtype: DType) -> Callable[[Val], Val] | None:
        """Reads an operand's element in the type of the sums; None where it lies there as such."""
        if dtype is self.sum and dtype not in NARROW:
            return None

        def read(pointer: Val) -> Val:
            raw = self.f.load("i16" if dtype in NARROW else dtype.llvm, pointer)
            return self.arithmetic.cast(self.arithmetic.from_memory(raw, dtype), dtype, self.sum)

        return read

    # ---- copying b ------------------------------------------------------------------------------

    def _packed_batch(self) -> tuple[Dim, ...]:
        """Batch extents of b without the axes along which it is repeated."""
        pairs = zip(self.b.shape[:-2], self.b.strides[:-2], strict=True)
        return tuple(1 if stride == 0 else extent for extent, stride in pairs)

    def _pack_phase(self, symbol: str) -> Dim:
        """Write the phase that copies every panel of b to the shared scratch."""
        frame = self._begin(symbol)
        extents = (*self._packed_batch(), self.panels)
        frame.prepare([*extents, self.panel_bytes])
        with frame.units() as unit:
            *batch, panel = frame.split(unit, extents)
            to = frame.f.offset(frame.shared, frame.f.mul(unit, frame.size(self.panel_bytes)))
            self._pack_panel(frame, frame.at(frame.inputs[1], self.b, batch), panel, to)
        return product(extents)

    def _pack_panel(self, frame: Frame, b: Val, panel: Val, to: Val) -> None:
        f = frame.f
        rows, columns = (f.mul(frame.size(s), self.b.dtype.size) for s in self.b.strides[-2:])
        extents = frame.size(self.k), frame.size(self.n)
        matrix = Matrix(b, *extents, rows, columns, self.element, self._reader(self.b.dtype))
        pack_panel(f, matrix, to, f.mul(panel, self.width), self.nv, self.lanes)

    # ---- products -------------------------------------------------------------------------------

    def _main_phase(self) -> Dim:
        """Write the phase that multiplies; gives its units."""
        frame = self._begin(self.symbol)
        extents = (*self.batch, self.panels, ceildiv(self.m, self.mb))
        frame.prepare([*extents, self.panel_bytes, *self._packed_batch()])
        with frame.units() as unit:
            *batch, panel, block = frame.split(unit, extents)
            self._unit(batch, panel, block)
        return product(extents)

    def _unit(self, batch: Sequence[Val], panel: Val, block: Val) -> None:
        f, frame = self.f, self.frame
        self.at_batch = batch
        a = frame.at(frame.inputs[0], self.a, batch)
        b = frame.at(frame.inputs[1], self.b, batch)
        column = f.mul(panel, self.width)
        step = f.mul(frame.size(self.b.strides[-2]), self.size)
        if self.pack == "none":
            b = frame.move(b, self.b, len(batch) + 1, column)
        elif self.pack == "unit":
            self._pack_panel(frame, b, panel, frame.private)
            b, step = frame.private, i64(self.width * self.size)
        else:
            b = f.offset(frame.shared, f.mul(self._panel_number(batch, panel),
                                             frame.size(self.panel_bytes)))  # fmt: skip
            step = i64(self.width * self.size)
        first = f.mul(block, self.mb)
        stop = f.min(f.add(first, self.mb), frame.size(self.m))
        whole = f.sub(stop, f.urem(f.sub(stop, first), self.mr))
        with f.loop(first, whole, self.mr) as row:
            self._row_tiles(a, (b, step), row.index, column, None)
        if isinstance(self.m, int) and self.m % self.mr == 0:
            return
        with f.when(f.icmp("slt", whole, stop)):
            self._row_tiles(a, (b, step), whole, column, f.sub(stop, whole))

    def _panel_number(self, batch: Sequence[Val], panel: Val) -> Val:
        """Position of a panel of b in the shared scratch."""
        f, number = self.f, i64(0)
        for index, extent, stride in zip(
            batch, self._packed_batch(), self.b.strides[:-2], strict=True
        ):
            number = f.mul(number, self.frame.size(extent))
            number = number if stride == 0 else f.add(number, index)
        return f.add(f.mul(number, self.frame.size(self.panels)), panel)

    def _row_tiles(
        self, a: Val, b: tuple[Val, Val], row: Val, column: Val, rows: Val | None
    ) -> None:
        """One tile of rows against the panel: `rows` of them, None for all that a tile has."""
        f, n = self.f, self.frame.size(self.n)
        left = f.sub(n, column)
        if isinstance(self.n, int) and self.n % self.width == 0:
            self._tile(a, b, row, column, rows, self.nv, None)
            return
        if isinstance(self.n, int) and self.n < self.width:
            self._known_edge(a, b, row, column, rows, self.n)
            return
        full, edge, done = f.label("full"), f.label("edge"), f.label("tiled")
        f.branch_if(f.icmp("sge", left, self.width), full, edge)
        f.start(full)
        self._tile(a, b, row, column, rows, self.nv, None)
        f.branch(done)
        f.start(edge)
        if isinstance(self.n, int):
            self._known_edge(a, b, row, column, rows, self.n % self.width)
        else:
            with f.loop(0, left, self.lanes) as at:
                mask = f.first_lanes(self.lanes, f.sub(left, at.index))
                moved = f.offset(b[0], f.mul(at.index, self.size))
                self._tile(a, (moved, b[1]), row, f.add(column, at.index), rows, 1, mask)
        f.branch(done)
        f.start(done)

    def _known_edge(
        self, a: Val, b: tuple[Val, Val], row: Val, column: Val, rows: Val | None, rest: int
    ) -> None:
        """The last `rest` columns, fewer than a panel's."""
        spare = rest % self.lanes
        mask = self.f.first_lanes(self.lanes, spare) if spare else None
        self._tile(a, b, row, column, rows, -(-rest // self.lanes), mask)

    def _tile(
        self,
        a: Val,
        b: tuple[Val, Val],
        row: Val,
        column: Val,
        rows: Val | None,
        vectors: int,
        mask: Val | None,
    ) -> None:
        """Multiply and store one tile."""
        f, frame = self.f, self.frame
        axis = len(self.at_batch)
        count = self.mr
        if rows is not None and isinstance(self.m, int):
            count, rows = self.m % self.mr, None
        row_step = f.mul(frame.size(self.a.strides[-2]), self.a.dtype.size)
        offsets = []
        for r in range(count):
            at = i64(r) if rows is None else f.min(i64(r), f.sub(rows, 1))
            offsets.append(f.mul(at, row_step))
        tile = GemmTile(
            tuple(offsets),
            vectors,
            self.lanes,
            self.element,
            mask if self.pack == "none" else None,
            self.t.fma,
            self._reader(self.a.dtype),
        )
        step = f.mul(frame.size(self.a.strides[-1]), self.a.dtype.size)
        start = frame.move(a, self.a, axis, row)
        row_sums = []
        for v in range(vectors):
            at = f.add(column, v * self.lanes)
            lanes = mask if v == vectors - 1 else None
            row_sums.append(self.bias.start(frame, zero(tile.ty), at, lanes))
        sums = multiply(f, tile, row_sums * count, (start, step), b, frame.size(self.k))
        base = frame.at(frame.outputs[0], self.out, [*self.at_batch, row, column])
        for r in range(count):
            cells: list[list[Cell]] = [[], []]
            for v in range(vectors):
                place = frame.move(base, self.out, axis, r)
                place = frame.move(place, self.out, axis + 1, v * self.lanes)
                index = [*self.at_batch, f.add(row, r), f.add(column, v * self.lanes)]
                edge = mask is not None and v == vectors - 1
                cells[edge].append((sums[r * vectors + v], place, index))
            if rows is None:
                self._store(cells, mask)
            else:
                with f.when(f.icmp("slt", r, rows)):
                    self._store(cells, mask)

    def _store(self, cells: list[list[Cell]], mask: Val | None) -> None:
        for part, lanes in zip(cells, (None, mask), strict=True):
            self.bias.store.run(self.frame, part, lanes)


KERNEL = Kernel(
    "cpu.matmul.batched", op="matmul", refuse=refuse, configs=configs, emit=emit, cost=cost
)
