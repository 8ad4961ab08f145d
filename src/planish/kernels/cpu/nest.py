"""Loop nests on the CPU: pointwise layers, copies, reductions, pools, softmax, norms, resizing.

Lanes follow the loop along which most accesses are neighbours: an outer loop (then each lane is an
outer point of its own), or a map or reduction loop inside each step. The innermost outer loops that
make up enough work are one unit; the others are counted by the unit number. Copies that swap the
contiguous axis go through registers in square tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planish.base.errors import CompileError
from planish.base.expr import Load, Temp, replace_loads, walk
from planish.base.nest import COMBINERS
from planish.base.shapes import product
from planish.kernels.cpu.arithmetic import worth_table
from planish.kernels.cpu.expression import Memory, memory_type
from planish.kernels.cpu.frame import Frame
from planish.kernels.cpu.nest_code import Column, NestCode, columns_of, register_dtype
from planish.kernels.cpu.nest_loops import Group, Sweep, sweep
from planish.kernels.cpu.transpose import transpose, weave
from planish.kernels.kernel import Config, Kernel, Phase, Source, symbol_for
from planish.kernels.loops.moves import moved_as_bits
from planish.kernels.loops.normal import ROW, Loop, dims_of, endless_row, normalise
from planish.kernels.loops.schedule import Schedule, plan, tiled_loads, work
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Int, Module, Val, vector

_SCRATCH = 1 << 26  # bytes of temporaries that a worker may have


def refuse(w: Workload, t: CpuTarget) -> str | None:
    """Why the nest cannot be run on the CPU; None when it can."""
    if w.nest is None:
        return "there is no nest"
    for operand in (*w.inputs, *w.outputs):
        if not operand.dtype.llvm:
            return f"{operand.dtype} elements are not for native code"
    for stage in w.nest.stages:
        if stage.combiner not in ("", *COMBINERS):
            return f"the combiner {stage.combiner!r} is not known"
    if endless_row(w.nest, len(w.inputs)):
        return "a row of temporaries is too long, or of a length that is not known"
    return None


def configs(w: Workload, t: CpuTarget) -> Iterator[Config]:
    """How many vectors are computed at a time: few for long expressions."""
    w = moved_as_bits(w)
    assert w.nest is not None
    size = max(sum(_weight(e) for e in walk(stage.expr)) for stage in w.nest.stages)
    order = (4, 2, 1) if size <= 120 else (2, 1) if size <= 250 else (1, 2)
    seen: list[Schedule] = []
    for unroll in order:
        config: Config = (("unroll", unroll),)
        schedule = _schedule(w, config, t)
        if schedule not in seen:
            seen.append(schedule)
            yield config


_HEAVY = frozenset(("exp", "erf", "tanh", "sigmoid", "div", "sqrt"))


def _weight(e: object) -> int:
    return 12 if getattr(e, "fn", "") in _HEAVY else 1


def emit(w: Workload, c: Config, t: CpuTarget) -> Source:
    """The module of one nest."""
    symbol, w = symbol_for("nest", w, c, t), moved_as_bits(w)
    schedule = _schedule(w, c, t)
    module = Module()
    frame = Frame(module, symbol, w)
    frame.prepare(dims_of(schedule.nest))
    memory, private = _memory(w, schedule, frame)
    masks = _masks(w, t)
    masks &= schedule.woven is None
    halved = not masks and any(o.dtype.size == 1 for o in (*w.inputs, *w.outputs))
    code = NestCode(frame.f, t, schedule, frame.size, memory, masks, halved)
    with frame.units() as unit:
        _unit(frame, code, unit)
    units = product(schedule.counted)
    return Source(module.text(), (Phase(symbol, units),), worker_scratch=private)


def _schedule(w: Workload, c: Config, t: CpuTarget) -> Schedule:
    nest = normalise(w)
    total = work(nest)
    for loop in nest.outers:
        total *= loop.extent if isinstance(loop.extent, int) else 64
    grain = min(32768, max(2048, total // (8 * max(1, w.threads))))
    unroll = int(dict(c)["unroll"])
    return plan(nest, t.vector_bytes, unroll, grain, tables=worth_table(t))


def _masks(w: Workload, t: CpuTarget) -> bool:
    """Whether rests of vectors are masked: where the target has masks for the element sizes."""
    sizes = {operand.dtype.size for operand in (*w.inputs, *w.outputs)}
    return t.isa == "avx512" or (t.isa == "avx2" and sizes <= {4, 8})


def _memory(w: Workload, schedule: Schedule, frame: Frame) -> tuple[dict[int, Memory], int]:
    """(what operand numbers stand for, bytes of a worker's temporaries)."""
    operands = zip((*w.inputs, *w.outputs), (*frame.inputs, *frame.outputs), strict=True)
    made = {n: Memory(at, (1,), operand.dtype) for n, (operand, at) in enumerate(operands)}
    width = schedule.lanes * schedule.unroll if schedule.vector else 1
    used = 0
    for number, elements in schedule.nest.rows:
        dtype = register_dtype(schedule.nest.steps[number].dtype)
        pointer = frame.f.offset(frame.private, used)
        made[ROW + number] = Memory(pointer, (1,), dtype)
        used += -(-elements * width * dtype.size // 64) * 64
    if used > _SCRATCH:
        raise CompileError(f"the temporaries of a nest need {used} bytes a worker")
    return made, used


def _unit(frame: Frame, code: NestCode, unit: Val) -> None:
    """One unit of work."""
    f, schedule = frame.f, code.schedule
    digits = frame.split(unit, schedule.counted) if schedule.counted else []
    at: dict[str, Int] = {o.var: d for o, d in zip(schedule.prefix, digits, strict=False)}
    ranges: dict[str, tuple[Int, Int]] = {o.var: (0, frame.size(o.extent)) for o in schedule.suffix}
    if schedule.split is not None:
        first = f.mul(digits[-1], schedule.block)
        end = f.min(f.add(first, schedule.block), frame.size(schedule.split.extent))
        ranges[schedule.split.var] = (first, end)
    _outer(code, schedule.suffix, ranges, at)


def _outer(
    code: NestCode,
    loops: tuple[Loop, ...],
    ranges: Mapping[str, tuple[Int, Int]],
    at: dict[str, Int],
) -> None:
    """The outer loops inside a unit, from the outermost."""
    schedule = code.schedule
    if not loops:
        code.run([Column(1, "", at, {})])
        return
    first, end = ranges[loops[0].var]
    if loops[0].var == schedule.vector:
        _lanes(code, loops[0], first, end, at)
    elif loops[0].var == schedule.across and len(loops) == 2:
        _tiles(code, loops, ranges, at)
    else:
        with code.f.loop(first, end) as loop:
            _outer(code, loops[1:], ranges, {**at, loops[0].var: loop.index})


def _lanes(code: NestCode, along: Loop, first: Int, end: Int, at: dict[str, Int]) -> None:
    """Columns of outer points."""

    def body(group: Group, carried: object) -> tuple[Val, ...]:
        columns = columns_of(code.f, group, along.var, Column(1, "", at, {}))
        if code.schedule.woven is None:
            code.run(columns)
        else:
            _weave(code, code.schedule.woven, columns[0])
        return ()

    cut = Sweep(code.schedule.lanes, code.schedule.unroll, code.masked, code.halved)
    sweep(code.f, cut, first, end, along.extent, body)


def _weave(code: NestCode, short: Loop, column: Column) -> None:
    """All of a short loop at a column: the vectors are woven into one run of elements."""
    f, (step, _), lanes = code.f, code.steps[0], column.lanes
    assert step.offset is not None and isinstance(short.extent, int)
    memory, rows, place = code.memory[step.target], [], None
    for point in range(short.extent):
        here = column.at({short.var: point})
        emitter = code.emitter(here)
        value = code.arithmetic.cast(emitter.emit(step.expr), step.expr.dtype, step.dtype)
        if lanes == 1:
            emitter.store(memory, (step.offset,), value)
        rows.append(code.arithmetic.to_memory(value, memory.dtype))
        place = place or emitter.address(memory, (step.offset,))
    if lanes > 1 and place is not None:
        f.store(weave(f, rows), place)


def _tiles(
    code: NestCode,
    loops: tuple[Loop, ...],
    ranges: Mapping[str, tuple[Int, Int]],
    at: dict[str, Int],
) -> None:
    """Square tiles of two loops; what is left over goes by columns."""
    f, lanes = code.f, code.schedule.lanes
    across, along = loops
    first, end = ranges[across.var]
    left, right = ranges[along.var]
    whole = f.sub(right, left)
    middle = f.add(left, f.mul(f.udiv(whole, lanes), lanes))

    def body(group: Group, carried: object) -> tuple[Val, ...]:
        if group.lanes == 1:
            _lanes(code, along, left, right, {**at, across.var: group.start})
            return ()
        with f.loop(left, middle, lanes) as loop:
            _tile(code, loops, group.start, loop.index, at)
        if not isinstance(along.extent, int) or along.extent % lanes:
            with f.loop(group.start, f.add(group.start, lanes)) as row:
                _lanes(code, along, middle, right, {**at, across.var: row.index})
        return ()

    sweep(f, Sweep(lanes, 1, False), first, end, across.extent, body)


def _tile(
    code: NestCode, loops: tuple[Loop, ...], first: Val, left: Val, at: dict[str, Int]
) -> None:
    """One tile: loads run along `across`, stores along the lanes."""
    f, lanes = code.f, code.schedule.lanes
    across, along = loops
    (step, _) = code.steps[0]
    jumping = tiled_loads(step, along.var, across.var)
    turned: list[list[Val]] = []
    for load in jumping:
        memory = code.memory[load.tensor]
        rows = []
        for lane in range(lanes):
            here: dict[str, Int] = {**at, across.var: first, along.var: f.add(left, lane)}
            place = code.emitter(Column(1, "", here, {})).address(memory, load.index)
            rows.append(f.load(vector(memory_type(memory.dtype), lanes), place))
        columns = transpose(f, rows)
        turned.append([code.arithmetic.from_memory(v, memory.dtype) for v in columns])
    numbers = {load: -1 - n for n, load in enumerate(jumping)}

    def visit(load: Load) -> Load | Temp:
        return Temp(numbers[load], (), load.dtype) if load in numbers else load

    expr = replace_loads(step.expr, visit)
    for row in range(lanes):
        values: dict[str, Int] = {**at, across.var: f.add(first, row), along.var: left}
        temps = {number: turned[-1 - number][row] for number in numbers.values()}
        column = Column(lanes, along.var, values, temps)
        emitter = code.emitter(column)
        value = code.arithmetic.cast(emitter.emit(expr), expr.dtype, step.dtype)
        assert step.offset is not None
        emitter.store(code.memory[step.target], (step.offset,), value)


KERNEL = Kernel("cpu.nest.loops", op="nest", refuse=refuse, configs=configs, emit=emit)
