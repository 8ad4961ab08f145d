"""Attention as ONNX has it: products, mask and softmax; and rotary position embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Expr, index
from planish.base.shapes import Dim, Shape, floordiv
from planish.ops.checks import (
    FLOATS,
    dtype_attr,
    expect_dtype,
    expect_rank,
    flag_attr,
    float_attr,
    given,
    int_attr,
    require,
    shape_of,
    text,
)
from planish.ops.gathering import place_of
from planish.ops.op import Args, Attrs, Fact, Op, Primitive, Result
from planish.ops.scalar import (
    Index,
    accumulator,
    add,
    cast,
    eq,
    load,
    lt,
    mod,
    mul,
    select,
    size,
    sub,
)
from planish.ops.scalar import (
    floordiv as divide,
)
from planish.ops.steps import Operand, Steps

_MASK, _PAST_KEY, _PAST_VALUE, _LENGTHS = 3, 4, 5, 6


@dataclass(frozen=True)
class _Sizes:
    """Sizes of an attention: heads, tokens, and widths of a head."""

    batch: Dim
    q_heads: Dim
    kv_heads: Dim
    q_tokens: Dim
    kv_tokens: Dim  # past ones included
    past: Dim
    width: Dim
    v_width: Dim
    packed: bool  # inputs are [batch, tokens, heads * width]


def _sizes(args: Args, attrs: Attrs) -> _Sizes | None:
    q, k, v = (require(args, n).shape for n in range(3))
    if q is None or k is None or v is None:
        return None
    if not len(q) == len(k) == len(v) or len(q) not in (3, 4):
        raise ModelError(
            f"Attention: Q {text(q)}, K {text(k)}, V {text(v)}: expected rank 3 or 4 for all"
        )
    packed = len(q) == 3
    if packed:
        q_heads: Dim = (queries := int_attr(attrs, "q_num_heads"))
        kv_heads: Dim = (keys := int_attr(attrs, "kv_num_heads"))
        if min(queries, keys) < 1:
            raise ModelError(f"Attention: {q_heads} and {kv_heads} heads, expected 1 or more")
        width, v_width = floordiv(q[2], q_heads), floordiv(v[2], kv_heads)
        q_tokens, new = q[1], k[1]
    else:
        q_heads, kv_heads, width, v_width = q[1], k[1], q[3], v[3]
        q_tokens, new = q[2], k[2]
    if 0 in (width, q_heads, kv_heads):
        raise ModelError(f"Attention: Q {text(q)}, K {text(k)}: expected no head of size 0")
    past_arg = given(args, _PAST_KEY)
    past: Dim = 0
    if past_arg is not None:
        expect_rank(past_arg.shape, 4, _PAST_KEY, 4)
        if past_arg.shape is None:
            return None
        past = past_arg.shape[2]
    if isinstance(q_heads, int) and isinstance(kv_heads, int) and q_heads % max(kv_heads, 1):
        raise ModelError(f"Attention: {q_heads} query heads do not share {kv_heads} key heads")
    return _Sizes(q[0], q_heads, kv_heads, q_tokens, past + new, past, width, v_width, packed)


def _infer(args: Args, attrs: Attrs) -> list[Result]:
    dtype = expect_dtype(args, 0, FLOATS)
    v_dtype = require(args, 2).dtype
    mode = int_attr(attrs, "qk_matmul_output_mode", 0)
    if mode not in range(4):
        raise ModelError(f"attribute 'qk_matmul_output_mode' is {mode}, expected 0 to 3")
    s = _sizes(args, attrs)
    if s is None:
        return [Result(t, None) for t in (dtype, dtype, v_dtype, dtype)]
    y: Shape = (s.batch, s.q_heads, s.q_tokens, s.v_width)
    if s.packed:
        y = (s.batch, s.q_tokens, s.q_heads * s.v_width)
    mask = given(args, _MASK)
    if mask is not None:
        expect_rank(mask.shape, 1, _MASK, 4)
    facts: tuple[Fact, ...] = ()
    if mask is not None and mask.shape and not isinstance(s.kv_tokens - mask.shape[-1], int):
        facts = (Fact("equal", s.kv_tokens, mask.shape[-1]),)
    return [
        Result(dtype, y, facts=facts),
        Result(dtype, (s.batch, s.kv_heads, s.kv_tokens, s.width)),
        Result(v_dtype, (s.batch, s.kv_heads, s.kv_tokens, s.v_width)),
        Result(dtype, (s.batch, s.q_heads, s.q_tokens, s.kv_tokens)),
    ]


class _Expansion:
    """Attention as primitives.

    With fewer key heads than query heads, scores are [batch, kv heads, group, q, kv]: keys are
    broadcast over the group, never repeated.
    """

    def __init__(self, args: Args, attrs: Attrs, s: _Sizes, group: int) -> None:
        self.args, self.attrs, self.s = args, attrs, s
        self.group = group
        self.steps = Steps()
        self.dtype = require(args, 0).dtype
        assert isinstance(s.kv_heads, int) and isinstance(s.width, int)
        assert isinstance(s.v_width, int)
        self.kv_heads, self.width, self.v_width = s.kv_heads, s.width, s.v_width

    def run(self) -> list[Primitive]:
        """Y, present key, present value, and what `qk_matmul_output_mode` says."""
        t = self.steps
        q = self._queries()
        key, value = self._keys(1, _PAST_KEY, self.width), self._keys(2, _PAST_VALUE, self.v_width)
        k, v = (t.unsqueeze(x, 2) if self.group > 1 else x for x in (key, value))
        last = (0, 1, 2, 4, 3) if self.group > 1 else (0, 1, 3, 2)
        scale = float_attr(self.attrs, "scale", 0.0) or 1 / math.sqrt(self.width)
        raw = t("Mul", t("MatMul", q, t("Transpose", k, perm=last)), self._number(scale))
        capped = self._capped(raw)
        bias, may_be_empty = self._bias()
        biased = capped if bias is None else t("Add", capped, bias)
        weights = self._softmax(biased)
        empty: str | None = None
        if bias is not None and may_be_empty:
            top = t("ReduceMax", bias, np.array([-1], np.int64), keepdims=1)
            empty = t("IsInf", top, detect_positive=0)
        y = t("MatMul", weights, v)
        if empty is not None:
            y = t("Where", empty, self._number(0.0), y)
            weights = t("Where", empty, self._number(0.0), weights)
        exposed = (raw, capped, biased, weights)[int_attr(self.attrs, "qk_matmul_output_mode", 0)]
        return t.finish(self._merged(y), key, value, self._ungrouped(exposed))

    def _number(self, value: float) -> np.ndarray:
        return np.array(value, self.dtype.numpy)

    def _queries(self) -> str:
        t, group = self.steps, self.group
        if not self.s.packed:
            return t.reshape("0", 0, self.kv_heads, group, -1, self.width) if group > 1 else "0"
        if group > 1:
            split = t.reshape("0", 0, 0, self.kv_heads, group, self.width)
            return t("Transpose", split, perm=(0, 2, 3, 1, 4))
        return t("Transpose", t.reshape("0", 0, 0, self.kv_heads, self.width), perm=(0, 2, 1, 3))

    def _keys(self, number: int, past: int, width: int) -> str:
        t, x = self.steps, str(number)
        if self.s.packed:
            x = t("Transpose", t.reshape(x, 0, 0, self.kv_heads, width), perm=(0, 2, 1, 3))
        return x if given(self.args, past) is None else t("Concat", str(past), x, axis=2)

    def _capped(self, scores: str) -> str:
        cap = float_attr(self.attrs, "softcap", 0.0)
        if not cap > 0:  # NaN, too
            return scores
        t = self.steps
        return t("Mul", t("Tanh", t("Div", scores, self._number(cap))), self._number(cap))

    def _bias(self) -> tuple[str | None, bool]:
        """What is added to the scores, and whether it may forbid a query every key."""
        t = self.steps
        allowed = self._allowed()
        bias = None if allowed is None else self._forbid(allowed)
        mask = given(self.args, _MASK)
        if mask is not None:
            own = self._forbid(str(_MASK)) if mask.dtype is DType.BOOL else str(_MASK)
            own = self._grouped_mask(self._padded(own))
            bias = own if bias is None else t("Add", bias, own)
        surely = mask is None and given(self.args, _LENGTHS) is None and self._windows() == (-1, -1)
        return bias, not surely

    def _windows(self) -> tuple[int, int]:
        """How far a query looks back and ahead; -1: to the end."""
        left = int_attr(self.attrs, "left_window_size", -1)
        return left, int_attr(self.attrs, "right_window_size", -1)

    def _forbid(self, allowed: str) -> str:
        return self.steps("Where", allowed, self._number(0.0), self._number(-math.inf))

    def _allowed(self) -> str | None:
        """Which query may look at which key by position: bool, broadcast to the scores."""
        t, s, attrs = self.steps, self.s, self.attrs
        lengths = given(self.args, _LENGTHS) is not None
        causal = flag_attr(attrs, "is_causal", 0)
        left, right = self._windows()
        if not causal and left < 0 and right < 0 and not lengths:
            return None
        zero, one = np.array(0, np.int64), np.array(1, np.int64)
        keys = t("Range", zero, self._kv_tokens(), one)
        count = t.size(s.q_tokens, "0", 1 if s.packed else 2)
        rows = t.unsqueeze(t("Range", zero, count, one), 1)
        conditions: list[str] = []
        rank = 4 if self.group > 1 else 3
        if lengths:
            per_batch = t.unsqueeze(str(_LENGTHS), *range(1, rank + 1))
            conditions.append(t("Less", keys, per_batch))
            place = t("Add", rows, t("Sub", per_batch, count))
        elif s.past == 0:
            place = rows
        else:
            place = t("Add", rows, t.size(s.past, str(_PAST_KEY), 2))
        if causal:
            conditions.append(t("LessOrEqual", keys, place))
        if left >= 0:
            low = t("Sub", place, np.array(left, np.int64))
            conditions.append(t("GreaterOrEqual", keys, low))
        if right >= 0:
            high = t("Add", place, np.array(right, np.int64))
            conditions.append(t("LessOrEqual", keys, high))
        allowed = conditions[0]
        for condition in conditions[1:]:
            allowed = t("And", allowed, condition)
        return allowed

    def _kv_tokens(self) -> Operand:
        t, s = self.steps, self.s
        new = t.size(s.kv_tokens - s.past, "1", 1 if s.packed else 2)
        if s.past == 0 or isinstance(s.kv_tokens, int):
            return new if s.past == 0 else np.array(s.kv_tokens, np.int64)
        return t("Add", new, t.size(s.past, str(_PAST_KEY), 2))

    def _padded(self, bias: str) -> str:
        """A mask for fewer keys than there are forbids the rest."""
        shape, total = shape_of(self.args, _MASK), self.s.kv_tokens
        missing = total - shape[-1]
        if not isinstance(missing, int) or missing <= 0 or shape[-1] == 1 == total:
            return bias
        pads = np.array([0] * (2 * len(shape) - 1) + [missing], np.int64)
        return self.steps("Pad", bias, pads, self._number(-math.inf), mode="constant")

    def _grouped_mask(self, bias: str) -> str:
        """A mask over query heads, with the heads split as the scores have them."""
        shape = shape_of(self.args, _MASK)
        if self.group == 1 or len(shape) < 3:
            return bias
        if shape[-3] == 1:
            return self.steps.unsqueeze(bias, len(shape) - 3)
        front = [0] if len(shape) == 4 else []
        return self._with_last_kept(bias, len(shape), [*front, self.kv_heads, self.group, -1])

    def _with_last_kept(self, x: str, rank: int, front: list[int]) -> str:
        """Reshape to the sizes in `front` and the last one that x has."""
        last = self.steps("Shape", x, start=rank - 1, end=rank)
        target = self.steps("Concat", np.array(front, np.int64), last, axis=0)
        return self.steps("Reshape", x, target)

    def _softmax(self, scores: str) -> str:
        t = self.steps
        precise = dtype_attr(self.attrs, "softmax_precision", self.dtype)
        if precise is self.dtype:
            return t("Softmax", scores, axis=-1)
        wide = t("Softmax", t("Cast", scores, to=precise.onnx), axis=-1)
        return t("Cast", wide, to=self.dtype.onnx)

    def _merged(self, y: str) -> str:
        t, heads = self.steps, self.kv_heads * self.group
        if not self.s.packed:
            return t.reshape(y, 0, heads, -1, self.v_width) if self.group > 1 else y
        perm = (0, 3, 1, 2, 4) if self.group > 1 else (0, 2, 1, 3)
        return t.reshape(t("Transpose", y, perm=perm), 0, 0, heads * self.v_width)

    def _ungrouped(self, scores: str) -> str:
        """Scores as [batch, heads, q, kv]."""
        if self.group == 1:
            return scores
        return self._with_last_kept(scores, 5, [0, self.kv_heads * self.group, -1])


def _expand(args: Args, attrs: Attrs) -> list[Primitive] | None:
    s = _sizes(args, attrs)
    if s is None or _refuse(args, attrs):
        return None
    assert isinstance(s.q_heads, int) and isinstance(s.kv_heads, int)
    return _Expansion(args, attrs, s, s.q_heads // s.kv_heads).run()


def _refuse(args: Args, attrs: Attrs) -> str | None:
    s = _sizes(args, attrs)
    if s is None:
        return "a rank is not known"
    if not all(isinstance(dim, int) for dim in (s.q_heads, s.kv_heads, s.width, s.v_width)):
        return "the number or the width of heads is not known"
    return None


def _flops(args: Args, attrs: Attrs) -> Dim | None:
    s = _sizes(args, attrs)
    if s is None:
        return None
    return s.batch * s.q_heads * s.q_tokens * s.kv_tokens * (s.width + s.v_width) * 2


# ---- RotaryEmbedding ----------------------------------------------------------------------------


def _infer_rotary(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    expect_dtype(args, 0, FLOATS)
    expect_rank(x.shape, 3, 0, 4)
    rank = 3 if given(args, 3) is None else 2
    for number in (1, 2):
        expect_rank(require(args, number).shape, rank, number, rank)
    if given(args, 3) is not None:
        expect_rank(require(args, 3).shape, 2, 3, 2)
    if x.shape is not None and len(x.shape) == 3 and int_attr(attrs, "num_heads", 0) < 1:
        raise ModelError("RotaryEmbedding of a rank 3 input: expected attribute 'num_heads'")
    return [Result(x.dtype, x.shape)]


def _rotary(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    """Element d of a head is turned together with its partner: d + half, or its neighbour."""
    dtype, shape = require(args, 0).dtype, shape_of(args, 0)
    work = accumulator(dtype)
    if len(shape) == 4:
        batch, _, token, d = at
        width, base = shape[3], index(0)
    else:
        batch, token, whole = at
        width = floordiv(shape[2], int_attr(attrs, "num_heads"))
        d = mod(whole, size(width))
        base = sub(whole, d)
    turned = int_attr(attrs, "rotary_embedding_dim", 0) or width
    half = floordiv(turned, 2)

    def x(element: Expr) -> Expr:
        return cast(load(0, (*at[:-1], add(base, element)), dtype), work)

    def table(number: int, i: Expr) -> Expr:
        rows = shape_of(args, number)
        row: Index = (batch, token)
        if given(args, 3) is not None:
            row = (place_of(args, 3, (batch, token), rows[0]),)
        return cast(load(number, (*row, i), require(args, number).dtype), work)

    if int_attr(attrs, "interleaved", 0):
        i = divide(d, index(2))
        first = eq(mod(d, index(2)), index(0))
        real = sub(mul(table(1, i), x(d)), mul(table(2, i), x(add(d, index(1)))))
        imaginary = add(mul(table(2, i), x(sub(d, index(1)))), mul(table(1, i), x(d)))
    else:
        first = lt(d, size(half))
        i = sub(d, size(half))
        real = sub(mul(table(1, d), x(d)), mul(table(2, d), x(add(d, size(half)))))
        imaginary = add(mul(table(2, i), x(i)), mul(table(1, i), x(d)))
    value = select(first, real, imaginary)
    if turned != width:
        value = select(lt(d, size(turned)), value, x(d))
    return cast(value, dtype)


ATTENTION: tuple[Op, ...] = (
    Op("Attention", _infer, expand=_expand, refuse=_refuse, flops=_flops),
    Op("RotaryEmbedding", _infer_rotary, element=_rotary),
)
