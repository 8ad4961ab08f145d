"""Nests without the outputs that nobody wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planish.base.expr import Expr, Load, Temp, transform, walk
from planish.base.nest import Nest, Stage, Store


def keep_outputs(nest: Nest, wanted: Sequence[bool], inputs: int) -> Nest:
    """A nest that stores only some of its operator's outputs.

    Stages that nothing needs any more are dropped; a stage that later stages read loses only its
    store. An output that the nest reads back is kept, wanted or not. Outputs keep their numbers.

    Args:
        nest: What `Op.nest` gave.
        wanted: One flag an output; outputs beyond its end are not wanted.
        inputs: Number of the operator's inputs, `len(args)`.
    """
    kept = {n for n, flag in enumerate(wanted) if flag}
    kept |= {
        e.tensor - inputs
        for expr in _exprs(nest.stages)
        for e in walk(expr)
        if isinstance(e, Load) and e.tensor >= inputs
    }
    stages = [
        stage if stage.store is None or stage.store.tensor in kept else replace(stage, store=None)
        for stage in nest.stages
    ]
    needed: set[int] = set()
    for number in reversed(range(len(stages))):
        if stages[number].store is not None or number in needed:
            needed.add(number)
            needed |= {e.stage for e in _temps([stages[number]])}
    numbers = {old: new for new, old in enumerate(sorted(needed))}

    def renumber(expr: Expr) -> Expr:
        return transform(
            expr,
            lambda e: Temp(numbers[e.stage], e.index, e.dtype) if isinstance(e, Temp) else e,
        )

    made: list[Stage] = []
    for number in sorted(needed):
        stage, store = stages[number], stages[number].store
        if store is not None:
            store = Store(store.tensor, tuple(map(renumber, store.index)))
        made.append(replace(stage, expr=renumber(stage.expr), store=store))
    return replace(nest, stages=tuple(made))


def _exprs(stages: Sequence[Stage]) -> list[Expr]:
    return [
        e for stage in stages for e in (stage.expr, *(stage.store.index if stage.store else ()))
    ]


def _temps(stages: Sequence[Stage]) -> list[Temp]:
    return [e for expr in _exprs(stages) for e in walk(expr) if isinstance(e, Temp)]
