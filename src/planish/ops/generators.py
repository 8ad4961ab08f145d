"""Operators whose result follows from sizes and positions alone: Shape, Range, EyeLike and kin."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, const, index
from planish.base.shapes import Dim, ceildiv, product
from planish.ops.checks import (
    NUMBERS,
    dtype_attr,
    expect_dtype,
    expect_rank,
    given,
    int_attr,
    require,
    same_dtype,
    shape_of,
)
from planish.ops.op import Args, Attrs, Op, Result, unknown
from planish.ops.pointwise import single
from planish.ops.scalar import Index, add, cast, eq, ge, le, load, mul, select, size, sub
from planish.ops.sizes import LIMIT, known_floats, known_size, known_sizes, size_max

# ---- Shape, Size --------------------------------------------------------------------------------


def _infer_shape(args: Args, attrs: Attrs) -> list[Result]:
    shape = require(args, 0).shape
    if shape is None:
        return [Result(DType.I64, (unknown(0),))]
    rank = len(shape)
    start = _bounded(int_attr(attrs, "start", 0), rank)
    end = _bounded(int_attr(attrs, "end", rank), rank)
    part = shape[start:end]
    return [Result(DType.I64, (len(part),), part)]


def _bounded(axis: int, rank: int) -> int:
    return min(max(axis + rank if axis < 0 else axis, 0), rank)


def _shape(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    sizes = _infer_shape(args, attrs)[0].dims or ()
    result: Expr = size(sizes[-1]) if sizes else index(0)
    for n in reversed(range(len(sizes) - 1)):
        result = select(eq(at[0], index(n)), size(sizes[n]), result)
    return result


def _infer_size(args: Args, attrs: Attrs) -> list[Result]:
    shape = require(args, 0).shape
    return [Result(DType.I64, (), None if shape is None else (product(shape),))]


def _size(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    return size(product(shape_of(args, 0)))


# ---- Constant, ConstantOfShape ------------------------------------------------------------------


def constant_value(attrs: Attrs) -> np.ndarray:
    """The contents of a Constant.

    Raises:
        ModelError: No attribute, or one of a kind that is not dense, holds a value.
    """
    if isinstance(attrs.get("value"), np.ndarray):
        return np.asarray(attrs["value"])
    for name, dtype in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        if attrs.get(name) is not None:
            return np.array(attrs[name], dtype)
    for name in ("value_string", "value_strings"):
        if attrs.get(name) is not None:
            return np.array(attrs[name], object)
    raise ModelError(f"Constant: expected a value, found the attributes {sorted(attrs)}")


def _infer_constant(args: Args, attrs: Attrs) -> list[Result]:
    value = constant_value(attrs)
    return [Result(DType.from_numpy(value.dtype), value.shape)]


def _filler(attrs: Attrs) -> np.ndarray:
    value = attrs.get("value")
    if value is None:
        return np.zeros(1, np.float32)
    value = np.asarray(value)
    if value.size != 1:
        raise ModelError(f"ConstantOfShape: 'value' has {value.size} elements, expected 1")
    return value.reshape(1)


def _infer_constant_of_shape(args: Args, attrs: Attrs) -> list[Result]:
    target, value = require(args, 0), _filler(attrs)
    dtype = DType.from_numpy(value.dtype)
    sizes = known_sizes(target)
    if sizes is None:
        count = target.shape[0] if target.shape else None
        shape = tuple(unknown(n) for n in range(count)) if isinstance(count, int) else None
        return [Result(dtype, shape)]
    if any(isinstance(dim, int) and dim < 0 for dim in sizes):
        raise ModelError(f"ConstantOfShape: a size is negative in {sizes}")
    dims: tuple[Dim, ...] | None = None
    total = product(sizes)
    if len(sizes) <= 1 and isinstance(total, int) and total <= LIMIT and dtype.is_integer:
        dims = (int(value[0]),) * total
    return [Result(dtype, sizes, dims)]


def _constant_of_shape(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    value = _filler(attrs)
    dtype = DType.from_numpy(value.dtype)
    plain = value[0].item() if value.dtype.kind in "biuf" else float(value[0])
    return const(plain, dtype)


def _refuse_unknown_shape(args: Args, attrs: Attrs) -> str | None:
    if known_sizes(given(args, 0)) is None:
        return "the shape (input 0) is computed at run time from data"
    return None


# ---- Range --------------------------------------------------------------------------------------


def _infer_range(args: Args, attrs: Attrs) -> list[Result]:
    dtype = same_dtype(args, range(3))
    expect_dtype(args, 0, NUMBERS)
    start, limit, step = (known_size(require(args, n)) for n in range(3))
    if start is not None and limit is not None and step is not None:
        if step == 0:
            raise ModelError("Range: delta is 0, expected another number")
        if isinstance(step, int):
            count = _count(start, limit, step)
            dims: tuple[Dim, ...] | None = None
            if isinstance(count, int) and count <= LIMIT and dtype.is_integer:
                dims = tuple(start + step * n for n in range(count))
            return [Result(dtype, (count,), dims)]
    plain = [known_floats(require(args, n)) for n in range(3)]
    if all(value is not None and len(value) == 1 for value in plain):
        first, last, by = (Fraction(value[0]) for value in plain if value is not None)
        if by == 0:
            raise ModelError("Range: delta is 0, expected another number")
        return [Result(dtype, (max(0, math.ceil((last - first) / by)),))]
    return [Result(dtype, (unknown(0),))]


def _count(start: Dim, limit: Dim, step: int) -> Dim:
    if step > 0:
        return size_max(ceildiv(limit - start, step), 0)
    return size_max(ceildiv(start - limit, -step), 0)


def _range(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    dtype = require(args, 0).dtype
    start, step = _scalar(args, 0), _scalar(args, 2)
    return add(start, mul(cast(at[0], dtype), step))


def _scalar(args: Args, number: int) -> Expr:
    """The one element of an input: a literal where it is known."""
    arg = require(args, number)
    literal = single(arg)
    if literal is not None:
        return literal
    known = known_size(arg)
    if known is not None:
        return cast(size(known), arg.dtype)
    return load(number, [index(0)] * len(arg.shape or ()), arg.dtype)


def _refuse_range(args: Args, attrs: Attrs) -> str | None:
    if _infer_range(args, attrs)[0].shape == (unknown(0),):
        return "its bounds are computed at run time from data"
    return None


# ---- EyeLike, Trilu -----------------------------------------------------------------------------


def _infer_eye(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    expect_rank(x.shape, 2, 0, 2)
    return [Result(dtype_attr(attrs, "dtype", x.dtype), x.shape)]


def _eye(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    dtype = _infer_eye(args, attrs)[0].dtype
    hit = eq(sub(at[1], at[0]), index(int_attr(attrs, "k", 0)))
    return select(hit, const(1, dtype), const(0, dtype))


def _infer_trilu(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    expect_rank(x.shape, 2, 0)
    return [Result(x.dtype, x.shape)]


def _trilu(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x = require(args, 0)
    k = index(0) if given(args, 1) is None else _scalar(args, 1)
    offset = sub(at[-1], at[-2])
    kept = ge(offset, k) if int_attr(attrs, "upper", 1) else le(offset, k)
    return select(kept, load(0, at, x.dtype), const(0, x.dtype))


GENERATORS: tuple[Op, ...] = (
    Op("Shape", _infer_shape, element=_shape),
    Op("Size", _infer_size, element=_size),
    Op("Constant", _infer_constant),
    Op(
        "ConstantOfShape",
        _infer_constant_of_shape,
        element=_constant_of_shape,
        refuse=_refuse_unknown_shape,
    ),
    Op("Range", _infer_range, element=_range, refuse=_refuse_range),
    Op("EyeLike", _infer_eye, element=_eye),
    Op("Trilu", _infer_trilu, element=_trilu),
)
