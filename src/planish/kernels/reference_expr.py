"""Evaluates expressions on NumPy arrays: the meaning of each function of `planish.base.expr`.

Edge cases are defined here, and generated code does the same: integer division by zero gives 0;
shifts by the width or more give 0; a float that fits no integer saturates and NaN becomes 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import VerifyError
from planish.base.expr import Call, Const, Expr, Load, Size, Temp, Var
from planish.base.shapes import evaluate

_NARROW = (DType.F16, DType.BF16)  # arithmetic on these is done in f32


def eval_expr(
    expr: Expr,
    vars: Mapping[str, np.ndarray],
    loads: Sequence[np.ndarray] = (),
    temps: Sequence[np.ndarray] = (),
    sizes: Mapping[str, int] | None = None,
) -> np.ndarray:
    """The value of an expression at many points at once.

    Args:
        expr: The expression.
        vars: Loop variables as i64 arrays that broadcast against each other.
        loads: Operands, in logical shapes.
        temps: Values of earlier stages. Their leading axes, beyond the ones that `Temp` indexes,
            are the outer loops and are indexed with `o0`, `o1`, ….
        sizes: Values of the symbolic sizes.

    Returns:
        An array of the expression's dtype that broadcasts against the variables.

    Raises:
        VerifyError: An operand is read outside its extents. Reads on the side of a `select` that
            is not taken do not count.
    """
    return _Evaluator(vars, loads, temps, sizes or {}).value(expr, None)


class _Evaluator:
    """One evaluation. Values are remembered, as expressions share parts."""

    def __init__(
        self,
        vars: Mapping[str, np.ndarray],
        loads: Sequence[np.ndarray],
        temps: Sequence[np.ndarray],
        sizes: Mapping[str, int],
    ) -> None:
        self._vars, self._loads, self._temps, self._sizes = vars, loads, temps, sizes
        self._memo: dict[tuple[int, int], np.ndarray] = {}
        self._kept: list[object] = []  # keeps ids of the memo's keys from being used again

    def value(self, expr: Expr, guard: np.ndarray | None) -> np.ndarray:
        """The value where `guard` holds (None: everywhere); anything elsewhere."""
        key = (id(expr), id(guard))
        if key not in self._memo:
            self._kept += [expr, guard]
            self._memo[key] = self._compute(expr, guard)
        return self._memo[key]

    def _compute(self, expr: Expr, guard: np.ndarray | None) -> np.ndarray:
        match expr:
            case Const(value=value, dtype=dtype):
                return np.array(value).astype(dtype.numpy)
            case Var(name=name):
                return self._vars[name]
            case Size(dim=dim):
                return np.array(evaluate(dim, self._sizes), np.int64)
            case Load(tensor=tensor, index=index):
                at = [self.value(e, guard) for e in index]
                return _gather(self._loads[tensor], at, guard, f"operand {tensor}")
            case Temp(stage=stage, index=index):
                whole = self._temps[stage]
                outer = [self._vars[f"o{n}"] for n in range(whole.ndim - len(index))]
                at = [*outer, *(self.value(e, guard) for e in index)]
                return _gather(whole, at, guard, f"stage {stage}")
            case Call(fn="select", args=(condition, yes, no)):
                taken = self.value(condition, guard)
                inner = taken if guard is None else taken & guard
                other = ~taken if guard is None else ~taken & guard
                return np.where(taken, self.value(yes, inner), self.value(no, other))
            case Call(fn=fn, args=args, dtype=dtype):
                return _apply(fn, [self.value(a, guard) for a in args], dtype)
        raise VerifyError(f"{expr!r} is not an expression")


def _gather(
    array: np.ndarray, at: Sequence[np.ndarray], guard: np.ndarray | None, what: str
) -> np.ndarray:
    if len(at) != array.ndim:
        raise VerifyError(f"{what} has {array.ndim} axes, but {len(at)} indices")
    if not at:
        return array
    inside = []
    for axis, (i, extent) in enumerate(zip(at, array.shape, strict=True)):
        outside = (i < 0) | (i >= extent)
        if np.any(outside if guard is None else outside & guard):
            raise VerifyError(f"{what} is read outside its extent {extent} along axis {axis}")
        inside.append(np.clip(i, 0, max(extent - 1, 0)))
    if not array.size:
        return np.zeros(np.broadcast_shapes(*(i.shape for i in at)), array.dtype)
    return np.asarray(array[tuple(inside)])


def _apply(fn: str, args: list[np.ndarray], dtype: DType) -> np.ndarray:
    source = DType.from_numpy(args[0].dtype)
    with np.errstate(all="ignore"):
        if fn == "cast":
            return cast_array(args[0], dtype)
        if fn in _EXACT:
            wide = [a.astype(np.float32) for a in args] if source in _NARROW else args
            return np.asarray(_EXACT[fn](*wide)).astype(dtype.numpy)
        if source.is_float and fn in _REAL:
            wide = [a.astype(np.float64) for a in args]
            return np.asarray(_REAL[fn](*wide)).astype(dtype.numpy)
        if not source.is_float and fn in _WHOLE:
            return np.asarray(_WHOLE[fn](*args)).astype(dtype.numpy)
    raise VerifyError(f"{fn!r} is not defined for {source}")


def cast_array(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Convert with the rules of `cast`."""
    source = DType.from_numpy(array.dtype)
    if dtype is DType.BOOL:
        return np.asarray(array != array.dtype.type(0))
    if source.is_float and dtype.is_integer:
        wide = np.trunc(array.astype(np.float64))
        limits = np.iinfo(dtype.numpy)
        top = wide >= float(limits.max)
        bottom = wide <= float(limits.min)
        inside = np.where(top | bottom | np.isnan(wide), 0.0, wide)
        whole = inside.astype(np.uint64 if dtype is DType.U64 else np.int64).astype(dtype.numpy)
        return np.where(top, limits.max, np.where(bottom, limits.min, whole)).astype(dtype.numpy)
    if source in _NARROW or dtype in _NARROW:
        middle = array.astype(np.float32) if source is not DType.F64 else array
        return middle.astype(dtype.numpy)
    return array.astype(dtype.numpy)


def _truncated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer quotient that truncates toward zero; 0 where the divisor is 0."""
    if a.dtype.kind == "u":
        return np.where(b == 0, 0, a // np.where(b == 0, 1, b))
    safe = np.where(b == 0, 1, b)
    quotient, rest = a // safe, a % safe
    quotient = quotient + ((rest != 0) & ((a < 0) != (safe < 0)))
    return np.where(b == 0, 0, quotient)


def _floored(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, 0, a // np.where(b == 0, 1, b))


def _modulo(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, 0, a % np.where(b == 0, 1, b))


def _c_remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b)))


def _whole_power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer power, wrapping; a negative exponent gives the truncated quotient 1 / a**-b."""
    if a.dtype.kind == "u":
        return np.asarray(a**b)
    result = a ** np.where(b < 0, 0, b)
    negative = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0))
    return np.where(b < 0, negative, result)


def _shift(left: bool) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def run(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        unsigned = np.dtype(f"u{a.dtype.itemsize}")
        x, by = a.astype(unsigned), b.astype(unsigned)
        wide = by >= 8 * a.dtype.itemsize
        by = np.where(wide, 0, by).astype(unsigned)
        shifted = np.where(wide, 0, x << by if left else x >> by)
        return np.asarray(shifted.astype(unsigned).view(a.dtype))

    return run


def _each(fn: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    def run(x: np.ndarray) -> np.ndarray:
        return np.fromiter(map(fn, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)

    return run


def _float_mod(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Python's float modulo: the result has the divisor's sign."""
    rest = np.fmod(a, b)
    return np.asarray(np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest))


# Functions whose result the dtype's own arithmetic gives exactly rounded, on all kinds.
_EXACT: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "fma": lambda a, b, c: a * b + c,
    "min": np.minimum,
    "max": np.maximum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "isnan": np.isnan,
    "isinf": np.isinf,
}
# On floats, computed in f64 and rounded once.
_REAL: dict[str, Callable[..., np.ndarray]] = {
    "div": np.divide,
    "floordiv": lambda a, b: np.floor(a / b),
    "mod": _float_mod,
    "fmod": np.fmod,
    "pow": np.power,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "erf": _each(math.erf),
    "tanh": np.tanh,
    "recip": lambda x: 1.0 / x,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "softplus": lambda x: np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))),
}
# On integers and bools.
_WHOLE: dict[str, Callable[..., np.ndarray]] = {
    "div": _truncated,
    "floordiv": _floored,
    "mod": _modulo,
    "fmod": _c_remainder,
    "pow": _whole_power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": _shift(True),
    "shr": _shift(False),
    "floor": np.positive,
    "ceil": np.positive,
    "round": np.positive,
    "trunc": np.positive,
}
