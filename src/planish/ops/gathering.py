"""Operators that read where other tensors say: Gather, GatherElements, GatherND, OneHot.

An index below 0 counts from the end. One that is out of range reads the nearest element: native
code never reads outside a tensor.
"""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, index
from planish.base.shapes import Dim, Shape, dim_max, product
from planish.ops.checks import (
    INTEGERS,
    NUMBERS,
    axis_of,
    equal,
    expect_dtype,
    expect_rank,
    int_attr,
    require,
    shape_of,
    text,
)
from planish.ops.op import Arg, Args, Attrs, Fact, Op, Result, unknown
from planish.ops.pointwise import single
from planish.ops.scalar import Index, add, cast, clamp, eq, load, lt, select, size
from planish.ops.sizes import at_least, known_ints, known_sizes


def place_of(args: Args, number: int, at: Index, extent: Dim) -> Expr:
    """The element of an integer input as an index along an axis of `extent`, never outside it."""
    arg = require(args, number)
    literal = single(arg)
    raw = literal if literal is not None else load(number, at, arg.dtype)
    return held(cast(raw, DType.I64), extent, arg)


def held(i: Expr, extent: Dim, arg: Arg) -> Expr:
    """An index counted from the front and held within the axis; `arg` is where it comes from."""
    low, high = _range(arg)
    if low is None or high is None:
        i = select(lt(i, index(0)), add(i, size(extent)), i)
        return clamp(i, index(0), size(extent - 1))
    if low < 0:
        i = select(lt(i, index(0)), add(i, size(extent)), i)
    if isinstance(extent, int) and -extent <= low and high < extent:
        return i
    return clamp(i, index(0), size(extent - 1))


def _range(arg: Arg) -> tuple[int | None, int | None]:
    """The least and greatest element of a constant."""
    if arg.data is not None and arg.data.size:
        return int(arg.data.min()), int(arg.data.max())
    return None, None


def _infer_gather(args: Args, attrs: Attrs) -> list[Result]:
    x, indices = require(args, 0), require(args, 1)
    expect_dtype(args, 1, INTEGERS)
    expect_rank(x.shape, 1, 0)
    if x.shape is None or indices.shape is None:
        return [Result(x.dtype, None)]
    axis = axis_of(int_attr(attrs, "axis", 0), len(x.shape))
    _check_range(indices, x.shape[axis], "Gather")
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    sizes, wanted = known_sizes(x), known_ints(indices)
    dims = None
    if sizes is not None and len(x.shape) == 1 and wanted is not None and len(shape) <= 1:
        dims = tuple(sizes[n] for n in wanted)
    return [Result(x.dtype, shape, dims)]


def _check_range(indices: Arg, extent: Dim, what: str) -> None:
    low, high = _range(indices)
    if low is None or high is None or not isinstance(extent, int):
        return
    if low < -extent or high >= extent:
        raise ModelError(
            f"{what}: constant indices span {low} to {high}, expected {-extent} to {extent - 1}"
        )


def _gather(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, shape = require(args, 0), shape_of(args, 0)
    axis = axis_of(int_attr(attrs, "axis", 0), len(shape))
    rank = len(shape_of(args, 1))
    place = place_of(args, 1, at[axis : axis + rank], shape[axis])
    return load(0, [*at[:axis], place, *at[axis + rank :]], x.dtype)


def refuse_empty_data(args: Args, attrs: Attrs) -> str | None:
    """Reading at a clamped index needs one element to read."""
    if not at_least(product(shape_of(args, 0)), 1):
        return "the data may be empty"
    return None


def _infer_gather_elements(args: Args, attrs: Attrs) -> list[Result]:
    x, indices = require(args, 0), require(args, 1)
    expect_dtype(args, 1, INTEGERS)
    facts: tuple[Fact, ...] = ()
    if x.shape is not None and indices.shape is not None:
        axis = axis_of(int_attr(attrs, "axis", 0), len(x.shape))
        if len(indices.shape) != len(x.shape):
            raise ModelError(
                f"GatherElements: data {text(x.shape)} and indices {text(indices.shape)} "
                "have different ranks"
            )
        _check_range(indices, x.shape[axis], "GatherElements")
        facts = within(indices.shape, x.shape, axis)
    return [Result(x.dtype, indices.shape, facts=facts)]


def within(indices: Shape, data: Shape, axis: int) -> tuple[Fact, ...]:
    """What must hold so that no element is looked for beyond the data on the axes besides `axis`.

    Raises:
        ModelError: It cannot hold.
    """
    facts: tuple[Fact, ...] = ()
    for n, (have, room) in enumerate(zip(indices, data, strict=True)):
        if n != axis:
            what = f"indices {text(indices)} over data {text(data)} on axis {n}"
            facts += equal(dim_max(have, room), room, what)
    return facts


def _gather_elements(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    shape = shape_of(args, 0)
    axis = axis_of(int_attr(attrs, "axis", 0), len(shape))
    place = place_of(args, 1, at, shape[axis])
    return load(0, [*at[:axis], place, *at[axis + 1 :]], require(args, 0).dtype)


def _infer_gather_nd(args: Args, attrs: Attrs) -> list[Result]:
    x, indices = require(args, 0), require(args, 1)
    expect_dtype(args, 1, INTEGERS)
    expect_rank(x.shape, 1, 0)
    expect_rank(indices.shape, 1, 1)
    if x.shape is None or indices.shape is None or not isinstance(indices.shape[-1], int):
        return [Result(x.dtype, None)]
    batch, depth = int_attr(attrs, "batch_dims", 0), indices.shape[-1]
    if not 0 <= batch < len(indices.shape) or batch + depth > len(x.shape):
        raise ModelError(
            f"GatherND: indices {text(indices.shape)} with batch_dims={batch} do not fit "
            f"data {text(x.shape)}"
        )
    facts: list[Fact] = []
    for n in range(batch):
        facts += equal(x.shape[n], indices.shape[n], f"GatherND batch axis {n}")
    shape = (*indices.shape[:-1], *x.shape[batch + depth :])
    return [Result(x.dtype, shape, facts=tuple(facts))]


def _gather_nd(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    shape, indices = shape_of(args, 0), shape_of(args, 1)
    batch, depth = int_attr(attrs, "batch_dims", 0), indices[-1]
    assert isinstance(depth, int)
    outer, inner = at[: len(indices) - 1], at[len(indices) - 1 :]
    where = [place_of(args, 1, (*outer, index(n)), shape[batch + n]) for n in range(depth)]
    return load(0, [*at[:batch], *where, *inner], require(args, 0).dtype)


def _refuse_gather_nd(args: Args, attrs: Attrs) -> str | None:
    if not isinstance(shape_of(args, 1)[-1], int):
        return "the length of an index tuple is not known"
    return refuse_empty_data(args, attrs)


def _infer_one_hot(args: Args, attrs: Attrs) -> list[Result]:
    indices, values = require(args, 0), require(args, 2)
    expect_dtype(args, 0, NUMBERS)
    if indices.shape is None:
        return [Result(values.dtype, None)]
    axis = axis_of(int_attr(attrs, "axis", -1), len(indices.shape) + 1)
    shape = (*indices.shape[:axis], _depth(args) or unknown(0), *indices.shape[axis:])
    return [Result(values.dtype, shape)]


def _depth(args: Args) -> Dim | None:
    sizes = known_sizes(require(args, 1))
    return sizes[0] if sizes is not None and len(sizes) == 1 else None


def _one_hot(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    indices, values = require(args, 0), require(args, 2)
    axis = axis_of(int_attr(attrs, "axis", -1), len(at))
    depth = size(_depth(args) or 0)
    hot = cast(load(0, [*at[:axis], *at[axis + 1 :]], indices.dtype), DType.I64)
    hot = select(lt(hot, index(0)), add(hot, depth), hot)
    off, on = (load(2, [index(n)], values.dtype) for n in (0, 1))
    return select(eq(hot, at[axis]), on, off)


def _refuse_one_hot(args: Args, attrs: Attrs) -> str | None:
    return "depth (input 1) is computed at run time" if _depth(args) is None else None


GATHERING: tuple[Op, ...] = (
    Op("Gather", _infer_gather, element=_gather, refuse=refuse_empty_data),
    Op(
        "GatherElements",
        _infer_gather_elements,
        element=_gather_elements,
        refuse=refuse_empty_data,
    ),
    Op("GatherND", _infer_gather_nd, element=_gather_nd, refuse=_refuse_gather_nd),
    Op("OneHot", _infer_one_hot, element=_one_hot, refuse=_refuse_one_hot),
)
