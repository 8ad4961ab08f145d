"""Whatever an operator is given, `infer` gives types or a PlanishError: never another exception."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from all_cases import CASES
from case import Case
from native import args_of

from planish.base.dtypes import DType
from planish.base.errors import ModelError, PlanishError
from planish.base.expr import Var
from planish.base.shapes import symbol
from planish.ops.op import Arg, Args, Attrs, Op, Result
from planish.ops.table import OPS, refusal

_DTYPES = (DType.F32, DType.I64, DType.BOOL, DType.U8, DType.STRING)
_DIMS = (0, 1, 2, 3, 5, 7, symbol("n"), symbol("m"))


def _changed_arg(arg: Arg, rng: random.Random) -> Arg | None:
    kind = rng.randrange(6)
    if kind == 0:
        return None
    if kind == 1:
        return replace(arg, dtype=rng.choice(_DTYPES), data=None)
    if kind == 2:
        return replace(arg, shape=None, data=None)
    if kind == 3:
        return replace(arg, shape=tuple(rng.choices(_DIMS, k=rng.randrange(6))), data=None)
    if kind == 4 and arg.shape:
        shape = list(arg.shape)
        shape[rng.randrange(len(shape))] = rng.choice(_DIMS)
        return replace(arg, shape=tuple(shape), data=None)
    if arg.data is not None and arg.data.dtype.kind in "iuf":
        numbers = rng.choices((-9, -1, 0, 1, 2, 9), k=rng.randrange(4))
        data = np.array(numbers).astype(arg.data.dtype)
        return replace(arg, shape=data.shape, data=data)
    return replace(arg, data=None)


def _changed_attr(value: Any, rng: random.Random) -> Any:
    if isinstance(value, tuple):
        return tuple(rng.choices((-3, -1, 0, 1, 2, 9), k=rng.randrange(5)))
    if isinstance(value, int):
        return rng.choice((-9, -1, 0, 1, 2, 99))
    return "nonsense" if isinstance(value, str) else value


def mutations(case: Case, count: int) -> Iterator[tuple[list[Arg | None], dict[str, Any]]]:
    rng = random.Random(str(case))
    for _ in range(count):
        args, attrs = args_of(case.inputs, case.const), dict(case.attrs)
        for _ in range(rng.randrange(1, 3)):
            where = rng.randrange(len(args) + len(attrs) + 1)
            if where < len(args):
                arg = args[where]
                args[where] = None if arg is None else _changed_arg(arg, rng)
            elif where < len(args) + len(attrs):
                name = list(attrs)[where - len(args)]
                attrs[name] = _changed_attr(attrs[name], rng)
            else:
                args = args[: rng.randrange(len(args) + 1)] or args[:1]
        yield args, attrs


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_infer_fails_only_with_planish_errors(op: str) -> None:
    for case in (c for c in CASES if c.op == op):
        for args, attrs in mutations(case, 40):
            try:
                results = OPS[op].infer(args, attrs)
            except PlanishError:
                continue
            assert all(isinstance(result.dtype, DType) for result in results)
            try:
                build(OPS[op], args, attrs, results[: case.outputs])
            except PlanishError:
                continue


def build(op: Op, args: Args, attrs: Attrs, results: list[Result]) -> None:
    """What a back end asks for, where the operator does not refuse."""
    if refusal(op, args, attrs, results) is not None:
        return
    for number, result in enumerate(results):
        at = tuple(Var(f"o{n}") for n in range(len(result.shape or ())))
        if op.element is not None:
            op.element(args, attrs, number, at)
        if op.reduce is not None:
            op.reduce(args, attrs, number, at)
    if op.nest is not None:
        op.nest(args, attrs)
    if op.expand is not None:
        op.expand(args, attrs)
    if op.flops is not None:
        op.flops(args, attrs)


@pytest.mark.parametrize("op", sorted(OPS))
def test_infer_without_inputs(op: str) -> None:
    try:
        OPS[op].infer([], {})
    except PlanishError as error:
        assert isinstance(error, ModelError)
