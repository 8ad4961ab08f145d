"""Brings nests into a normal form in which loops are easy to merge, reorder and vectorise.

Each access becomes one flat offset (a sum over loop variables), so loops that walk memory in one
sweep are seen to, and become one; a loop that is only used as quotient and remainder of a constant
becomes two; map loops that all stages share become outer loops; temporaries that need memory become
operands, numbered from `ROW` on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from planish.base.dtypes import DType
from planish.base.expr import (
    Call,
    Const,
    Expr,
    Load,
    Size,
    Temp,
    Var,
    call,
    children,
    index,
    replace_vars,
    transform,
    walk,
)
from planish.base.nest import Nest, Stage
from planish.base.shapes import Dim, floordiv, mod, product
from planish.kernels.loops.linear import Linear, address, linear
from planish.kernels.loops.whole_sums import sum_integers
from planish.kernels.workload import Operand, Workload, dense_strides

ROW = 1 << 16  # operand number of stage 0's row of temporaries
_ROW_LIMIT = 1 << 16  # elements; longer or symbolic rows are computed again where they are read


@dataclass(frozen=True)
class Loop:
    """A loop from 0 to `extent`."""

    var: str
    extent: Dim


@dataclass(frozen=True)
class Step:
    """A stage in normal form.

    Attributes:
        maps: Loops of the inner map, outermost first.
        reduces: Loops of the reduction, outermost first.
        combiner: As in `Stage`.
        expr: The value; each `Load` has one flat offset for an index.
        dtype: As in `Stage`.
        target: Operand number that is written, counted like those of loads; -1 for a register.
        offset: Flat offset of the store.
        position: Flat position in the reduction space, for the arg combiners.
        ordered: The map's points depend on each other and run in order.
    """

    maps: tuple[Loop, ...]
    reduces: tuple[Loop, ...]
    combiner: str
    expr: Expr
    dtype: DType
    target: int = -1
    offset: Expr | None = None
    position: Expr | None = None
    ordered: bool = False

    def accesses(self) -> list[Expr]:
        """Flat offsets, of the value's loads, of the store, and the position."""
        own = [e for e in (self.offset, self.position) if e is not None]
        roots = [self.expr, *own]
        return own + [e.index[0] for root in roots for e in walk(root) if isinstance(e, Load)]

    def rebuilt(self, visit: Callable[[Expr], Expr]) -> Step:
        """The step with each of its expressions rebuilt."""
        return replace(
            self,
            expr=visit(self.expr),
            offset=None if self.offset is None else visit(self.offset),
            position=None if self.position is None else visit(self.position),
        )


@dataclass(frozen=True)
class Normal:
    """A nest in normal form.

    Attributes:
        outers: Parallel loops.
        steps: The stages.
        rows: Elements of the row of temporaries of each stage that needs memory.
    """

    outers: tuple[Loop, ...]
    steps: tuple[Step, ...]
    rows: tuple[tuple[int, int], ...]


def normalise(workload: Workload) -> Normal:
    """The normal form of a workload's nest."""
    assert workload.nest is not None
    nest = sum_integers(workload.nest)
    nest = _inline_long_rows(_share_maps(nest, len(workload.inputs)))
    operands = (*workload.inputs, *workload.outputs)
    steps = tuple(
        _flatten(nest, n, operands, len(workload.inputs)) for n in range(len(nest.stages))
    )
    outers = tuple(Loop(f"o{n}", extent) for n, extent in enumerate(nest.outer))
    rows = tuple((n, _elements(stage.map)) for n, stage in enumerate(nest.stages) if _is_row(stage))
    made = Normal(outers, steps, rows)
    made = _drop_single(made)
    made = _split_all(made)
    return _merge_steps(made)


def _is_row(stage: Stage) -> bool:
    return bool(stage.map) and stage.store is None


def _elements(extents: tuple[Dim, ...]) -> int:
    total = product(extents)
    assert isinstance(total, int)
    return total


# ---- temporaries --------------------------------------------------------------------------------


def _reads_outputs(nest: Nest, inputs: int) -> bool:
    return any(isinstance(e, Load) and e.tensor >= inputs for s in nest.stages for e in _parts(s))


def _parts(stage: Stage) -> list[Expr]:
    roots = [stage.expr, *(stage.store.index if stage.store else ())]
    return [e for root in roots for e in walk(root)]


def _share_maps(nest: Nest, inputs: int) -> Nest:
    """Map loops that all stages run alike become outer loops."""
    first = nest.stages[0].map
    own = tuple(Var(f"m{n}") for n in range(len(first)))
    alike = all(stage.map == first for stage in nest.stages)
    temps = [e for s in nest.stages for e in _parts(s) if isinstance(e, Temp)]
    if not first or not alike or any(t.index != own for t in temps):
        return nest
    if _reads_outputs(nest, inputs) or any(_scatters(stage) for stage in nest.stages):
        return nest
    depth = len(nest.outer)
    rename: dict[str, Expr] = {f"m{n}": Var(f"o{depth + n}") for n in range(len(first))}

    def visit(e: Expr) -> Expr:
        plain = transform(e, lambda x: Temp(x.stage, (), x.dtype) if isinstance(x, Temp) else x)
        return replace_vars(plain, rename)

    stages = tuple(
        replace(
            stage,
            map=(),
            expr=visit(stage.expr),
            store=stage.store and replace(stage.store, index=tuple(map(visit, stage.store.index))),
        )
        for stage in nest.stages
    )
    return Nest((*nest.outer, *first), stages)


def _scatters(stage: Stage) -> bool:
    """Whether the place of a store depends on data, so that two points may hit the same."""
    if stage.store is None:
        return False
    return any(isinstance(e, Load | Temp) for at in stage.store.index for e in walk(at))


def _inline_long_rows(nest: Nest) -> Nest:
    """Rows that are too long, or whose length is not known, are computed where they are read."""
    stages: list[Stage] = []
    inlined: dict[int, Stage] = {}

    def read(e: Expr) -> Expr:
        if isinstance(e, Temp) and e.stage in inlined:
            names = {f"m{n}": at for n, at in enumerate(e.index)}
            return replace_vars(inlined[e.stage].expr, names)
        return e

    for number, stage in enumerate(nest.stages):
        made = replace(stage, expr=transform(stage.expr, read))
        if made.store is not None:
            at = tuple(transform(e, read) for e in made.store.index)
            made = replace(made, store=replace(made.store, index=at))
        stages.append(made)
        count = product(stage.map)
        long = not isinstance(count, int) or count > _ROW_LIMIT
        if _is_row(stage) and long and not stage.combiner:
            inlined[number] = made
    kept = [n for n in range(len(stages)) if n not in inlined]
    order = {old: new for new, old in enumerate(kept)}

    def rename(e: Expr) -> Expr:
        return Temp(order[e.stage], e.index, e.dtype) if isinstance(e, Temp) else e

    result = []
    for number in kept:
        stage = replace(stages[number], expr=transform(stages[number].expr, rename))
        if stage.store is not None:
            at = tuple(transform(e, rename) for e in stage.store.index)
            stage = replace(stage, store=replace(stage.store, index=at))
        result.append(stage)
    return Nest(nest.outer, tuple(result))


def endless_row(nest: Nest, inputs: int) -> bool:
    """Whether a row of temporaries needs memory of a size that is not known, or is too long."""
    nest = _inline_long_rows(_share_maps(nest, inputs))
    rows = [product(stage.map) for stage in nest.stages if _is_row(stage)]
    return any(not isinstance(count, int) or count > 1 << 22 for count in rows)


# ---- flat accesses ------------------------------------------------------------------------------


def _flatten(nest: Nest, number: int, operands: tuple[Operand, ...], inputs: int) -> Step:
    stage = nest.stages[number]

    def visit(e: Expr) -> Expr:
        if isinstance(e, Load):
            return Load(e.tensor, (_flat(e.index, operands[e.tensor].strides),), e.dtype)
        if isinstance(e, Temp) and e.index:
            strides = dense_strides(nest.stages[e.stage].map)
            return Load(ROW + e.stage, (_flat(e.index, strides),), e.dtype)
        return e

    maps = tuple(Loop(f"m{n}", extent) for n, extent in enumerate(stage.map))
    reduces = tuple(Loop(f"r{n}", extent) for n, extent in enumerate(stage.reduce))
    target, offset = -1, None
    if stage.store is not None:
        target = inputs + stage.store.tensor
        where = tuple(transform(e, visit) for e in stage.store.index)
        offset = _flat(where, operands[target].strides)
    elif stage.map:
        target = ROW + number
        offset = _flat(tuple(Var(loop.var) for loop in maps), dense_strides(stage.map))
    position = None
    if stage.combiner.startswith("arg"):
        position = _flat(tuple(Var(loop.var) for loop in reduces), dense_strides(stage.reduce))
    own = {target} if stage.store is not None else set()
    ordered = _scatters(stage) or any(
        isinstance(e, Load) and e.tensor in own for e in _parts(stage)
    )
    expr = transform(stage.expr, visit)
    return Step(maps, reduces, stage.combiner, expr, stage.dtype, target, offset, position, ordered)


def _flat(at: tuple[Expr, ...], strides: tuple[Dim, ...]) -> Expr:
    return as_expr(address(at, strides))


def as_expr(total: Linear) -> Expr:
    """A sum as an expression again."""
    parts = [call("mul", atom, index(factor)) for atom, factor in total.terms]
    result = parts[0] if parts else index(total.constant)
    for part in parts[1:]:
        result = call("add", result, part)
    return call("add", result, index(total.constant)) if parts else result


# ---- loops --------------------------------------------------------------------------------------


def _drop_single(nest: Normal) -> Normal:
    """Loops of one pass are no loops."""
    single = {o.var for o in nest.outers if o.extent == 1}
    steps = []
    for step in nest.steps:
        own = {o.var for o in (*step.maps, *step.reduces) if o.extent == 1}
        made = _without(step, single | own)
        steps.append(
            replace(
                made,
                maps=tuple(o for o in step.maps if o.extent != 1),
                reduces=tuple(o for o in step.reduces if o.extent != 1),
            )
        )
    outers = tuple(o for o in nest.outers if o.extent != 1)
    return replace(nest, outers=outers, steps=tuple(steps))


def _without(step: Step, gone: set[str]) -> Step:
    """A step with some loop variables set to 0."""
    values: dict[str, Expr] = {name: index(0) for name in gone}
    return step.rebuilt(lambda e: replace_vars(e, values)) if gone else step


def _split_all(nest: Normal) -> Normal:
    """Split loops that are read as `floordiv(v, c)` and `mod(v, c)` until none is."""
    for _ in range(8):
        for loop in nest.outers:
            width = _split_width([e for s in nest.steps for e in [*s.accesses(), s.expr]], loop)
            if width:
                rename = _splitter(loop, width)
                pair = _pair(loop, width)
                outers = tuple(p for o in nest.outers for p in (pair if o == loop else (o,)))
                steps = tuple(step.rebuilt(rename) for step in nest.steps)
                nest = replace(nest, outers=outers, steps=steps)
                break
        else:
            break
    return replace(nest, steps=tuple(map(_split_step, nest.steps)))


def _split_step(step: Step) -> Step:
    for _ in range(8):
        for loop in (*step.maps, *step.reduces):
            width = _split_width([*step.accesses(), step.expr], loop)
            if width:
                pair = _pair(loop, width)
                step = replace(
                    step.rebuilt(_splitter(loop, width)),
                    maps=tuple(p for o in step.maps for p in (pair if o == loop else (o,))),
                    reduces=tuple(p for o in step.reduces for p in (pair if o == loop else (o,))),
                )
                break
        else:
            break
    return step


def _split_width(exprs: list[Expr], loop: Loop) -> int:
    """The constant c of `floordiv(v, c)` or `mod(v, c)` that divides the extent; 0 for none."""
    for root in exprs:
        for e in walk(root):
            match e:
                case Call(fn="floordiv" | "mod", args=(Var(name=name), Const(value=c))):
                    c = int(c)
                    if name == loop.var and c > 1 and mod(loop.extent, c) == 0:
                        return c if floordiv(loop.extent, c) != 1 else 0
    return 0


def _pair(loop: Loop, width: int) -> tuple[Loop, Loop]:
    return Loop(f"{loop.var}q", floordiv(loop.extent, width)), Loop(f"{loop.var}x", width)


def _splitter(loop: Loop, width: int) -> Callable[[Expr], Expr]:
    high, low = (Var(o.var) for o in _pair(loop, width))
    whole = call("add", call("mul", high, index(width)), low)
    quotient = call("floordiv", whole, index(width))
    rest = call("mod", whole, index(width))

    def visit(e: Expr) -> Expr:
        return high if e == quotient else low if e == rest else e

    return lambda root: _flat_again(transform(replace_vars(root, {loop.var: whole}), visit))


def _flat_again(root: Expr) -> Expr:
    """Collect the terms of offsets that a substitution has scattered."""

    def visit(e: Expr) -> Expr:
        if isinstance(e, Load):
            return Load(e.tensor, (as_expr(linear(e.index[0])),), e.dtype)
        return e

    made = transform(root, visit)
    return as_expr(linear(made)) if made.dtype is DType.I64 else made


def _merge_steps(nest: Normal) -> Normal:
    """Merge neighbouring loops that walk every access in one sweep."""
    steps = []
    for step in nest.steps:
        made = step
        for field in ("maps", "reduces"):
            made = _merge_in_step(made, field)
        steps.append(made)
    return replace(nest, steps=tuple(steps))


def _merge_in_step(step: Step, field: str) -> Step:
    loops: tuple[Loop, ...] = getattr(step, field)
    for a, b in reversed(list(itertools.pairwise(loops))):
        if can_merge([step], a, b):
            joined = Loop(b.var, a.extent * b.extent)
            rest = tuple(joined if o == b else o for o in loops if o != a)
            made = _without(step, {a.var})
            made = replace(made, maps=rest) if field == "maps" else replace(made, reduces=rest)
            return _merge_in_step(made, field)
    return step


def merge_outers(nest: Normal) -> Normal:
    """Merge neighbouring outer loops, in the order in which they stand now."""
    for a, b in reversed(list(itertools.pairwise(nest.outers))):
        if can_merge(list(nest.steps), a, b):
            joined = Loop(b.var, a.extent * b.extent)
            outers = tuple(joined if o == b else o for o in nest.outers if o != a)
            steps = tuple(_without(step, {a.var}) for step in nest.steps)
            return merge_outers(replace(nest, outers=outers, steps=steps))
    return nest


def can_merge(steps: list[Step], a: Loop, b: Loop) -> bool:
    """Whether each access moves along `a` as far as along all of `b`, their only uses."""
    for step in steps:
        if {a.var, b.var} & pinned(step):
            return False
        for offset in step.accesses():
            slopes = dict(linear(offset).terms)
            if slopes.get(Var(a.var), 0) != slopes.get(Var(b.var), 0) * b.extent:
                return False
    return True


def pinned(step: Step) -> set[str]:
    """Loop variables that a step uses other than as a plain term of an offset."""
    found: set[str] = set()

    def offset(e: Expr) -> None:
        for atom, _ in linear(e).terms:
            if not isinstance(atom, Var):
                visit(atom)

    def visit(e: Expr) -> None:
        if isinstance(e, Var):
            found.add(e.name)
        elif isinstance(e, Load):
            offset(e.index[0])
        else:
            for child in children(e):
                visit(child)

    visit(step.expr)
    for own in (step.offset, step.position):
        if own is not None:
            offset(own)
    return found


def dims_of(nest: Normal) -> list[Dim]:
    """Every size that code for a nest in normal form may ask for."""
    dims: list[Dim] = [loop.extent for loop in nest.outers]
    for step in nest.steps:
        dims += [loop.extent for loop in (*step.maps, *step.reduces)]
        for offset in step.accesses():
            total = linear(offset)
            dims += [total.constant, *(factor for _, factor in total.terms)]
        dims += [e.dim for e in walk(step.expr) if isinstance(e, Size)]
    return dims
