"""Elementary functions on scalars and vectors: f32 by polynomials, f64 by the C library.

Errors of f32 results are at most 6 ulp for erf and tanh, 3 for the others; infinities, NaN, zeros,
denormal inputs and overflow behave as C's do, except that `sigmoid` gives 0 where the true value is
denormal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planish.kernels.cpu import math_exp, math_trig
from planish.kernels.cpu.math_blocks import MathBlocks
from planish.targets.ir import Val, real


class VectorMath(MathBlocks):
    """Appends elementary functions to a function under construction."""

    def apply(self, fn: str, args: Sequence[Val]) -> Val:
        """Call an elementary function of `FUNCTIONS`.

        Long ones become functions of the module, so that code stays small where they are used more
        than once.
        """
        if fn in _COMPOSED:
            return _COMPOSED[fn](self, *args)
        if args[0].element == "double":
            return self._outlined(fn, args, lambda m, *a: m.by_lane(fn, a))
        if fn in _SHORT:
            return _SHORT[fn](self, *args)
        return self._outlined(fn, args, _LONG[fn])

    def _outlined(self, fn: str, args: Sequence[Val], body: Callable[..., Val]) -> Val:
        ty = args[0].ty
        name = f"math_{fn}_{args[0].element}{args[0].lanes}"
        module = self.f.module
        if all(function.name != name for function in module.functions):
            params = [(ty, f"x{n}") for n in range(len(args))]
            made = module.function(name, params, returns=ty, internal=True)
            made.ret(body(VectorMath(made, self.target), *made.params.values()))
        return self.f.call(name, ty, args, local=True)


def _sigmoid(m: VectorMath, x: Val) -> Val:
    one = real(1.0, x.ty)
    return m.f.fdiv(one, m.op("fadd", one, m.apply("exp", [m.neg(x)])))


def _softplus(m: VectorMath, x: Val) -> Val:
    rest = m.apply("log1p", [m.apply("exp", [m.neg(m.abs(x))])])
    return m.op("fadd", m.at_least(x, 0.0), rest)


def _recip(m: VectorMath, x: Val) -> Val:
    return m.f.fdiv(real(1.0, x.ty), x)


def _rsqrt(m: VectorMath, x: Val) -> Val:
    return _recip(m, m.sqrt(x))


_Body = Callable[..., Val]
# Built from others, for every float type.
_COMPOSED: dict[str, _Body] = {
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "recip": _recip,
    "sqrt": lambda m, x: m.sqrt(x),
    "rsqrt": _rsqrt,
}
# f32 functions that are written in place.
_SHORT: dict[str, _Body] = {"exp": math_exp.exp, "erf": math_exp.erf, "tanh": math_exp.tanh}
# f32 functions that become functions of the module.
_LONG: dict[str, _Body] = {
    "expm1": math_exp.expm1,
    "log": math_exp.log,
    "log1p": math_exp.log1p,
    "atan": math_trig.atan,
    "asin": math_trig.asin,
    "acos": math_trig.acos,
    "sinh": math_trig.sinh,
    "cosh": math_trig.cosh,
    "asinh": math_trig.asinh,
    "acosh": math_trig.acosh,
    "atanh": math_trig.atanh,
    "sin": math_trig.periodic("sin", lambda m, x: math_trig.wave(m, x, 0)),
    "cos": math_trig.periodic("cos", lambda m, x: math_trig.wave(m, x, 1)),
    "tan": math_trig.periodic("tan", math_trig.tan),
    "pow": math_trig.pow,
}
FUNCTIONS = frozenset(_COMPOSED) | frozenset(_SHORT) | frozenset(_LONG)
