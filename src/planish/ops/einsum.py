"""Einsum: matrix products where the equation is one, else a plain sum of products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planish.base.errors import ModelError
from planish.base.expr import Expr, Temp, Var, index
from planish.base.shapes import Dim
from planish.ops.checks import (
    NUMBERS,
    expect_dtype,
    require,
    same_dtype,
    shape_of,
    str_attr,
)
from planish.ops.op import Args, Attrs, Fact, Op, Primitive, Reduction, Result
from planish.ops.scalar import Index, accumulator, cast, clamp, load, mul, size
from planish.ops.steps import Steps

# Labels of the axes that an ellipsis stands for, last axis first.
_ELLIPSIS = "0123456789"


@dataclass(frozen=True)
class _Equation:
    """Labels of each operand's axes and of the result's, and the size of each label."""

    terms: tuple[str, ...]
    result: str
    sizes: dict[str, Dim]
    facts: tuple[Fact, ...]

    @property
    def summed(self) -> str:
        """Labels that are not in the result, in order of appearance."""
        return "".join(c for c in dict.fromkeys("".join(self.terms)) if c not in self.result)


def _equation(args: Args, attrs: Attrs) -> _Equation:
    source = "".join(str_attr(attrs, "equation", "").split())
    left, arrow, right = source.partition("->")
    written = left.split(",")
    if len(written) != len(args):
        raise ModelError(f"Einsum {source!r}: {len(written)} terms for {len(args)} inputs")
    terms = [_labels(term, len(shape_of(args, n)), source) for n, term in enumerate(written)]
    dots = max((sum(c in _ELLIPSIS for c in term) for term in terms), default=0)
    hidden = _ELLIPSIS[:dots][::-1]
    if arrow:
        result = right.replace("...", hidden)
    else:
        letters = "".join(terms)
        once = {c for c in letters if letters.count(c) == 1 and c not in _ELLIPSIS}
        result = hidden + "".join(sorted(once))
    if not set(result) <= set("".join(terms)) or len(set(result)) < len(result):
        raise ModelError(f"Einsum {source!r}: a label of the result is unknown or comes twice")
    sizes: dict[str, Dim] = {}
    facts: list[Fact] = []
    for number, term in enumerate(terms):
        for label, dim in zip(term, shape_of(args, number), strict=True):
            known = sizes.setdefault(label, dim)
            if dim == 1 or dim == known:
                continue
            if known != 1 and isinstance(known, int) and isinstance(dim, int):
                raise ModelError(f"Einsum {source!r}: {label!r} is {known} and {dim}")
            if known != 1:
                facts.append(Fact("broadcast", known, dim))
            if known == 1 or isinstance(dim, int):
                sizes[label] = dim
    return _Equation(tuple(terms), result, sizes, tuple(facts))


def _labels(term: str, rank: int, source: str) -> str:
    """A label an axis; those under an ellipsis are digits."""
    named = term.replace("...", "")
    hidden = rank - len(named)
    if not all(c.isalpha() for c in named) or hidden < 0 or (hidden and "..." not in term):
        raise ModelError(f"Einsum {source!r}: the term {term!r} does not fit rank {rank}")
    return term.replace("...", _ELLIPSIS[:hidden][::-1])


def _infer(args: Args, attrs: Attrs) -> list[Result]:
    dtype = same_dtype(args, range(len(args)))
    expect_dtype(args, 0, NUMBERS)
    if any(require(args, n).shape is None for n in range(len(args))):
        return [Result(dtype, None)]
    equation = _equation(args, attrs)
    return [Result(dtype, tuple(equation.sizes[c] for c in equation.result), facts=equation.facts)]


# ---- plain form ---------------------------------------------------------------------------------


def _reduce(args: Args, attrs: Attrs, output: int, at: Index) -> Reduction:
    equation = _equation(args, attrs)
    dtype = require(args, 0).dtype
    work = accumulator(dtype)
    place: dict[str, Expr] = dict(zip(equation.result, at, strict=True))
    place |= {c: Var(f"r{n}") for n, c in enumerate(equation.summed)}
    body: Expr | None = None
    for number, term in enumerate(equation.terms):
        where = [
            _within(place[c], dim, equation.sizes[c])
            for c, dim in zip(term, shape_of(args, number), strict=True)
        ]
        x = cast(load(number, where, dtype), work)
        body = x if body is None else mul(body, x)
    assert body is not None
    extents = tuple(equation.sizes[c] for c in equation.summed)
    finish = None if work is dtype else cast(Temp(0, (), work), dtype)
    return Reduction(extents, "sum", body, finish, work)


def _within(i: Expr, dim: Dim, total: Dim) -> Expr:
    if dim == 1:
        return index(0)
    return i if dim == total else clamp(i, index(0), size(dim - 1))


# ---- as matrix products -------------------------------------------------------------------------


def _expand(args: Args, attrs: Attrs) -> list[Primitive] | None:
    """Operands are multiplied from the left; None where one step is no matrix product."""
    equation = _equation(args, attrs)
    broadcast = any(
        dim != equation.sizes[c]
        for n, term in enumerate(equation.terms)
        for c, dim in zip(term, shape_of(args, n), strict=True)
    )
    if broadcast or any(len(set(term)) < len(term) for term in equation.terms):
        return None
    steps = Steps()
    done, labels = "0", equation.terms[0]
    for number, term in enumerate(equation.terms[1:], start=1):
        later = equation.result + "".join(equation.terms[number + 1 :])
        step = _product(steps, (done, labels), (str(number), term), later, equation.sizes)
        if step is None:
            return None
        done, labels = step
    done, labels = _summed(steps, done, labels, equation.result)
    return steps.finish(_ordered(steps, done, labels, equation.result))


def _product(
    steps: Steps, a: tuple[str, str], b: tuple[str, str], later: str, sizes: dict[str, Dim]
) -> tuple[str, str] | None:
    """The product of two operands with labels: [batch, rows, k] times [batch, k, columns]."""
    x, left = _summed(steps, *a, later + b[1])
    y, right = _summed(steps, *b, later + a[1])
    both = [c for c in left if c in right]
    batch = "".join(c for c in both if c in later)
    inner = "".join(c for c in both if c not in later)
    rows = "".join(c for c in left if c not in right)
    columns = "".join(c for c in right if c not in left)
    x = _grouped(steps, _ordered(steps, x, left, batch + rows + inner), batch, rows, inner, sizes)
    y = _grouped(
        steps, _ordered(steps, y, right, batch + inner + columns), batch, inner, columns, sizes
    )
    if not x or not y:
        return None
    product = steps("MatMul", x, y)
    split = _ungrouped(steps, product, batch, rows, columns, sizes)
    return None if not split else (split, batch + rows + columns)


def _summed(steps: Steps, x: str, labels: str, wanted: str) -> tuple[str, str]:
    """Labels that nobody wants any more are summed away."""
    axes = [n for n, c in enumerate(labels) if c not in wanted]
    if not axes:
        return x, labels
    kept = "".join(c for c in labels if c in wanted)
    return steps("ReduceSum", x, np.array(axes, np.int64), keepdims=0), kept


def _ordered(steps: Steps, x: str, labels: str, wanted: str) -> str:
    if labels == wanted:
        return x
    return steps("Transpose", x, perm=tuple(labels.index(c) for c in wanted))


def _grouped(
    steps: Steps, x: str, batch: str, first: str, second: str, sizes: dict[str, Dim]
) -> str:
    """[batch…, first…, second…] as [batch…, first, second]; "" where sizes are not known."""
    if len(first) == 1 and len(second) == 1:
        return x
    target = [0] * len(batch) + [_merged(first, sizes), _merged(second, sizes)]
    return "" if target.count(-1) > 1 else steps.reshape(x, *target)


def _ungrouped(
    steps: Steps, x: str, batch: str, first: str, second: str, sizes: dict[str, Dim]
) -> str:
    """The inverse for the result."""
    if len(first) == 1 and len(second) == 1:
        return x
    target = [0] * len(batch) + [_merged(c, sizes) for c in first + second]
    return "" if target.count(-1) > 1 else steps.reshape(x, *target)


def _merged(labels: Sequence[str], sizes: dict[str, Dim]) -> int:
    """The product of sizes, -1 where it is not known."""
    total = 1
    for label in labels:
        size_ = sizes[label]
        if not isinstance(size_, int):
            return -1
        total *= size_
    return total


def _flops(args: Args, attrs: Attrs) -> Dim | None:
    if any(require(args, n).shape is None for n in range(len(args))):
        return None
    total: Dim = len(args)
    for dim in _equation(args, attrs).sizes.values():
        total = total * dim
    return total


EINSUM: tuple[Op, ...] = (Op("Einsum", _infer, expand=_expand, reduce=_reduce, flops=_flops),)
