"""ScatterElements, ScatterND, TensorScatter: the data copied, then updates put where indices say.

Updates that hit the same element are applied in order, inside one unit of work: the result does not
depend on how work is split. Indices below 0 count from the end; one out of range hits the nearest
element.
"""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, Load, Var, call, index
from planish.base.nest import Nest, Stage, Store
from planish.base.shapes import Dim
from planish.ops.checks import (
    INTEGERS,
    axis_of,
    equal,
    expect_dtype,
    expect_rank,
    given,
    int_attr,
    require,
    same_dtype,
    shape_of,
    str_attr,
    text,
)
from planish.ops.gathering import place_of, refuse_empty_data, within
from planish.ops.op import Args, Attrs, Fact, Op, Result
from planish.ops.scalar import (
    Index,
    accumulator,
    add,
    cast,
    clamp,
    load,
    loops,
    size,
)

_REDUCTIONS = {"none": "", "add": "add", "mul": "mul", "min": "min", "max": "max"}


def _combined(reduction: str, old: Expr, new: Expr) -> Expr:
    """The element after an update; half types are combined in f32."""
    fn = _REDUCTIONS[reduction]
    if not fn:
        return new
    if new.dtype is DType.BOOL:
        return call("or" if fn in ("add", "max") else "and", old, new)
    work = accumulator(new.dtype)
    return cast(call(fn, cast(old, work), cast(new, work)), new.dtype)


def _reduction(attrs: Attrs) -> str:
    return str_attr(attrs, "reduction", "none", tuple(_REDUCTIONS))


# ---- ScatterElements ----------------------------------------------------------------------------


def _infer_elements(args: Args, attrs: Attrs) -> list[Result]:
    x, indices, updates = (require(args, n) for n in range(3))
    expect_dtype(args, 1, INTEGERS)
    same_dtype(args, (0, 2))
    _reduction(attrs)
    expect_rank(x.shape, 1, 0)
    facts: list[Fact] = []
    if x.shape is not None:
        axis = axis_of(int_attr(attrs, "axis", 0), len(x.shape))
        for number, other in ((1, indices.shape), (2, updates.shape)):
            expect_rank(other, len(x.shape), number, len(x.shape))
        if indices.shape is not None:
            facts += within(indices.shape, x.shape, axis)
    if indices.shape is not None and updates.shape is not None:
        for a, b in zip(indices.shape, updates.shape, strict=True):
            facts += equal(a, b, "indices against updates")
    return [Result(x.dtype, x.shape, facts=tuple(facts))]


def _elements(args: Args, attrs: Attrs) -> Nest:
    """Parallel over the axes where indices reach as far as the data; in order along the others."""
    dtype, shape, indices = require(args, 0).dtype, shape_of(args, 0), shape_of(args, 1)
    axis, reduction = axis_of(int_attr(attrs, "axis", 0), len(shape)), _reduction(attrs)
    free = [n for n, dim in enumerate(shape) if n != axis and dim == indices[n]]
    walked = [n for n in range(len(shape)) if n not in free]
    around = loops("o", len(free))
    inside = loops("m", len(walked))

    def place(inner: Index) -> list[Expr]:
        outer, rest = iter(around), iter(inner)
        return [next(outer) if n in free else next(rest) for n in range(len(shape))]

    source = place(inside)
    target = list(source)
    target[axis] = place_of(args, 1, tuple(source), shape[axis])
    old = Load(len(args), tuple(target), dtype)
    value = _combined(reduction, old, load(2, source, dtype))
    return Nest(
        tuple(shape[n] for n in free),
        (
            Stage(tuple(shape[n] for n in walked), (), "", load(0, source, dtype), dtype,
                  Store(0, tuple(source))),
            Stage(tuple(indices[n] for n in walked), (), "", value, dtype,
                  Store(0, tuple(target))),
        ),
    )  # fmt: skip


# ---- ScatterND ----------------------------------------------------------------------------------


def _infer_nd(args: Args, attrs: Attrs) -> list[Result]:
    x, indices, updates = (require(args, n) for n in range(3))
    expect_dtype(args, 1, INTEGERS)
    same_dtype(args, (0, 2))
    _reduction(attrs)
    expect_rank(x.shape, 1, 0)
    expect_rank(indices.shape, 1, 1)
    facts: list[Fact] = []
    if x.shape is not None and indices.shape is not None and updates.shape is not None:
        depth = indices.shape[-1]
        if isinstance(depth, int):
            if depth > len(x.shape):
                raise ModelError(f"ScatterND: tuples of {depth} for data {text(x.shape)}")
            expected = (*indices.shape[:-1], *x.shape[depth:])
            if len(updates.shape) != len(expected):
                raise ModelError(
                    f"ScatterND: updates are {text(updates.shape)}, expected {text(expected)}"
                )
            for a, b in zip(updates.shape, expected, strict=True):
                facts += equal(a, b, "ScatterND: updates")
    return [Result(x.dtype, x.shape, facts=tuple(facts))]


def _nd(args: Args, attrs: Attrs) -> Nest:
    """Parallel over the axes inside a slice; slices are put in order."""
    dtype, shape, indices = require(args, 0).dtype, shape_of(args, 0), shape_of(args, 1)
    depth = indices[-1]
    assert isinstance(depth, int)
    tail = loops("o", len(shape) - depth)
    rows = loops("m", len(indices) - 1)
    whole = (*loops("m", depth), *tail)
    target = (
        *(place_of(args, 1, (*rows, index(n)), shape[n]) for n in range(depth)),
        *tail,
    )
    old = Load(len(args), target, dtype)
    value = _combined(_reduction(attrs), old, load(2, (*rows, *tail), dtype))
    return Nest(
        shape[depth:],
        (
            Stage(shape[:depth], (), "", load(0, whole, dtype), dtype, Store(0, whole)),
            Stage(indices[:-1], (), "", value, dtype, Store(0, target)),
        ),
    )


def _refuse_nd(args: Args, attrs: Attrs) -> str | None:
    if not isinstance(shape_of(args, 1)[-1], int):
        return "the length of an index tuple is not known"
    return refuse_empty_data(args, attrs)


# ---- TensorScatter ------------------------------------------------------------------------------


def _infer_tensor(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    same_dtype(args, (0, 1))
    str_attr(attrs, "mode", "linear", ("linear", "circular"))
    expect_rank(x.shape, 2, 0)
    if x.shape is not None:
        axis_of(int_attr(attrs, "axis", -2), len(x.shape))
        expect_rank(require(args, 1).shape, len(x.shape), 1, len(x.shape))
    if given(args, 2) is not None:
        expect_rank(require(args, 2).shape, 1, 2, 1)
    return [Result(x.dtype, x.shape)]


def _tensor(args: Args, attrs: Attrs) -> Nest:
    """A run of positions of a cache is replaced, from a start that each batch element has."""
    dtype, cache, update = require(args, 0).dtype, shape_of(args, 0), shape_of(args, 1)
    axis = axis_of(int_attr(attrs, "axis", -2), len(cache))
    around = loops("o", len(cache) - 1)
    m = Var("m0")

    def place(inner: Expr) -> Index:
        return (*around[:axis], inner, *around[axis:])

    start: Expr = index(0)
    if len(args) > 2 and args[2] is not None:
        start = cast(load(2, (around[0],), require(args, 2).dtype), DType.I64)
    at = add(start, m)
    if str_attr(attrs, "mode", "linear") == "circular":
        at = call("mod", at, size(cache[axis]))
    else:
        at = clamp(at, index(0), size(cache[axis] - 1))
    outer: tuple[Dim, ...] = (*cache[:axis], *cache[axis + 1 :])
    return Nest(
        outer,
        (
            Stage((cache[axis],), (), "", load(0, place(m), dtype), dtype, Store(0, place(m))),
            Stage((update[axis],), (), "", load(1, place(m), dtype), dtype, Store(0, place(at))),
        ),
    )


SCATTERING: tuple[Op, ...] = (
    Op(
        "ScatterElements",
        _infer_elements,
        nest=_elements,
        reads_back=True,
        refuse=refuse_empty_data,
    ),
    Op("ScatterND", _infer_nd, nest=_nd, reads_back=True, refuse=_refuse_nd),
    Op("TensorScatter", _infer_tensor, nest=_tensor, reads_back=True),
)
