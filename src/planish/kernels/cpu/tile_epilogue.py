"""The epilogue of a layer's output, made ready for register tiles.

Three things are taken out of the expression: a bias that is added to the accumulator becomes the
value that the accumulators start from; operands whose elements lie affinely in the output index are
read by the tile itself, once for all pixels where they do not depend on them; the rest is left to
the expression emitter, cell by cell.

    max(add(acc, load b[o1]), 0)   ->   start = load b[o1];   max(acc, 0)
"""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.expr import Call, Expr, Load, Temp, call, transform, walk
from planish.kernels.cpu.contraction import Access, Contraction, always_read
from planish.kernels.cpu.epilogue import added_operand

# Functions that take many instructions, and about how many; all others count as one.
_LONG = {
    **dict.fromkeys(("exp", "log", "log1p", "expm1", "erf", "tanh", "pow", "sigmoid"), 25),
    **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh"), 40),
    **dict.fromkeys(("asinh", "acosh", "atanh", "softplus"), 40),
}


@dataclass(frozen=True)
class Epilogue:
    """What happens to an accumulator of one output.

    Attributes:
        start: The operand that the accumulators start from; None for zeros.
        value: The stored value, with `Temp(0)` for the accumulator and `Temp(1 + n)` for fetched n.
        fetched: Operands that the tile reads, and where they lie.
        weight: Instructions a cell, roughly.
    """

    start: tuple[Load, Access] | None
    value: Expr
    fetched: tuple[tuple[Load, Access], ...]
    weight: int


def epilogue_of(problem: Contraction, output: int, *, bias_first: bool = True) -> Epilogue:
    """Take an output's epilogue apart; the bias stays in the expression unless `bias_first`."""
    value = problem.epilogue[output]
    if value is None:
        return Epilogue(None, Temp(0, (), _sums(problem)), (), 0)
    start = _bias(problem, value) if bias_first else None
    if start is not None:
        value = _without(value, start[0])
    fetched = []
    for load in dict.fromkeys(always_read(value)):
        access = problem.access(load)
        if access is not None:
            fetched.append((load, access))
    numbers = {load: 1 + n for n, (load, _) in enumerate(fetched)}
    value = _number(value, numbers)
    return Epilogue(start, value, tuple(fetched), weight_of(value))


def weight_of(value: Expr) -> int:
    """Instructions that an expression takes, roughly."""
    return sum(_LONG.get(e.fn, 1) for e in walk(value) if isinstance(e, Call))


def _bias(problem: Contraction, value: Expr) -> tuple[Load, Access] | None:
    """The operand, the same for all pixels, that is added to the accumulator before all else."""
    if sum(isinstance(e, Temp) for e in walk(value)) != 1:
        return None
    for part in walk(value):
        load = added_operand(part)
        if load is None:
            continue
        access = problem.access(load)
        same = access is not None and all(step == 0 for step in access.steps)
        like = load.dtype is _sums(problem) and load in always_read(value)
        if same and access is not None and like:
            return load, access
    return None


def _sums(problem: Contraction) -> DType:
    """The type of the accumulators."""
    return DType.F32 if problem.product.x.is_float else DType.I32


def _without(value: Expr, bias: Load) -> Expr:
    """The expression with the bias no longer added to the accumulator."""
    (sums,) = (e for e in walk(value) if isinstance(e, Temp))
    return transform(value, lambda e: sums if added_operand(e) == bias else e)


def _number(expr: Expr, numbers: dict[Load, int]) -> Expr:
    """Replace the fetched operands by temporaries, but for those in the index of another load."""
    if isinstance(expr, Load):
        return Temp(numbers[expr], (), expr.dtype) if expr in numbers else expr
    if isinstance(expr, Call):
        args = (_number(arg, numbers) for arg in expr.args)
        return call(expr.fn, *args, dtype=expr.dtype)
    return expr
