"""Functions of two or more elements with broadcasting: arithmetic, comparison, logic, bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Const, Expr, call
from planish.ops.checks import (
    BOOL,
    FLOATS,
    INTEGERS,
    NUMBERS,
    broadcast,
    expect_dtype,
    flag_attr,
    float_attr,
    require,
    str_attr,
)
from planish.ops.op import Args, Attrs, Op, Result
from planish.ops.pointwise import fetch, pointwise, wide
from planish.ops.scalar import Index, cast, like, lt, mul, select
from planish.ops.sizes import (
    Combine,
    combine,
    known_sizes,
    size_add,
    size_div,
    size_divide_exactly,
    size_equal,
    size_less,
    size_less_equal,
    size_max,
    size_min,
    size_mod,
    size_mul,
    size_sub,
    size_where,
)

_UNROLLED_POWERS = 4  # x**n up to here is multiplications


def _plain(fn: str) -> Callable[[Attrs, Expr, Expr], Expr]:
    return lambda attrs, a, b: call(fn, a, b)


def _mod(attrs: Attrs, a: Expr, b: Expr) -> Expr:
    return call("fmod" if flag_attr(attrs, "fmod", 0) else "mod", a, b)


def _shift(attrs: Attrs, a: Expr, b: Expr) -> Expr:
    """Shifts by the width or more, or by less than 0, leave only copies of the sign."""
    if str_attr(attrs, "direction", "", ("LEFT", "RIGHT")) == "LEFT":
        return call("shl", a, b)
    if not a.dtype.is_signed:
        return call("shr", a, b)
    flipped = call("not", call("shr", call("not", a), b))
    return select(lt(a, like(0, a)), flipped, call("shr", a, b))


def _swiglu(attrs: Attrs, a: Expr, b: Expr) -> Expr:
    alpha = float_attr(attrs, "alpha", 1.0)
    gate = a if alpha == 1.0 else mul(like(alpha, a), a)
    return mul(mul(a, call("sigmoid", gate)), b)


def _variadic(fn: str) -> Callable[..., Expr]:
    def body(attrs: Attrs, *xs: Expr) -> Expr:
        return reduce(lambda a, b: call(fn, a, b), xs)

    return body


def _mean(attrs: Attrs, *xs: Expr) -> Expr:
    total = reduce(lambda a, b: call("add", a, b), xs)
    return call("div", total, like(len(xs), total))


def _infer_pow(args: Args, attrs: Attrs) -> list[Result]:
    if len(args) != 2:
        raise ModelError(f"expected 2 inputs, found {len(args)}")
    dtype = expect_dtype(args, 0, NUMBERS)
    expect_dtype(args, 1, NUMBERS)
    base, exponent = require(args, 0).shape, require(args, 1).shape
    if base is None or exponent is None:
        return [Result(dtype, None)]
    shape, facts = broadcast((base, exponent))
    return [Result(dtype, shape, facts=facts)]


def _pow(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    dtype = require(args, 0).dtype
    x, y = wide(fetch(args, 0, at)), wide(fetch(args, 1, at))
    if isinstance(y, Const) and (value := power(x, float(y.value))) is not None:
        return cast(value, dtype)
    work = DType.F64 if y.dtype.is_float and not x.dtype.is_float else x.dtype
    return cast(call("pow", cast(x, work), cast(y, work)), dtype)


def power(x: Expr, exponent: float) -> Expr | None:
    """X ** exponent in cheaper functions, where there are some."""
    if exponent in range(1, _UNROLLED_POWERS + 1):
        result = x
        for _ in range(int(exponent) - 1):
            result = mul(result, x)
        return result
    if not x.dtype.is_float:
        return None
    one = like(1, x)
    if exponent == 0:
        return one
    if exponent == 0.5:
        return call("sqrt", x)
    return call("div", one, x) if exponent == -1 else None


def _infer_where(args: Args, attrs: Attrs) -> list[Result]:
    if len(args) != 3:
        raise ModelError(f"expected 3 inputs, found {len(args)}")
    expect_dtype(args, 0, BOOL)
    dtype = require(args, 1).dtype
    if require(args, 2).dtype is not dtype:
        raise ModelError(f"inputs 1 and 2 are {dtype} and {require(args, 2).dtype}; expected one")
    shapes = [require(args, n).shape for n in range(3)]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < 3:
        return [Result(dtype, None)]
    shape, facts = broadcast(known)
    dims = combine(size_where, [known_sizes(arg) for arg in args], shape)
    return [Result(dtype, shape, dims, facts)]


def _where(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
    return select(fetch(args, 0, at), fetch(args, 1, at), fetch(args, 2, at))


_EXACT_OR_NOT: Mapping[bool, Combine] = {True: size_divide_exactly, False: size_div}

# name, function, what it does to sizes
_ARITHMETIC: tuple[tuple[str, str, Combine], ...] = (
    ("Add", "add", size_add),
    ("Sub", "sub", size_sub),
    ("Mul", "mul", size_mul),
)
_COMPARISONS: tuple[tuple[str, str, Combine], ...] = (
    ("Less", "lt", size_less),
    ("LessOrEqual", "le", size_less_equal),
    ("Greater", "gt", lambda a, b: size_less(b, a)),
    ("GreaterOrEqual", "ge", lambda a, b: size_less_equal(b, a)),
)
_VARIADIC: tuple[tuple[str, str, Combine], ...] = (
    ("Min", "min", size_min),
    ("Max", "max", size_max),
)
_LOGIC: tuple[tuple[str, str], ...] = (("And", "and"), ("Or", "or"), ("Xor", "xor"))
_BITWISE: tuple[tuple[str, str], ...] = (
    ("BitwiseAnd", "and"),
    ("BitwiseOr", "or"),
    ("BitwiseXor", "xor"),
)

BINARY: tuple[Op, ...] = (
    *(pointwise(n, _plain(f), inputs=2, accepts=NUMBERS, sizes=s) for n, f, s in _ARITHMETIC),
    pointwise("Div", _plain("div"), inputs=2, accepts=NUMBERS, sizes=_EXACT_OR_NOT),
    pointwise("Mod", _mod, inputs=2, accepts=NUMBERS, sizes={False: size_mod}),
    Op("Pow", _infer_pow, element=_pow),
    *(
        pointwise(n, _plain(f), inputs=2, accepts=NUMBERS, result=DType.BOOL, sizes=s)
        for n, f, s in _COMPARISONS
    ),
    pointwise(
        "Equal",
        _plain("eq"),
        inputs=2,
        accepts=NUMBERS | BOOL | {DType.STRING},
        result=DType.BOOL,
        sizes=size_equal,
    ),
    *(pointwise(n, _variadic(f), inputs=None, accepts=NUMBERS, sizes=s) for n, f, s in _VARIADIC),
    pointwise("Sum", _variadic("add"), inputs=None, accepts=FLOATS),
    pointwise("Mean", _mean, inputs=None, accepts=FLOATS),
    *(pointwise(n, _plain(f), inputs=2, accepts=BOOL) for n, f in _LOGIC),
    *(pointwise(n, _plain(f), inputs=2, accepts=INTEGERS) for n, f in _BITWISE),
    pointwise("BitShift", _shift, inputs=2, accepts=INTEGERS),
    pointwise("SwiGLU", _swiglu, inputs=2, accepts=FLOATS),
    Op("Where", _infer_where, element=_where),
)
