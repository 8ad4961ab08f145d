"""Loop layers → nests: pointwise groups, reductions and whole nests with what is fused to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from planish.base.errors import VerifyError
from planish.base.expr import (
    Expr,
    Load,
    Temp,
    Var,
    coefficient,
    index,
    loads_of,
    replace_loads,
    replace_vars,
    transform,
)
from planish.base.expr import (
    walk as parts_of,
)
from planish.base.nest import Nest, Stage, Store
from planish.base.shapes import Dim
from planish.graph.graph import Node, Value
from planish.graph.infer import args_of, op_of
from planish.graph.layer import Layer
from planish.lower.expressions import LayerExpressions
from planish.lower.operands import (
    Loop,
    Operands,
    Source,
    merge_loops,
    renumber,
    used_sources,
    walk_strides,
)
from planish.lower.storage import Storage
from planish.ops.prune import keep_outputs

Hint = Callable[[Dim], int]


@dataclass
class NestLayer:
    """A nest with its operands, ready to become a workload."""

    nest: Nest
    inputs: list[Source]
    outputs: list[Storage]


def copy_nest(source: Source, target: Storage, hint: Hint) -> NestLayer:
    """Elements moved from one view to another of the same shape."""
    names = [f"v{axis}" for axis in range(len(target.shape))]
    load = Load(0, tuple(map(Var, names)), target.dtype)
    return _pointwise(load, [source], [target], names, hint)


def loop_nest(
    layer: Layer,
    outputs: list[tuple[Value, Storage]],
    place: Callable[[Value], Source],
    hint: Hint,
) -> NestLayer:
    """The nest of a loop layer.

    Args:
        layer: The layer.
        outputs: What it makes and where that goes.
        place: Where a value from outside lies.
        hint: A likely value of a size, to tell long strides from short ones.
    """
    op = op_of(layer.anchor)
    if op is None:
        raise VerifyError(f"layer {layer.name!r} has no operator")
    operands = Operands(place)
    if op.nest is not None:
        return _whole_nest(layer, outputs, operands, hint)
    if op.reduce is not None:
        return _reduction(layer, outputs, operands, hint)
    if len(outputs) != 1:
        raise VerifyError(f"layer {layer.name!r} has {len(outputs)} results instead of one")
    value, target = outputs[0]
    names = [f"v{axis}" for axis in range(len(value.shape))]
    expressions = LayerExpressions(layer, operands.load)
    expr = expressions.at(value, _index(value, names))
    return _pointwise(expr, operands.sources, [target], names, hint)


def _index(value: Value, names: list[str]) -> tuple[Expr, ...]:
    """A value's index: a variable an axis, 0 where there is only one element."""
    zero = index(0)
    return tuple(zero if e == 1 else Var(name) for e, name in zip(value.shape, names, strict=True))


def physical_loops(target: Storage, names: list[str], hint: Hint) -> list[Loop]:
    """Loops over a view, the longest stride outermost; loops of one pass are dropped."""
    axes = [axis for axis, extent in enumerate(target.shape) if extent != 1]
    axes.sort(key=lambda axis: -abs(hint(target.strides[axis])))
    return [Loop(names[axis], target.shape[axis]) for axis in axes]


def _pointwise(
    expr: Expr, sources: list[Source], targets: list[Storage], names: list[str], hint: Hint
) -> NestLayer:
    """One value an output element; the last loop is the map."""
    target = targets[0]
    expr = replace_vars(
        expr, {n: index(0) for n, e in zip(names, target.shape, strict=True) if e == 1}
    )
    loops = physical_loops(target, names, hint)
    merged = _merge_all(expr, sources, target, names, loops)
    if merged is not None:
        expr, sources, target, loops = merged
        at: tuple[Expr, ...] = tuple(Var(loop.var) for loop in loops)
    else:
        at = _shape_index(target, names)
    variables = _nest_names(len(loops))
    rename = {loop.var: Var(name) for loop, name in zip(loops, variables, strict=True)}
    store = Store(0, tuple(replace_vars(e, rename) for e in at))
    expr = replace_vars(expr, rename)
    stage = Stage(tuple(loop.extent for loop in loops[-1:]), (), "", expr, target.dtype, store)
    used, numbers = used_sources([expr], sources)
    stage = replace(stage, expr=renumber(expr, numbers))
    return NestLayer(Nest(tuple(loop.extent for loop in loops[:-1]), (stage,)), used, [target])


def _shape_index(target: Storage, names: list[str]) -> tuple[Expr, ...]:
    zero = index(0)
    return tuple(zero if e == 1 else Var(n) for e, n in zip(target.shape, names, strict=True))


def _nest_names(loops: int) -> list[str]:
    """Outer variables, the last loop being the map."""
    return [*(f"o{n}" for n in range(loops - 1)), "m0"][-loops:] if loops else []


def _merge_all(
    expr: Expr, sources: list[Source], target: Storage, names: list[str], loops: list[Loop]
) -> tuple[Expr, list[Source], Storage, list[Loop]] | None:
    """Every operand as a view over the merged loops; None where an access is not that simple."""
    loads = loads_of(expr)
    around = replace_loads(expr, lambda load: Temp(0, (), load.dtype))
    if any(isinstance(part, Var) for part in parts_of(around)):
        return None  # the position itself is computed with
    walks: list[list[Dim]] = []
    for load in loads:
        walk = walk_strides(load, sources[load.tensor], loops)
        if walk is None:
            return None
        walks.append(list(walk))
    axis_of = {name: axis for axis, name in enumerate(names)}
    out_walk: list[Dim] = [target.strides[axis_of[loop.var]] for loop in loops]
    loops, merged = merge_loops(loops, [out_walk, *walks])
    shape = tuple(loop.extent for loop in loops)
    views: dict[tuple[Dim, ...], int] = {}
    new_sources: list[Source] = []
    numbers: dict[Load, int] = {}
    for load, strides in zip(loads, merged[1:], strict=True):
        key = (load.tensor, *strides)
        if key not in views:
            old = sources[load.tensor]
            seen = Storage(old.storage.buffer, shape, tuple(strides), old.storage.offset)
            new_sources.append(Source(seen, old.data))
            views[key] = len(new_sources) - 1
        numbers[load] = views[key]
    at = tuple(Var(loop.var) for loop in loops)
    expr = replace_loads(expr, lambda e: Load(numbers[e], at, e.dtype))
    merged_target = Storage(target.buffer, shape, tuple(merged[0]), target.offset)
    return expr, new_sources, merged_target, loops


def _reduction(
    layer: Layer, outputs: list[tuple[Value, Storage]], operands: Operands, hint: Hint
) -> NestLayer:
    """A reduction with its prologue and epilogue; several outputs are several stages."""
    anchor = layer.anchor
    op = op_of(anchor)
    if op is None or op.reduce is None:
        raise VerifyError(f"{anchor!r} declares no reduction")
    stages: list[Stage] = []
    outer: tuple[Dim, ...] | None = None
    for value, target in outputs:
        number = _anchor_output(anchor, value)
        result = anchor.outputs[number]
        assert result is not None
        names = [f"v{axis}" for axis in range(len(result.shape))]
        at = _index(result, names)
        reduction = op.reduce(args_of(anchor), anchor.attrs, number, at)
        expressions = LayerExpressions(layer, operands.load)
        body = expressions.inline(reduction.body, anchor.inputs)
        combined: Expr = Temp(len(stages), (), reduction.dtype)
        finish = reduction.finish
        final = combined if finish is None else _with_temp(finish, combined)
        final = expressions.inline(final, anchor.inputs)
        final = _epilogue(layer, value, result, final, at, operands)
        loops = physical_loops(target, names, hint)
        vector = _vector_loop(body, operands.sources, loops, reduction.extents)
        maps = loops[-1:] if vector else []
        outers = loops[: len(loops) - len(maps)]
        rename: dict[str, Expr] = {loop.var: Var(f"o{n}") for n, loop in enumerate(outers)}
        rename |= {loop.var: Var("m0") for loop in maps}
        mapped = tuple(loop.extent for loop in maps)
        temp_at: tuple[Expr, ...] = (Var("m0"),) if maps else ()
        final = _with_temp(final, Temp(len(stages), temp_at, reduction.dtype))
        where = tuple(replace_vars(e, rename) for e in _shape_index(target, names))
        store = Store(_position(outputs, value), where)
        plain = isinstance(final, Temp) and reduction.dtype is target.dtype
        combine = Stage(
            mapped,
            reduction.extents,
            reduction.combiner,
            replace_vars(body, rename),
            reduction.dtype,
            store if plain else None,
        )
        stages.append(combine)
        if not plain:
            final = replace_vars(final, rename)
            stages.append(Stage(mapped, (), "", final, target.dtype, store))
        extents = tuple(loop.extent for loop in outers)
        if outer is not None and outer != extents:
            raise VerifyError(f"the outputs of {anchor!r} need different loops")
        outer = extents
    used, numbers = used_sources([s.expr for s in stages], operands.sources)
    stages = [replace(stage, expr=renumber(stage.expr, numbers)) for stage in stages]
    return NestLayer(Nest(outer or (), tuple(stages)), used, [t for _, t in outputs])


def _position(outputs: list[tuple[Value, Storage]], value: Value) -> int:
    return next(n for n, (v, _) in enumerate(outputs) if v is value)


def _anchor_output(anchor: Node, value: Value) -> int:
    """Which output of the anchor a layer's result comes from; with an epilogue, the first."""
    return next((n for n, v in enumerate(anchor.outputs) if v is value), 0)


def _with_temp(expr: Expr, temp: Expr) -> Expr:
    """An expression with its accumulator replaced."""
    return transform(expr, lambda e: temp if isinstance(e, Temp) else e)


def _epilogue(
    layer: Layer,
    value: Value,
    result: Value,
    accumulated: Expr,
    at: tuple[Expr, ...],
    operands: Operands,
) -> Expr:
    """The layer's result, given the anchor's."""
    if value is result:
        return accumulated

    def leaf(read: Value, where: tuple[Expr, ...]) -> Expr:
        return accumulated if read is result else operands.load(read, where)

    expressions = LayerExpressions(layer, leaf)
    expressions.stop_at(result)
    return expressions.at(value, at)


def _vector_loop(
    body: Expr, sources: list[Source], loops: list[Loop], extents: tuple[Dim, ...]
) -> bool:
    """True when the last output loop, not the reduction, walks memory consecutively."""
    if not loops:
        return False
    for n in range(len(extents)):
        for load in loads_of(body):
            strides = sources[load.tensor].storage.strides
            slopes = [coefficient(e, f"r{n}") for e in load.index]
            if any(c == 1 and s == 1 for c, s in zip(slopes, strides, strict=True)):
                return False
    return True


def _whole_nest(
    layer: Layer, outputs: list[tuple[Value, Storage]], operands: Operands, hint: Hint
) -> NestLayer:
    """A nest that the operator gives, with producers inlined and the epilogue on its stores."""
    anchor = layer.anchor
    op = op_of(anchor)
    if op is None or op.nest is None:
        raise VerifyError(f"{anchor!r} declares no nest")
    wanted = {id(v) for v, _ in outputs}
    whole = op.nest(args_of(anchor), anchor.attrs)
    alone = len(layer.nodes) == 1 or len(anchor.outputs) > 1
    flags = [v is not None and (not alone or id(v) in wanted) for v in anchor.outputs]
    nest = keep_outputs(whole, flags, len(anchor.inputs))
    expressions = LayerExpressions(layer, operands.load)
    reads = len(anchor.inputs)
    back = 1 << 20  # operand numbers of outputs that are read back, until inputs are counted

    def inline(expr: Expr) -> Expr:
        def visit(load: Load) -> Expr:
            if load.tensor >= reads:
                return Load(back + load.tensor - reads, load.index, load.dtype)
            source = anchor.inputs[load.tensor]
            if source is None:
                raise VerifyError(f"{anchor!r} loads input {load.tensor}, which is left out")
            return expressions.at(source, load.index)

        return replace_loads(expr, visit)

    stages: list[Stage] = []
    for stage in nest.stages:
        expr = inline(stage.expr)
        store = stage.store
        if store is not None:
            result = anchor.outputs[store.tensor]
            where = tuple(inline(e) for e in store.index)
            final = next((v for v, _ in outputs if v is result), outputs[0][0])
            assert result is not None
            expr = _epilogue(layer, final, result, expr, where, operands)
            store = Store(_position(outputs, final), where)
        dtype = stage.dtype if store is None else outputs[store.tensor][0].dtype
        if stage.reduce and store is not None:
            dtype = stage.dtype
        stages.append(replace(stage, expr=expr, store=store, dtype=dtype))
    exprs = [s.expr for s in stages] + [e for s in stages if s.store for e in s.store.index]
    plain = [
        replace_loads(e, lambda x: Temp(0, (), x.dtype) if x.tensor >= back else x) for e in exprs
    ]
    used, numbers = used_sources(plain, operands.sources)
    numbers |= {back + n: len(used) + n for n in range(len(outputs))}
    stages = [
        replace(
            s,
            expr=renumber(s.expr, numbers),
            store=None if s.store is None else Store(
                s.store.tensor, tuple(renumber(e, numbers) for e in s.store.index)
            ),
        )
        for s in stages
    ]  # fmt: skip
    return _in_physical_order(NestLayer(Nest(nest.outer, tuple(stages)), used,
                                        [t for _, t in outputs]), hint)  # fmt: skip


def _in_physical_order(made: NestLayer, hint: Hint) -> NestLayer:
    """A nest of one stage has only parallel loops: run them in the order of its output's memory."""
    nest = made.nest
    if len(nest.stages) != 1:
        return made
    stage = nest.stages[0]
    store = stage.store
    if store is None:
        return made
    target = made.outputs[store.tensor]
    names = [f"o{n}" for n in range(len(nest.outer))] + [f"m{n}" for n in range(len(stage.map))]
    extents = (*nest.outer, *stage.map)
    axis_of: dict[str, int] = {}
    for axis, where in enumerate(store.index):
        if not isinstance(where, Var) and where != index(0):
            return made
        if isinstance(where, Var):
            axis_of[where.name] = axis
    if set(axis_of) != {n for n, e in zip(names, extents, strict=True) if e != 1}:
        return made
    loops = [Loop(n, e) for n, e in zip(names, extents, strict=True) if e != 1]
    loops.sort(key=lambda loop: -abs(hint(target.strides[axis_of[loop.var]])))
    rename: dict[str, Expr] = {n: index(0) for n in names}
    rename |= {
        loop.var: Var(name) for loop, name in zip(loops, _nest_names(len(loops)), strict=True)
    }
    new = replace(
        stage,
        map=tuple(loop.extent for loop in loops[-1:]),
        expr=replace_vars(stage.expr, rename),
        store=Store(store.tensor, tuple(replace_vars(e, rename) for e in store.index)),
    )
    return replace(made, nest=Nest(tuple(loop.extent for loop in loops[:-1]), (new,)))
