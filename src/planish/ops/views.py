"""Operators that keep the elements in order or permute axes: Reshape, Transpose, Expand and kin."""

from __future__ import annotations

from collections.abc import Sequence

from planish.base.errors import ModelError
from planish.base.expr import Expr, index
from planish.base.shapes import Dim, Shape, Sym, floordiv, product
from planish.ops.checks import (
    axes_of,
    axis_of,
    broadcast,
    flag_attr,
    given,
    int_attr,
    ints_attr,
    require,
    shape_of,
    text,
)
from planish.ops.op import Arg, Args, Attrs, Fact, Op, Result, unknown
from planish.ops.pointwise import fetch
from planish.ops.scalar import Index, linear, load, unravel
from planish.ops.sizes import Sizes, combine, known_ints, known_sizes

MOST_AXES = 64  # as NumPy


def _infer_reshape(args: Args, attrs: Attrs) -> list[Result]:
    x, target = require(args, 0), require(args, 1)
    sizes = known_sizes(target)
    if sizes is None:
        return [Result(x.dtype, _unknown_shape(target), facts=())]
    shape, facts = reshape_target(x.shape, sizes, flag_attr(attrs, "allowzero", 0))
    dims = known_sizes(x) if shape is not None and len(shape) <= 1 else None
    return [Result(x.dtype, shape, dims, facts)]


def reshape_target(
    shape: Shape | None, target: Sizes, allow_zero: bool = False
) -> tuple[Shape, tuple[Fact, ...]]:
    """The result's shape: 0 copies a size, -1 takes what is left.

    A symbolic size in `target` is taken as a size, never as 0 or -1.

    Raises:
        ModelError: The number of elements differs, or -1 comes twice.
    """
    if sum(1 for dim in target if dim == -1) > 1:
        raise ModelError(f"Reshape to {text(target)}: expected -1 once at most")
    result = list(target)
    for axis, dim in enumerate(target):
        if isinstance(dim, int) and dim < -1:
            raise ModelError(f"Reshape to {text(target)}: expected sizes of -1 or more")
        if dim == 0 and not allow_zero:
            if shape is not None and axis >= len(shape):
                raise ModelError(f"Reshape to {text(target)} copies axis {axis} of {text(shape)}")
            result[axis] = unknown(axis) if shape is None else shape[axis]
    if shape is None:
        return tuple(unknown(n) if dim == -1 else dim for n, dim in enumerate(result)), ()
    total = product(shape)
    if -1 not in result:
        return tuple(result), _same_total(shape, tuple(result))
    rest = product(dim for dim in result if dim != -1)
    if rest == 0:
        raise ModelError(f"Reshape of {text(shape)} to {text(target)}: -1 beside 0 says nothing")
    left = floordiv(total, rest)
    found = tuple(left if dim == -1 else dim for dim in result)
    return found, _same_total(shape, found)


def _same_total(shape: Shape, target: Shape) -> tuple[Fact, ...]:
    before, after = product(shape), product(target)
    if before == after:
        return ()
    if isinstance(before, int) and isinstance(after, int):
        raise ModelError(
            f"Reshape of {text(shape)} ({before} elements) to {text(target)} ({after} elements)"
        )
    return (Fact("equal", before, after),)


def _unknown_shape(target: Arg) -> Shape | None:
    """The shape that an unknown tensor of sizes describes: its rank may be known."""
    if target.shape is None or len(target.shape) != 1 or not isinstance(target.shape[0], int):
        return None
    if target.shape[0] > MOST_AXES:
        raise ModelError(f"a tensor of {target.shape[0]} axes, expected {MOST_AXES} at most")
    return tuple(unknown(n) for n in range(target.shape[0]))


def reshape_index(source: Shape, target: Shape, at: Sequence[Expr]) -> Index:
    """The index into `source` of the element that stands at `at` in `target`.

    Axes are matched in the smallest groups of equal product, so that an axis that is not touched
    keeps its own variable and divisions appear only where axes are really cut.
    """
    found: list[Expr] = []
    for ours, theirs in _groups(source, target):
        inner = tuple(target[axis] for axis in theirs)
        position = linear([at[axis] for axis in theirs], inner)
        found += unravel(position, tuple(source[axis] for axis in ours))
    return tuple(found)


def _groups(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Pairs of runs of axes with equal products, as short as possible."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(target):
        ours, theirs = _next_group(source, target, i, j)
        groups.append((ours, theirs))
        i, j = i + len(ours), j + len(theirs)
    return groups


def _next_group(source: Shape, target: Shape, i: int, j: int) -> tuple[list[int], list[int]]:
    ours, theirs = len(source) - i, len(target) - j
    for total in range(1, ours + theirs):
        for count in range(max(0, total - theirs), min(ours, total) + 1):
            if product(source[i : i + count]) == product(target[j : j + total - count]):
                return list(range(i, i + count)), list(range(j, j + total - count))
    return list(range(i, len(source))), list(range(j, len(target)))


def _reshape(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    return _reshaped(args, _infer_reshape(args, attrs)[0], at)


def _reshaped(args: Args, result: Result, at: Index) -> Expr:
    if result.shape is None:
        raise ModelError("the result's shape is not known")
    x = require(args, 0)
    return load(0, reshape_index(shape_of(args, 0), result.shape, at), x.dtype)


def _refuse_unknown_target(args: Args, attrs: Attrs) -> str | None:
    if known_sizes(given(args, 1)) is None:
        return "the target shape (input 1) is computed at run time from data"
    return None


def _infer_flatten(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    if x.shape is None:
        return [Result(x.dtype, (unknown(0), unknown(1)))]
    axis = int_attr(attrs, "axis", 1)
    rank = len(x.shape)
    axis = rank if axis == rank else axis_of(axis, max(rank, 1))
    return [Result(x.dtype, (product(x.shape[:axis]), product(x.shape[axis:])))]


def _flatten(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    return _reshaped(args, _infer_flatten(args, attrs)[0], at)


def _infer_squeeze(args: Args, attrs: Attrs) -> list[Result]:
    x, axes = require(args, 0), given(args, 1)
    if x.shape is None:
        return [Result(x.dtype, None)]
    shape = x.shape
    if axes is None:
        if not all(isinstance(dim, int) for dim in shape):
            return [Result(x.dtype, None)]
        gone = tuple(axis for axis, dim in enumerate(shape) if dim == 1)
    else:
        known = known_ints(axes)
        if known is None:
            return [Result(x.dtype, None)]
        gone = axes_of(known, len(shape))
    facts: list[Fact] = []
    for axis in gone:
        dim = shape[axis]
        if isinstance(dim, Sym):
            facts.append(Fact("equal", dim, 1))
        elif dim != 1:
            raise ModelError(f"Squeeze of axis {axis} of {text(shape)}: expected size 1")
    result = tuple(dim for axis, dim in enumerate(shape) if axis not in gone)
    return [Result(x.dtype, result, known_sizes(x), tuple(facts))]


def _squeeze(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, shape = require(args, 0), shape_of(args, 0)
    axes = known_ints(given(args, 1))
    gone = axes_of(axes, len(shape)) if axes is not None else _ones(shape)
    rest = iter(at)
    return load(0, [index(0) if n in gone else next(rest) for n in range(len(shape))], x.dtype)


def _ones(shape: Shape) -> tuple[int, ...]:
    return tuple(axis for axis, dim in enumerate(shape) if dim == 1)


def _refuse_squeeze(args: Args, attrs: Attrs) -> str | None:
    if _infer_squeeze(args, attrs)[0].shape is None:
        return "which axes go is known at run time only"
    return None


def _infer_unsqueeze(args: Args, attrs: Attrs) -> list[Result]:
    x, axes = require(args, 0), known_ints(require(args, 1))
    if x.shape is None or axes is None:
        return [Result(x.dtype, None)]
    new = axes_of(axes, len(x.shape) + len(axes))
    rest = iter(x.shape)
    shape = tuple(1 if n in new else next(rest) for n in range(len(x.shape) + len(axes)))
    return [Result(x.dtype, shape, known_sizes(x) if len(shape) <= 1 else None)]


def _unsqueeze(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    new = axes_of(known_ints(require(args, 1)) or (), len(at))
    return load(0, [i for n, i in enumerate(at) if n not in new], require(args, 0).dtype)


def _refuse_unknown_axes(args: Args, attrs: Attrs) -> str | None:
    return "axes (input 1) are no constant" if known_ints(given(args, 1)) is None else None


def _infer_transpose(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    if x.shape is None:
        perm = ints_attr(attrs, "perm")
        shape = None if perm is None else tuple(unknown(n) for n in range(len(perm)))
        return [Result(x.dtype, shape)]
    perm = permutation(attrs, len(x.shape))
    dims = known_sizes(x) if len(perm) <= 1 else None
    return [Result(x.dtype, tuple(x.shape[axis] for axis in perm), dims)]


def permutation(attrs: Attrs, rank: int) -> tuple[int, ...]:
    """The `perm` of a Transpose; reversed axes where it is left out.

    Raises:
        ModelError: It is no permutation of the axes.
    """
    perm = ints_attr(attrs, "perm")
    if perm is None:
        return tuple(reversed(range(rank)))
    if len(perm) != rank:
        raise ModelError(f"perm is {perm}, expected {rank} axes")
    plain = tuple(axis_of(axis, rank, "perm") for axis in perm)
    axes_of(plain, rank, "perm")
    return plain


def _transpose(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    perm = permutation(attrs, len(at))
    return load(0, [at[perm.index(axis)] for axis in range(len(at))], require(args, 0).dtype)


def _infer_expand(args: Args, attrs: Attrs) -> list[Result]:
    x, target = require(args, 0), require(args, 1)
    sizes = known_sizes(target)
    if x.shape is None or sizes is None:
        return [Result(x.dtype, None if x.shape is None else _widened(x.shape, target))]
    shape, facts = broadcast((x.shape, sizes))
    dims = combine(lambda size: size, [known_sizes(x)], shape)
    return [Result(x.dtype, shape, dims, facts)]


def _widened(shape: Shape, target: Arg) -> Shape | None:
    """The rank after broadcasting to a target of known length; all sizes are open."""
    wanted = _unknown_shape(target)
    if wanted is None:
        return None
    count = max(len(wanted), len(shape))
    sizes: list[Dim] = [unknown(n) for n in range(count)]
    return tuple(sizes)


def _expand(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    shape = _infer_expand(args, attrs)[0].shape
    return fetch(args, 0, at, shape)


VIEWS: tuple[Op, ...] = (
    Op("Reshape", _infer_reshape, element=_reshape, refuse=_refuse_unknown_target),
    Op("Flatten", _infer_flatten, element=_flatten),
    Op("Squeeze", _infer_squeeze, element=_squeeze, refuse=_refuse_squeeze),
    Op("Unsqueeze", _infer_unsqueeze, element=_unsqueeze, refuse=_refuse_unknown_axes),
    Op("Transpose", _infer_transpose, element=_transpose),
    Op("Expand", _infer_expand, element=_expand, refuse=_refuse_unknown_target),
)
