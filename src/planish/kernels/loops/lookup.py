"""Functions of one byte as tables of 256 bytes.

    cast u8 (… sigmoid (… cast f32 x …) …)    →    lookup x, table          x: an 8-bit operand

The table holds what the reference evaluator gives, so that it is exact. `lookup` is no function of
the language; only the CPU's expression code sees it, where a table takes less than the functions.
"""

from __future__ import annotations

import functools

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr, Load, Temp, Var, call, replace_loads, walk
from planish.kernels.reference_expr import eval_expr

# lookup(x, t): byte number x, read as unsigned, of the literal t; the lowest byte has number 0.
LOOKUP = "lookup"
_BYTES = (DType.U8, DType.I8)
_LONG = (
    *("sqrt", "exp", "log", "log1p", "expm1", "erf", "tanh", "recip", "rsqrt", "sin", "cos", "tan"),
    *("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "sigmoid", "softplus"),
    *("pow", "mod", "fmod"),
)
_WORK = {**dict.fromkeys(_LONG, 25), "div": 8}  # instructions, roughly; of all others 1


@functools.lru_cache(maxsize=512)
def looked_up(expr: Expr, least: int) -> Expr:
    """The expression with its functions of one byte as tables.

    Args:
        expr: Any expression.
        least: Instructions that a function must take to be worth a table; 0 if none is.
    """
    if not isinstance(expr, Call) or least == 0:
        return expr
    made = _table(expr, least) if expr.fn == "cast" and expr.dtype in _BYTES else None
    if made is not None:
        return made
    args = tuple(looked_up(arg, least) for arg in expr.args)
    same = all(a is b for a, b in zip(args, expr.args, strict=True))
    return expr if same else Call(expr.fn, args, expr.dtype)


def table_of(lookup: Call) -> np.ndarray:
    """The 256 bytes of a lookup."""
    literal = lookup.args[1]
    assert isinstance(literal, Const)
    return np.frombuffer(int(literal.value).to_bytes(256, "little"), np.uint8)


def _table(expr: Call, least: int) -> Expr | None:
    loads = {e for e in walk(expr) if isinstance(e, Load)}
    calls = [e for e in walk(expr) if isinstance(e, Call)]
    if len(loads) != 1 or sum(_WORK.get(call.fn, 1) for call in calls) < least:
        return None
    (load,) = loads
    if load.dtype not in _BYTES:
        return None
    free = replace_loads(expr, lambda e: call("cast", Const(0, DType.U8), dtype=e.dtype))
    if any(isinstance(e, Temp | Var) or e.dtype is DType.I64 for e in walk(free)):
        return None
    element = Load(0, (Var("i"),), load.dtype)
    data = np.arange(256, dtype=np.uint8).view(load.dtype.numpy)
    values = eval_expr(replace_loads(expr, lambda e: element), {"i": np.arange(256)}, [data])
    packed = int.from_bytes(np.broadcast_to(values, 256).tobytes(), "little")
    return Call(LOOKUP, (load, Const(packed, DType.U8)), expr.dtype)
