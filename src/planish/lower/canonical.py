"""Workloads in canonical form: the model's symbols become d0, d1, … in order of appearance."""

from __future__ import annotations

from collections.abc import Callable

from planish.base.expr import Expr, Size, index, transform
from planish.base.nest import Nest, Stage, Store
from planish.base.shapes import Dim, substitute, symbol, symbols_of
from planish.kernels.workload import Operand, Workload, nest_dims


def canonical(workload: Workload) -> tuple[Workload, tuple[Dim, ...]]:
    """Rename a workload's symbols.

    Returns:
        The workload, and the values of its `params` in the model's symbols.
    """
    dims: list[Dim] = []
    for operand in (*workload.inputs, *workload.outputs):
        dims += [*operand.shape, *operand.strides]
    if workload.nest is not None:
        dims += nest_dims(workload.nest)
    for epilogue in (*workload.epilogue, *([workload.mask] if workload.mask else [])):
        dims += _sizes(epilogue)
    names = list(dict.fromkeys(name for dim in dims for name in sorted(symbols_of(dim))))
    if not names:
        return workload, ()
    env: dict[str, Dim] = {name: symbol(f"d{n}") for n, name in enumerate(names)}

    def size(dim: Dim) -> Dim:
        return substitute(dim, env)

    def expr(e: Expr) -> Expr:
        return transform(e, lambda x: index(size(x.dim)) if isinstance(x, Size) else x)

    def renamed(o: Operand) -> Operand:
        return Operand(o.dtype, tuple(map(size, o.shape)), tuple(map(size, o.strides)), o.const)

    made = Workload(
        workload.op,
        tuple(map(renamed, workload.inputs)),
        tuple(map(renamed, workload.outputs)),
        workload.attrs,
        tuple(map(expr, workload.epilogue)),
        None if workload.nest is None else _nest(workload.nest, size, expr),
        workload.threads,
        None if workload.mask is None else expr(workload.mask),
    )
    back = {str(new): symbol(old) for old, new in env.items()}
    return made, tuple(back[name] for name in made.params)


def _sizes(expr: Expr) -> list[Dim]:
    found: list[Dim] = []

    def visit(e: Expr) -> Expr:
        if isinstance(e, Size):
            found.append(e.dim)
        return e

    transform(expr, visit)
    return found


def _nest(nest: Nest, size: Callable[[Dim], Dim], expr: Callable[[Expr], Expr]) -> Nest:
    def stage(s: Stage) -> Stage:
        store = s.store and Store(s.store.tensor, tuple(map(expr, s.store.index)))
        return Stage(
            tuple(map(size, s.map)), tuple(map(size, s.reduce)), s.combiner, expr(s.expr), s.dtype,
            store,
        )  # fmt: skip

    return Nest(tuple(map(size, nest.outer)), tuple(map(stage, nest.stages)))
