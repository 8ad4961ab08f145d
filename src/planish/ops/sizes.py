"""Shape arithmetic: what operators do to small tensors whose elements are sizes.

Exporters compute the target of a Reshape or a Resize with Shape, Gather, Mul, Concat … Carrying the
sizes through keeps them exact and symbolic. A function here gives None where a result is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from planish.base.shapes import (
    Dim,
    Shape,
    Sym,
    dim_max,
    dim_min,
    floordiv,
    lower_bound,
    mod,
)
from planish.ops.op import Arg, is_unknown

LIMIT = 1024  # elements of a tensor that are still read as sizes

Sizes = tuple[Dim, ...]
Combine = Callable[..., Dim | None]


def known_sizes(arg: Arg | None) -> Sizes | None:
    """The contents of an input as sizes, where known: of rank 0 or 1, and whole numbers."""
    if arg is None:
        return None
    if arg.dims is not None:
        return arg.dims
    data = arg.data
    if data is None or data.ndim > 1 or data.size > LIMIT or data.dtype.kind not in "biuf":
        return None
    if data.dtype.kind == "f" and not (np.isfinite(data).all() and (data == np.trunc(data)).all()):
        return None
    values: list[float] = list(data.reshape(-1).tolist())
    return tuple(int(value) for value in values)


def known_size(arg: Arg | None) -> Dim | None:
    """The one element of an input as a size, where known."""
    sizes = known_sizes(arg)
    return sizes[0] if sizes is not None and len(sizes) == 1 else None


def known_int(arg: Arg | None) -> int | None:
    """The one element of an input as a plain integer, where known."""
    size = known_size(arg)
    return size if isinstance(size, int) else None


def known_ints(arg: Arg | None) -> tuple[int, ...] | None:
    """The contents of an input as plain integers, where known."""
    sizes = known_sizes(arg)
    if sizes is None:
        return None
    ints = tuple(size for size in sizes if isinstance(size, int))
    return ints if len(ints) == len(sizes) else None


def known_floats(arg: Arg | None) -> tuple[float, ...] | None:
    """The contents of a constant input as floats, where known and finite."""
    if arg is None or arg.data is None:
        ints = known_ints(arg)
        return None if ints is None else tuple(map(float, ints))
    if arg.data.dtype.kind not in "biuf" or not np.isfinite(arg.data).all():
        return None
    return tuple(float(value) for value in arg.data.reshape(-1))


def combine(fn: Combine, operands: Sequence[Sizes | None], shape: Shape | None) -> Sizes | None:
    """Apply a function of sizes element by element, with broadcasting of single elements.

    Args:
        fn: Gives None where a result is not known; then nothing is.
        operands: Contents of the inputs.
        shape: The result's shape; only ranks 0 and 1 with at most `LIMIT` elements carry sizes.
    """
    if shape is None or len(shape) > 1 or any(o is None for o in operands):
        return None
    known = [o for o in operands if o is not None]
    count = shape[0] if shape else 1
    if not isinstance(count, int) or count > LIMIT:
        return None
    if any(len(o) not in (1, count) for o in known):
        return None
    rows = [[o[0]] * count if len(o) == 1 else list(o) for o in known]
    results: list[Dim] = []
    for values in zip(*rows, strict=True):
        value = fn(*values)
        if value is None:
            return None
        results.append(value)
    return tuple(results)


def at_least(dim: Dim, low: int) -> bool:
    """True when a size is surely `low` or more.

    Named sizes are 1 or more, data-dependent ones 0 or more (see `Result.shape`).
    """
    bound = lower_bound(dim, lambda name: 0 if is_unknown(name) else 1)
    return bound is not None and bound >= low


def size_add(a: Dim, b: Dim) -> Dim:
    """A + b."""
    return a + b


def size_sub(a: Dim, b: Dim) -> Dim:
    """A - b."""
    return a - b


def size_mul(a: Dim, b: Dim) -> Dim:
    """A * b."""
    return a * b


def size_div(a: Dim, b: Dim) -> Dim | None:
    """A / b as integers divide: toward zero."""
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            return None
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return floordiv(a, b) if at_least(a, 0) and at_least(b, 1) else None


def size_divide_exactly(a: Dim, b: Dim) -> Dim | None:
    """A / b where it is a whole number for all values of the symbols; as floats divide."""
    if b == 0:
        return None
    quotient = floordiv(a, b)
    return quotient if quotient * b == a else None


def size_mod(a: Dim, b: Dim) -> Dim | None:
    """A % b with the sign of b."""
    return None if b == 0 else mod(a, b)


def size_min(*sizes: Dim) -> Dim:
    """The smallest."""
    best = sizes[0]
    for size in sizes[1:]:
        best = _decided(best, size, best, size, dim_min)
    return best


def size_max(*sizes: Dim) -> Dim:
    """The largest."""
    best = sizes[0]
    for size in sizes[1:]:
        best = _decided(best, size, size, best, dim_max)
    return best


def _decided(
    a: Dim, b: Dim, if_less: Dim, if_more: Dim, otherwise: Callable[[Dim, Dim], Dim]
) -> Dim:
    if at_least(b - a, 0):
        return if_less
    return if_more if at_least(a - b, 0) else otherwise(a, b)


def size_equal(a: Dim, b: Dim) -> int | None:
    """1 or 0 where it is certain."""
    if a == b:
        return 1
    if at_least(a - b, 1) or at_least(b - a, 1):
        return 0
    return None


def size_less(a: Dim, b: Dim) -> int | None:
    """A < b: 1 or 0 where it is certain."""
    if at_least(b - a, 1):
        return 1
    return 0 if at_least(a - b, 0) else None


def size_less_equal(a: Dim, b: Dim) -> int | None:
    """A <= b: 1 or 0 where it is certain."""
    flipped = size_less(b, a)
    return None if flipped is None else 1 - flipped


def size_where(condition: Dim, yes: Dim, no: Dim) -> Dim | None:
    """`yes` or `no`."""
    if yes == no:
        return yes
    return None if isinstance(condition, Sym) else yes if condition else no
