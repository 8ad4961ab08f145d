"""Code of a nest's steps at one point of its outer loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from planish.base.dtypes import DType
from planish.base.expr import Expr, Load, Temp, Var, call, children, index, replace_loads, walk
from planish.base.shapes import Dim
from planish.kernels.cpu.arithmetic import Arithmetic
from planish.kernels.cpu.expression import ExprEmitter, Memory
from planish.kernels.cpu.nest_combine import Combiner
from planish.kernels.cpu.nest_loops import Group, Sweep, either, sweep
from planish.kernels.cpu.vector_math import VectorMath
from planish.kernels.loops.clamp import Bounds, clamp_reduction
from planish.kernels.loops.normal import ROW, Loop, Step
from planish.kernels.loops.schedule import Schedule, fit_unroll
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Int, Val, i64

_BASE = "o_base"  # the lane variable at the first lane of a group of columns
_UNROLLED = 16  # passes of a reduction that are written out
_CODE = 900  # nodes of expressions that may be written out for it


@dataclass
class Column:
    """One vector of outer points, or of map points; one lane is a single point.

    Attributes:
        lanes: Points.
        lane_var: The loop variable along which they lie; "" for one point.
        vars: Loop variables at the first lane.
        temps: Values of earlier steps.
        mask: Lanes that exist; None for all.
    """

    lanes: int
    lane_var: str
    vars: dict[str, Int]
    temps: dict[int, Val]
    mask: Val | None = None

    def at(self, more: Mapping[str, Int]) -> Column:
        """The same column with further loop variables."""
        return replace(self, vars={**self.vars, **more})


def columns_of(f: Function, group: Group, var: str, point: Column) -> list[Column]:
    """The columns of a group along a loop variable, at a point of the other loops."""
    made = []
    for start in group.starts(f):
        values = {**point.vars, var: start, _BASE: group.start}
        made.append(
            Column(group.lanes, var if group.lanes > 1 else "", values, dict(point.temps),
                   group.mask)
        )  # fmt: skip
    return made


def prepare_rows(step: Step, schedule: Schedule) -> Step:
    """Where lanes are outer points, a row of temporaries holds a group of columns an element."""
    if not schedule.vector:
        return step
    width = schedule.lanes * schedule.unroll
    lane = call("sub", Var(schedule.vector), Var(_BASE))

    def spread(offset: Expr) -> Expr:
        return call("add", call("mul", offset, index(width)), lane)

    def visit(load: Load) -> Expr:
        if load.tensor < ROW:
            return load
        return Load(load.tensor, (spread(load.index[0]),), load.dtype)

    made = step.rebuilt(lambda e: replace_loads(e, visit))
    if step.target >= ROW and made.offset is not None:
        made = replace(made, offset=spread(made.offset))
    return made


class NestCode:
    """Emits the steps of a nest.

    Args:
        function: Where the code goes.
        target: What it is for.
        schedule: How the nest runs.
        size: Gives run-time sizes.
        memory: Gives what an operand number stands for.
        masked: Rests of vectors are masked.
        halved: Rests of maps go by ever shorter vectors; see `Sweep`.
    """

    def __init__(
        self,
        function: Function,
        target: CpuTarget,
        schedule: Schedule,
        size: Callable[[Dim], Val],
        memory: Mapping[int, Memory],
        masked: bool,
        halved: bool = False,
    ) -> None:
        self.f = function
        self.target = target
        self.schedule = schedule
        self.size = size
        self.memory = memory
        self.masked = masked
        self.halved = halved
        self.arithmetic = Arithmetic(VectorMath(function, target))
        self.steps: list[tuple[Step, dict[str, Bounds]]] = []
        for step, inner in zip(schedule.nest.steps, schedule.inner, strict=True):
            lanes = {schedule.vector, inner} - {""}
            made = prepare_rows(step, schedule)
            self.steps.append(clamp_reduction(made, lanes) if made.reduces else (made, {}))

    def emitter(self, column: Column) -> ExprEmitter:
        """Emits expressions at a column."""
        return ExprEmitter(
            self.f,
            self.target,
            self.size,
            lanes=column.lanes,
            lane_var=column.lane_var,
            vars=column.vars,
            operands=self.memory,
            temps=column.temps,
            mask=column.mask,
        )

    # ---- points ---------------------------------------------------------------------------------

    def run(self, columns: Sequence[Column]) -> None:
        """All steps, at columns of outer points or at a single point."""
        for number in range(len(self.steps)):
            step, _ = self.steps[number]
            inner = self.schedule.inner[number]
            loops = tuple(loop for loop in step.maps if loop.var != inner)
            self._map(loops, columns, number)

    def _map(self, loops: tuple[Loop, ...], columns: Sequence[Column], number: int) -> None:
        """The map loops of a step, from the outermost."""
        if loops:
            with self.f.loop(0, self.size(loops[0].extent)) as loop:
                inside = [column.at({loops[0].var: loop.index}) for column in columns]
                self._map(loops[1:], inside, number)
            return
        step, bounds = self.steps[number]
        inner = self.schedule.inner[number]
        along = next((loop for loop in step.maps if loop.var == inner), None)
        if along is not None:
            self._map_lanes(along, columns[0], number)
        elif inner:
            self._finish(number, columns, [self._reduce_lanes(step, bounds, inner, columns[0])])
        else:
            self._finish(number, columns, self._values(step, bounds, columns))

    def _map_lanes(self, along: Loop, point: Column, number: int) -> None:
        step, bounds = self.steps[number]

        def body(group: Group, carried: Sequence[Val]) -> Sequence[Val]:
            columns = columns_of(self.f, group, along.var, point)
            self._finish(number, columns, self._values(step, bounds, columns))
            return carried

        lanes = self.schedule.lanes
        unroll = fit_unroll(along.extent, lanes, self.schedule.unroll)
        cut = Sweep(lanes, unroll, self.masked, self.halved)
        sweep(self.f, cut, 0, self.size(along.extent), along.extent, body)

    def _finish(self, number: int, columns: Sequence[Column], values: Sequence[Val]) -> None:
        """Store the values of a step, or keep them."""
        step, _ = self.steps[number]
        for column, value in zip(columns, values, strict=True):
            if step.offset is None:
                column.temps[number] = value
            else:
                self.emitter(column).store(self.memory[step.target], (step.offset,), value)

    # ---- values ---------------------------------------------------------------------------------

    def _values(
        self, step: Step, bounds: Mapping[str, Bounds], columns: Sequence[Column]
    ) -> list[Val]:
        if step.combiner:
            return self._reduce(step, bounds, columns)
        return [self._value(step, column) for column in columns]

    def _value(self, step: Step, column: Column) -> Val:
        value = self.emitter(column).emit(step.expr)
        return self.arithmetic.cast(value, step.expr.dtype, step.dtype)

    def _sample(self, step: Step, column: Column, combiner: Combiner) -> list[Val]:
        """What one pass adds to an accumulator."""
        emitter = self.emitter(column)
        value = emitter.emit(step.expr)
        if combiner.is_arg and step.position is not None:
            return [value, emitter.emit(step.position)]
        return [self.arithmetic.cast(value, step.expr.dtype, step.dtype)]

    def _limits(
        self, loop: Loop, bounds: Mapping[str, Bounds], column: Column
    ) -> tuple[Val, Val, bool]:
        """(first, end, whether checks limit it) of a reduction loop."""
        first, end = i64(0), self.size(loop.extent)
        found = bounds.get(loop.var, Bounds())
        if not found.at_least and not found.below:
            return first, end, False
        emitter = self.emitter(replace(column, lanes=1, lane_var="", mask=None))
        for expr in found.at_least:
            first = self.f.max(first, emitter.value(expr))
        for expr in found.below:
            end = self.f.min(end, emitter.value(expr))
        return first, end, True

    def _reduce(
        self, step: Step, bounds: Mapping[str, Bounds], columns: Sequence[Column]
    ) -> list[Val]:
        """A reduction whose passes follow each other; lanes are points of other loops."""
        combiner = Combiner(step, self.arithmetic)
        if self._same_in_lanes(step, columns[0]):
            scalar = [replace(columns[0], lanes=1, lane_var="", mask=None)]
            (value,) = self._reduce_columns(step, bounds, scalar, combiner)
            return [self.f.splat(value, columns[0].lanes)] * len(columns)
        return self._reduce_columns(step, bounds, columns, combiner)

    def _same_in_lanes(self, step: Step, column: Column) -> bool:
        """Whether a step gives the same in all lanes."""
        if column.lanes == 1:
            return False
        return not any(
            isinstance(e, Temp) or (isinstance(e, Var) and e.name in (column.lane_var, _BASE))
            for e in walk(step.expr)
        )

    def _reduce_columns(
        self,
        step: Step,
        bounds: Mapping[str, Bounds],
        columns: Sequence[Column],
        combiner: Combiner,
    ) -> list[Val]:
        width = len(combiner.start(1))
        start = [v for column in columns for v in combiner.start(column.lanes)]
        limits = [self._limits(loop, bounds, columns[0]) for loop in step.reduces]

        def passes(loops: Sequence[Loop], at: dict[str, Int], totals: Sequence[Val]) -> list[Val]:
            if loops:
                depth = len(step.reduces) - len(loops)
                first, end, _ = limits[depth]
                with self.f.loop(first, end, init=totals) as loop:
                    inside = {**at, loops[0].var: loop.index}
                    loop.carry(passes(loops[1:], inside, loop.carried))
                return loop.results
            return one_pass(at, totals)

        def one_pass(at: dict[str, Int], totals: Sequence[Val]) -> list[Val]:
            samples = [self._sample(step, column.at(at), combiner) for column in columns]
            made: list[Val] = []
            for number, sample in enumerate(samples):
                old = totals[number * width : (number + 1) * width]
                made += combiner.add(old, sample)
            return made

        def written_out() -> list[Val]:
            made: list[Val] = []
            for column in columns:
                points = _points(step.reduces)
                made += combiner.tree(
                    [self._sample(step, column.at(at), combiner) for at in points]
                )
            return made

        if not self._short(step, len(columns)):
            totals = passes(step.reduces, {}, start)
        elif not any(limited for _, _, limited in limits):
            totals = written_out()
        else:
            whole = self._inside(step.reduces, limits)
            totals = either(self.f, whole, written_out, lambda: passes(step.reduces, {}, start))
        parts = [totals[n * width : (n + 1) * width] for n in range(len(columns))]
        return [combiner.result(part, step.dtype) for part in parts]

    def _short(self, step: Step, columns: int) -> bool:
        """Whether all passes may be written out."""
        total = columns * _nodes(step.expr)
        count = 1
        for loop in step.reduces:
            if not isinstance(loop.extent, int):
                return False
            count *= loop.extent
        return 0 < count <= _UNROLLED and count * total <= _CODE

    def _inside(self, loops: Sequence[Loop], limits: Sequence[tuple[Val, Val, bool]]) -> Val:
        """Whether no check cuts a loop short."""
        total: Val | None = None
        for loop, (first, end, limited) in zip(loops, limits, strict=True):
            if not limited:
                continue
            cut = self.f.sub(self.f.sub(end, first), self.size(loop.extent))
            whole = self.f.icmp("eq", cut, 0)
            total = whole if total is None else self.f.binary("and", total, whole)
        assert total is not None
        return total

    def _reduce_lanes(
        self, step: Step, bounds: Mapping[str, Bounds], var: str, point: Column
    ) -> Val:
        """A reduction whose lanes, and some accumulators, share the passes of one loop.

        The order in which values are combined depends on the schedule alone.
        """
        f, combiner = self.f, Combiner(step, self.arithmetic)
        width = len(combiner.start(1))
        along = next(loop for loop in step.reduces if loop.var == var)
        others = [loop for loop in step.reduces if loop.var != var]
        lanes = self.schedule.lanes
        count = self.schedule.unroll
        if isinstance(along.extent, int):
            count = max(1, min(count, along.extent // lanes))
        start = [v for _ in range(count) for v in combiner.start(lanes)]
        start += combiner.start(1)

        def add(group: Group, totals: Sequence[Val], at: dict[str, Int]) -> list[Val]:
            made = list(totals)
            alone = group.lanes == 1 < lanes
            columns = columns_of(f, group, var, point.at(at))
            samples = [self._sample(step, column, combiner) for column in columns]
            for number, sample in enumerate(samples):
                slot = (count if alone else number) * width
                made[slot : slot + width] = combiner.add(
                    made[slot : slot + width], sample, group.mask
                )
            return made

        def passes(loops: Sequence[Loop], at: dict[str, Int], totals: Sequence[Val]) -> list[Val]:
            if loops:
                first, end, _ = self._limits(loops[0], bounds, point)
                with f.loop(first, end, init=totals) as loop:
                    inside = {**at, loops[0].var: loop.index}
                    loop.carry(passes(loops[1:], inside, loop.carried))
                return loop.results
            first, end, limited = self._limits(along, bounds, point.at(at))
            if limited:
                end = f.max(first, end)
            cut = Sweep(lanes, count, self.masked)
            extent = None if limited else along.extent
            return sweep(f, cut, first, end, extent, lambda g, c: add(g, c, at), totals)

        totals = passes(others, {}, start)
        parts = [totals[n * width : (n + 1) * width] for n in range(count + 1)]
        while count > 1:
            half = (count + 1) // 2
            for number in range(count - half):
                parts[number] = combiner.add(parts[number], parts[half + number])
            count = half
        total = combiner.across(parts[0])
        if not self.masked and lanes > 1:
            total = combiner.add(total, parts[-1])
        return combiner.result(total, step.dtype)


def _points(loops: Sequence[Loop]) -> list[dict[str, int]]:
    """Every point of loops of known extents, in order."""
    points: list[dict[str, int]] = [{}]
    for loop in loops:
        assert isinstance(loop.extent, int)
        points = [{**point, loop.var: n} for point in points for n in range(loop.extent)]
    return points


def _nodes(expr: Expr) -> int:
    """The size of an expression."""
    return 1 + sum(map(_nodes, children(expr)))


def register_dtype(dtype: DType) -> DType:
    """The dtype in which a temporary is kept in memory: as it is in registers."""
    return DType.F32 if dtype in (DType.F16, DType.BF16) else dtype
