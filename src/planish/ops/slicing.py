"""Operators that cut and join along axes: Slice, Split, Concat."""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.errors import ModelError
from planish.base.expr import Expr, index
from planish.base.shapes import Dim, Shape, Sym, ceildiv
from planish.ops.checks import (
    axis_of,
    equal,
    given,
    int_attr,
    require,
    same_dtype,
    shape_of,
    text,
)
from planish.ops.op import Arg, Args, Attrs, Fact, Op, Result, unknown
from planish.ops.scalar import (
    Index,
    add,
    load,
    lt,
    mul,
    select,
    size,
    sub,
)
from planish.ops.sizes import LIMIT, at_least, known_ints, known_sizes, size_max, size_min

_FAR = 2**31 - 1  # exporters write "to the end" as a number at least this large


# ---- Slice --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """What Slice keeps of one axis: `count` elements from `start`, `step` apart."""

    start: Dim
    step: int
    count: Dim


def cuts_of(args: Args) -> dict[int, Cut] | None:
    """The axes that a Slice cuts; None where starts, ends, axes or steps are not known.

    Raises:
        ModelError: They do not fit each other or the data.
    """
    shape = require(args, 0).shape
    starts, ends = known_sizes(require(args, 1)), known_sizes(require(args, 2))
    if shape is None or starts is None or ends is None:
        return None
    axes, steps = given(args, 3), given(args, 4)
    where_ = tuple(range(len(starts))) if axes is None else known_ints(axes)
    by = (1,) * len(starts) if steps is None else known_ints(steps)
    if where_ is None or by is None:
        return None
    if not len(starts) == len(ends) == len(where_) == len(by):
        raise ModelError(
            f"Slice: expected as many starts as ends, axes and steps, found {len(starts)}, "
            f"{len(ends)}, {len(where_)} and {len(by)}"
        )
    cuts: dict[int, Cut] = {}
    for start, end, axis, step in zip(starts, ends, where_, by, strict=True):
        if step == 0:
            raise ModelError("Slice: a step is 0, expected another number")
        place = axis_of(axis, len(shape), "axes")
        cut = _cut(shape[place], start, end, step)
        if cut is None:
            return None
        cuts[place] = cut
    return cuts


def _cut(dim: Dim, start: Dim, end: Dim, step: int) -> Cut | None:
    first, last = _from_front(start, dim, step), _from_front(end, dim, step)
    if first is None or last is None:
        return None
    if step > 0:
        first, last = size_max(first, 0), size_min(last, dim)
        return Cut(first, step, size_max(ceildiv(last - first, step), 0))
    first, last = size_min(first, dim - 1), size_max(last, -1)
    return Cut(first, step, size_max(ceildiv(first - last, -step), 0))


def _from_front(bound: Dim, dim: Dim, step: int) -> Dim | None:
    """A bound counted from the front; what is far outside lands just outside.

    None for a symbolic bound that may have either sign.
    """
    if isinstance(bound, int):
        if bound >= _FAR:
            return dim
        if bound <= -_FAR:
            return -1 if step < 0 else 0
        return bound + dim if bound < 0 else bound
    if at_least(bound, 0):
        return bound
    return bound + dim if at_least(bound * -1, 1) else None


def _infer_slice(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    if x.shape is None:
        return [Result(x.dtype, None)]
    cuts = cuts_of(args)
    if cuts is None:
        return [Result(x.dtype, _open_axes(x.shape, given(args, 3)))]
    shape = tuple(cuts[n].count if n in cuts else dim for n, dim in enumerate(x.shape))
    return [Result(x.dtype, shape, _sliced_sizes(x, cuts))]


def _open_axes(shape: Shape, axes: Arg | None) -> Shape:
    """A shape with the sizes open along the axes that are cut, or along all."""
    ints = known_ints(axes)
    cut = range(len(shape)) if ints is None else [axis_of(axis, len(shape)) for axis in ints]
    return tuple(unknown(n) if n in cut else dim for n, dim in enumerate(shape))


def _sliced_sizes(x: Arg, cuts: dict[int, Cut]) -> tuple[Dim, ...] | None:
    sizes = known_sizes(x)
    if sizes is None or x.shape is None or len(x.shape) != 1:
        return sizes if not cuts else None
    cut = cuts.get(0, Cut(0, 1, x.shape[0]))
    if not isinstance(cut.start, int) or not isinstance(cut.count, int):
        return None
    return tuple(sizes[cut.start + cut.step * n] for n in range(cut.count))


def _slice(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    cuts = cuts_of(args) or {}
    place = [
        add(mul(i, index(cuts[n].step)), size(cuts[n].start)) if n in cuts else i
        for n, i in enumerate(at)
    ]
    return load(0, place, require(args, 0).dtype)


def _refuse_slice(args: Args, attrs: Attrs) -> str | None:
    return None if cuts_of(args) is not None else "starts or ends are computed at run time"


# ---- Split --------------------------------------------------------------------------------------


def _split_parts(args: Args, attrs: Attrs) -> tuple[int, tuple[Dim, ...] | None]:
    """The axis and the sizes of the parts; None where the sizes are not known."""
    shape = shape_of(args, 0)
    axis = axis_of(int_attr(attrs, "axis", 0), len(shape))
    split = given(args, 1)
    if split is not None:
        return axis, known_sizes(split)
    count = int_attr(attrs, "num_outputs")
    if count < 1:
        raise ModelError(f"Split: num_outputs is {count}, expected 1 or more")
    part = ceildiv(shape[axis], count)
    return axis, (*[part] * (count - 1), shape[axis] - part * (count - 1))


def _infer_split(args: Args, attrs: Attrs) -> list[Result]:
    x, split = require(args, 0), given(args, 1)
    if x.shape is None:
        count = int(attrs.get("num_outputs", 1))
        if split is not None and split.shape and isinstance(split.shape[0], int):
            count = split.shape[0]
        return [Result(x.dtype, None)] * count
    axis, parts = _split_parts(args, attrs)
    facts: tuple[Fact, ...] = ()
    if parts is None:
        length = split.shape[0] if split is not None and split.shape else 1
        parts = tuple(unknown(n) for n in range(length if isinstance(length, int) else 1))
    else:
        facts = equal(_total(parts), x.shape[axis], f"Split of axis {axis} of {text(x.shape)}")
    sizes, offset = known_sizes(x), 0
    results: list[Result] = []
    for part in parts:
        dims = None
        if sizes is not None and len(x.shape) == 1 and isinstance(part, int):
            dims, offset = sizes[offset : offset + part], offset + part
        shape = (*x.shape[:axis], part, *x.shape[axis + 1 :])
        results.append(Result(x.dtype, shape, dims, facts))
    return results


def _total(parts: tuple[Dim, ...]) -> Dim:
    total: Dim = 0
    for part in parts:
        total = total + part
    return total


def _split(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    axis, parts = _split_parts(args, attrs)
    start = size(_total((parts or ())[:output]))
    place = [add(i, start) if n == axis else i for n, i in enumerate(at)]
    return load(0, place, require(args, 0).dtype)


def _refuse_split(args: Args, attrs: Attrs) -> str | None:
    return (
        "split (input 1) is computed at run time" if _split_parts(args, attrs)[1] is None else None
    )


# ---- Concat -------------------------------------------------------------------------------------


def _infer_concat(args: Args, attrs: Attrs) -> list[Result]:
    dtype = same_dtype(args, range(len(args)))
    shapes = [require(args, n).shape for n in range(len(args))]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return [Result(dtype, None)]
    rank = len(known[0])
    axis = axis_of(int_attr(attrs, "axis"), rank)
    facts: list[Fact] = []
    shape = list(known[0])
    for other in known[1:]:
        if len(other) != rank:
            raise ModelError(f"Concat: ranks of {text(known[0])} and {text(other)} differ")
        for n in range(rank):
            if n != axis:
                what = f"Concat of {text(known[0])} and {text(other)} along axis {axis}"
                facts += equal(shape[n], other[n], what)
                shape[n] = other[n] if isinstance(shape[n], Sym) else shape[n]
    shape[axis] = _total(tuple(s[axis] for s in known)) if len(known) == len(shapes) else unknown(0)
    sizes = [known_sizes(arg) for arg in args]
    joined = tuple(size for part in sizes if part is not None for size in part)
    complete = rank == 1 and len(joined) <= LIMIT and all(part is not None for part in sizes)
    return [Result(dtype, tuple(shape), joined if complete else None, tuple(facts))]


def _concat(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    axis = axis_of(int_attr(attrs, "axis"), len(at))
    dtype = require(args, 0).dtype
    parts = [(n, shape_of(args, n)[axis]) for n in range(len(args))]
    parts = [(n, extent) for n, extent in parts if extent != 0]
    if len(parts) < 2:
        return load(parts[0][0] if parts else 0, at, dtype)
    result: Expr | None = None
    end: Dim = _total(tuple(extent for _, extent in parts))
    for n, extent in reversed(parts):
        begin = end - extent
        inside = sub(at[axis], size(begin))
        value = load(n, [*at[:axis], inside, *at[axis + 1 :]], dtype)
        result = value if result is None else select(lt(at[axis], size(end)), value, result)
        end = begin
    assert result is not None
    return result


SLICING: tuple[Op, ...] = (
    Op("Slice", _infer_slice, element=_slice, refuse=_refuse_slice),
    Op("Split", _infer_split, element=_split, refuse=_refuse_split),
    Op("Concat", _infer_concat, element=_concat),
)
