"""Attention as an operator of ours: what the pass fuse_attention makes, and one kernel runs."""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.shapes import Dim, product
from planish.ops.checks import (
    BOOL,
    FLOATS,
    broadcast,
    equal,
    expect_dtype,
    expect_rank,
    given,
    require,
    same_dtype,
    text,
)
from planish.ops.op import Args, Attrs, Op, Result

_Q, _K, _V, _MASK, _KEEP, _FILL = range(6)
WIDEST = 1024  # elements of a head that every target's kernel has room for


def _infer(args: Args, attrs: Attrs) -> list[Result]:
    """softmax(q·kᵀ·scale + mask, or `fill` where `keep` is false)·v.

    Inputs: q [*batch, Q, D], k [*batch, K, D], v [*batch, K, E], mask, keep and fill broadcast to
    [*batch, Q, K]; the batches broadcast to one another. Output [*batch, Q, E].
    """
    expect_dtype(args, _Q, FLOATS)
    dtype = same_dtype(args, [n for n in (_Q, _K, _V, _MASK, _FILL) if given(args, n) is not None])
    q, k, v = (require(args, n).shape for n in (_Q, _K, _V))
    for number, shape in enumerate((q, k, v)):
        expect_rank(shape, 2, number)
    if q is None or k is None or v is None:
        return [Result(dtype, None)]
    what = f"attention of {text(q)}, {text(k)} and {text(v)}"
    facts = (*equal(q[-1], k[-1], what), *equal(k[-2], v[-2], what))
    batch, more = broadcast((q[:-2], k[:-2], v[:-2]))
    scores = (*batch, q[-2], k[-2])
    for number in (_MASK, _KEEP, _FILL):
        arg = given(args, number)
        if arg is None or arg.shape is None:
            continue
        shape, extra = broadcast((scores, arg.shape))
        if shape != scores and not extra:
            raise ModelError(
                f"input {number} {text(arg.shape)} does not broadcast to the scores {text(scores)}"
            )
        facts = (*facts, *extra)
    if given(args, _KEEP) is not None:
        expect_dtype(args, _KEEP, BOOL)
        require(args, _FILL)
    return [Result(dtype, (*batch, q[-2], v[-1]), facts=(*facts, *more))]


def _refuse(args: Args, attrs: Attrs) -> str | None:
    if require(args, _Q).dtype is not DType.F32:
        return f"attention of {require(args, _Q).dtype} has no kernel"
    for number in (_Q, _V):
        width = (require(args, number).shape or (0,))[-1]
        if not isinstance(width, int) or not 1 <= width <= WIDEST:
            return f"heads of width {width} have no kernel"
    return None


def _flops(args: Args, attrs: Attrs) -> Dim | None:
    q, k, v = (require(args, n).shape for n in (_Q, _K, _V))
    shape = _infer(args, attrs)[0].shape
    if q is None or k is None or v is None or shape is None:
        return None
    return product(shape[:-1]) * k[-2] * (q[-1] + v[-1]) * 2


SCALED_ATTENTION: tuple[Op, ...] = (
    Op("planish::ScaledAttention", _infer, anchor="attention", refuse=_refuse, flops=_flops),
)
