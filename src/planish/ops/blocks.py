"""Operators that move blocks between axes or along them: DepthToSpace, SpaceToDepth and kin."""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, index
from planish.base.shapes import Shape, floordiv
from planish.ops.checks import (
    equal,
    expect_rank,
    int_attr,
    require,
    shape_of,
    str_attr,
    text,
)
from planish.ops.op import Args, Attrs, Fact, Op, Result, unknown
from planish.ops.scalar import Index, add, cast, clamp, load, lt, mod, mul, select, size, sub
from planish.ops.scalar import floordiv as divide

_MODES = ("DCR", "CRD")


def _block(attrs: Attrs) -> int:
    block = int_attr(attrs, "blocksize")
    if block < 1:
        raise ModelError(f"attribute 'blocksize' is {block}, expected 1 or more")
    return block


def _infer_depth_to_space(args: Args, attrs: Attrs) -> list[Result]:
    x, block = require(args, 0), _block(attrs)
    expect_rank(x.shape, 4, 0, 4)
    str_attr(attrs, "mode", "DCR", _MODES)
    if x.shape is None:
        return [Result(x.dtype, tuple(unknown(n) for n in range(4)))]
    n, c, h, w = x.shape
    channels = floordiv(c, block * block)
    facts = equal(channels * block * block, c, f"DepthToSpace of {text(x.shape)} by {block}")
    return [Result(x.dtype, (n, channels, h * block, w * block), facts=facts)]


def _depth_to_space(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, block = require(args, 0), index(int_attr(attrs, "blocksize"))
    channels = floordiv(shape_of(args, 0)[1], int_attr(attrs, "blocksize") ** 2)
    n, c, h, w = at
    inner = add(mul(mod(h, block), block), mod(w, block))
    if str_attr(attrs, "mode", "DCR", _MODES) == "DCR":
        channel = add(mul(inner, size(channels)), c)
    else:
        channel = add(mul(c, mul(block, block)), inner)
    return load(0, (n, channel, divide(h, block), divide(w, block)), x.dtype)


def _infer_space_to_depth(args: Args, attrs: Attrs) -> list[Result]:
    x, block = require(args, 0), _block(attrs)
    expect_rank(x.shape, 4, 0, 4)
    if x.shape is None:
        return [Result(x.dtype, tuple(unknown(n) for n in range(4)))]
    n, c, h, w = x.shape
    down = (floordiv(h, block), floordiv(w, block))
    facts: list[Fact] = []
    for small, large in zip(down, (h, w), strict=True):
        facts += equal(small * block, large, f"SpaceToDepth of {text(x.shape)} by {block}")
    return [Result(x.dtype, (n, c * block * block, *down), facts=tuple(facts))]


def _space_to_depth(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, block = require(args, 0), index(int_attr(attrs, "blocksize"))
    n, c, h, w = at
    if str_attr(attrs, "mode", "DCR", _MODES) == "DCR":
        channels = size(shape_of(args, 0)[1])
        channel, inner = mod(c, channels), divide(c, channels)
    else:
        channel, inner = divide(c, mul(block, block)), mod(c, mul(block, block))
    row = add(mul(h, block), divide(inner, block))
    column = add(mul(w, block), mod(inner, block))
    return load(0, (n, channel, row, column), x.dtype)


# ---- ReverseSequence ----------------------------------------------------------------------------


def _reverse_axes(shape: Shape | None, attrs: Attrs) -> tuple[int, int]:
    time, batch = int_attr(attrs, "time_axis", 0), int_attr(attrs, "batch_axis", 1)
    if {time, batch} != {0, 1}:
        raise ModelError(f"time_axis and batch_axis are {time} and {batch}, expected 0 and 1")
    expect_rank(shape, 2, 0)
    return time, batch


def _infer_reverse_sequence(args: Args, attrs: Attrs) -> list[Result]:
    x, lengths = require(args, 0), require(args, 1)
    _, batch = _reverse_axes(x.shape, attrs)
    facts: tuple[Fact, ...] = ()
    if x.shape is not None and lengths.shape is not None:
        expect_rank(lengths.shape, 1, 1, 1)
        facts = equal(lengths.shape[0], x.shape[batch], "sequence_lens against the batch")
    return [Result(x.dtype, x.shape, facts=facts)]


def _reverse_sequence(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    x, shape = require(args, 0), shape_of(args, 0)
    time, batch = _reverse_axes(shape, attrs)
    length = cast(load(1, (at[batch],), require(args, 1).dtype), DType.I64)
    turned = clamp(sub(sub(length, index(1)), at[time]), index(0), size(shape[time] - 1))
    place = select(lt(at[time], length), turned, at[time])
    return load(0, [place if n == time else i for n, i in enumerate(at)], x.dtype)


BLOCKS: tuple[Op, ...] = (
    Op("DepthToSpace", _infer_depth_to_space, element=_depth_to_space),
    Op("SpaceToDepth", _infer_space_to_depth, element=_space_to_depth),
    Op("ReverseSequence", _infer_reverse_sequence, element=_reverse_sequence),
)
