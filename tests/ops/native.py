"""Runs what an operator declares about itself, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Temp, Var, index, transform
from planish.base.nest import Nest, Stage, Store
from planish.base.shapes import Shape, evaluate
from planish.kernels.reference import run_nest
from planish.kernels.workload import Operand, Workload, dense_strides
from planish.ops.op import Arg, Args, Attrs, Op, Result
from planish.ops.prune import keep_outputs
from planish.ops.table import OPS, refusal

Arrays = Sequence[np.ndarray | None]


def args_of(inputs: Arrays, const: Sequence[int] = ()) -> list[Arg | None]:
    """What an operator knows of arrays; the contents only of those in `const`."""
    return [
        None
        if array is None
        else Arg(DType.from_numpy(array.dtype), array.shape, array if n in const else None)
        for n, array in enumerate(inputs)
    ]


def run_op(
    name: str,
    inputs: Arrays,
    attrs: Attrs,
    args: Args,
    outputs: int = 1,
    env: Mapping[str, int] | None = None,
) -> list[np.ndarray]:
    """The outputs of an operator, computed from its own declaration.

    Args:
        name: The operator.
        inputs: Its inputs.
        attrs: Its attributes.
        args: What it may know of the inputs.
        outputs: How many outputs are wanted.
        env: Values of the symbols in `args`.
    """
    op = OPS[name]
    results = op.infer(args, attrs)[:outputs]
    reason = refusal(op, args, attrs, results)
    assert reason is None, f"{name} refused: {reason}"
    if op.expand is not None and (op.expand(args, attrs) is not None or op.reduce is None):
        return _run_expansion(op, inputs, attrs, args, outputs, env or {})
    if op.nest is not None:
        nest = keep_outputs(op.nest(args, attrs), [True] * outputs, len(args))
        return _run(nest, inputs, results, env or {})
    values = []
    for number, result in enumerate(results):
        assert result.shape is not None
        nest = _as_nest(op, args, attrs, number, result.shape, result.dtype)
        values += _run(nest, inputs, [result], env or {})
    return values


def _as_nest(op: Op, args: Args, attrs: Attrs, output: int, shape: Shape, dtype: DType) -> Nest:
    at = tuple(index(0) if dim == 1 else Var(f"o{n}") for n, dim in enumerate(shape))
    store = Store(0, at)
    if op.element is not None:
        return Nest(shape, (Stage((), (), "", op.element(args, attrs, output, at), dtype, store),))
    assert op.reduce is not None
    found = op.reduce(args, attrs, output, at)
    total = Temp(0, (), found.dtype)
    finish = found.finish or total
    assert finish.dtype is dtype, f"{op.name} gives {finish.dtype} instead of {dtype}"
    finish = transform(finish, lambda e: total if isinstance(e, Temp) else e)
    return Nest(
        shape,
        (
            Stage((), found.extents, found.combiner, found.body, found.dtype),
            Stage((), (), "", finish, dtype, store),
        ),
    )


def _run(
    nest: Nest, inputs: Arrays, results: Sequence[Result], env: Mapping[str, int]
) -> list[np.ndarray]:
    for stage in nest.stages:
        if stage.store is not None:
            assert stage.expr.dtype is results[stage.store.tensor].dtype or stage.reduce
    arrays = [np.zeros(0) if array is None else array for array in inputs]
    shapes = [tuple(evaluate(d, env) for d in result.shape or ()) for result in results]
    workload = Workload(
        "nest",
        tuple(_operand(array) for array in arrays),
        tuple(
            Operand(r.dtype, shape, dense_strides(shape))
            for r, shape in zip(results, shapes, strict=True)
        ),
        nest=nest,
    )
    return run_nest(workload, arrays, env)


def _operand(array: np.ndarray) -> Operand:
    return Operand(DType.from_numpy(array.dtype), array.shape, dense_strides(array.shape))


def _run_expansion(
    op: Op,
    inputs: Arrays,
    attrs: Attrs,
    args: Args,
    outputs: int,
    env: Mapping[str, int],
) -> list[np.ndarray]:
    assert op.expand is not None
    primitives = op.expand(args, attrs)
    assert primitives is not None, f"{op.name} cannot be expanded"
    values: dict[str, tuple[np.ndarray | None, Arg | None]] = {
        str(n): (array, arg) for n, (array, arg) in enumerate(zip(inputs, args, strict=True))
    }
    for primitive in primitives:
        found = [_operand_of(x, values) for x in primitive.inputs]
        own_args = [arg for _, arg in found]
        own_attrs: dict[str, Any] = dict(primitive.attrs)
        made = run_op(
            primitive.op,
            [array for array, _ in found],
            own_attrs,
            own_args,
            len(primitive.outputs),
            env,
        )
        results = OPS[primitive.op].infer(own_args, own_attrs)
        for name, array, result in zip(primitive.outputs, made, results, strict=False):
            arg = Arg(result.dtype, result.shape, dims=result.dims)
            values[name] = (array, arg)
    found = [values[f"out{n}"] for n in range(outputs)]
    return [array for array, _ in found if array is not None]


def _operand_of(
    x: str | np.ndarray | None, values: Mapping[str, tuple[np.ndarray | None, Arg | None]]
) -> tuple[np.ndarray | None, Arg | None]:
    if x is None:
        return None, None
    if isinstance(x, str):
        return values[x]
    arg = args_of([x])[0]
    assert arg is not None
    return x, replace(arg, data=x)
