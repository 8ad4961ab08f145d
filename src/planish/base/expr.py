"""Scalar expressions: what one element of a tensor is, in terms of loop variables and operands.

The one language in which operators declare their meaning to the kernels (index expressions), in
which fused prologues and epilogues are written, and from which every back end generates code.

    (add (load 0 n c) (load 1 c))            an addition with a bias, over loop variables n and c

Text form: S-expressions. `print_expr` and `parse_expr` are inverses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, Sym, parse_dim


@dataclass(frozen=True)
class Const:
    """A literal. Floats keep inf and nan; integers and bools are exact."""

    value: int | float | bool
    dtype: DType

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and _key(self) == _key(other)

    def __hash__(self) -> int:
        return hash(_key(self))


@dataclass(frozen=True)
class Var:
    """A loop variable (i64), or in an epilogue an axis of the output (`o0`, `o1`, …)."""

    name: str
    dtype: DType = DType.I64


@dataclass(frozen=True)
class Size:
    """A run-time size (i64)."""

    dim: Sym
    dtype: DType = DType.I64


@dataclass(frozen=True)
class Load:
    """The element of operand `tensor` at `index`, one i64 expression per logical axis."""

    tensor: int
    index: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True)
class Temp:
    """The value of an earlier stage of the same nest at `index`; for an epilogue `acc` is 0."""

    stage: int
    index: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True)
class Call:
    """A function of the table `FUNCTIONS` applied to expressions; `dtype` is the result's."""

    fn: str
    args: tuple[Expr, ...]
    dtype: DType


Expr = Const | Var | Size | Load | Temp | Call

# name -> number of arguments. Arithmetic takes two arguments of one dtype and gives that dtype;
# comparisons give bool; `select` takes (bool, a, b); `cast` converts its argument to `dtype`.
FUNCTIONS: dict[str, int] = {
    # arithmetic. Integer div truncates toward zero as C and ONNX do; floordiv and mod follow
    # Python's sign rule, fmod C's; shifts are logical. min and max give NaN if either is NaN.
    **dict.fromkeys(
        ("add", "sub", "mul", "div", "floordiv", "mod", "fmod", "min", "max", "pow"), 2
    ),
    **dict.fromkeys(("and", "or", "xor", "shl", "shr"), 2),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), 2),
    **dict.fromkeys(("neg", "abs", "sign", "not", "floor", "ceil", "round", "trunc"), 1),
    **dict.fromkeys(("sqrt", "exp", "log", "log1p", "expm1", "erf", "tanh", "recip", "rsqrt"), 1),
    **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan"), 1),
    **dict.fromkeys(("sinh", "cosh", "asinh", "acosh", "atanh", "sigmoid", "softplus"), 1),
    **dict.fromkeys(("isnan", "isinf", "cast"), 1),
    # fma(a, b, c) = a*b + c, rounded once or twice.
    **dict.fromkeys(("select", "fma"), 3),
}
_COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf"))


def const(value: int | float | bool | np.generic, dtype: DType) -> Const:
    """A literal of a dtype, rounded to what the dtype can hold.

    Raises:
        OverflowError: An integer does not fit the dtype.
    """
    if dtype is DType.BOOL:
        return Const(bool(value), dtype)
    if dtype.is_integer:
        whole = int(value)
        return Const(int(np.array(whole, dtype=dtype.numpy)), dtype)
    return Const(float(np.array(value).astype(dtype.numpy)), dtype)


def index(value: int | Dim) -> Expr:
    """An i64 expression of a size or a plain integer."""
    return Size(value) if isinstance(value, Sym) else Const(int(value), DType.I64)


def call(fn: str, *args: Expr, dtype: DType | None = None) -> Expr:
    """Apply a function; integer index arithmetic on literals is folded on the way.

    Args:
        fn: A name of `FUNCTIONS`.
        args: Its arguments.
        dtype: The result's dtype; needed by `cast` alone, else it follows from the arguments.

    Raises:
        ValueError: Unknown function or wrong number of arguments.
    """
    if FUNCTIONS.get(fn) != len(args):
        raise ValueError(f"{fn!r} with {len(args)} arguments is not a function of expressions")
    if dtype is None:
        dtype = DType.BOOL if fn in _COMPARISONS else args[-1].dtype
    if fn == "cast" and args[0].dtype is dtype:
        return args[0]
    return _fold_index(fn, args) or Call(fn, tuple(args), dtype)


def _fold_index(fn: str, args: tuple[Expr, ...]) -> Expr | None:
    """Integer arithmetic that needs no code: both literal, or a neutral element."""
    if len(args) != 2 or args[0].dtype is not DType.I64 or fn in _COMPARISONS:
        return None
    a, b = args
    x = a.value if isinstance(a, Const) else None
    y = b.value if isinstance(b, Const) else None
    if x is not None and y is not None and fn in _FOLD:
        return None if y == 0 and fn in ("floordiv", "mod") else index(_FOLD[fn](int(x), int(y)))
    if fn == "add" and (x == 0 or y == 0):
        return b if x == 0 else a
    if fn == "sub" and y == 0:
        return a
    if fn == "mul" and (x == 0 or y == 0):
        return index(0)
    if fn == "mul" and (x == 1 or y == 1):
        return b if x == 1 else a
    if fn == "floordiv" and y == 1:
        return a
    if fn == "mod" and y == 1:
        return index(0)
    return None


_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
}


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct sub-expressions."""
    if isinstance(expr, Load | Temp):
        return expr.index
    return expr.args if isinstance(expr, Call) else ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Every sub-expression, parents first; shared parts come once for each use."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def transform(expr: Expr, visit: Callable[[Expr], Expr]) -> Expr:
    """Rebuild an expression bottom-up; `visit` gets each node with its children done already."""
    memo: dict[int, Expr] = {}

    def rebuild(node: Expr) -> Expr:
        if id(node) in memo:
            return memo[id(node)]
        new: Expr = node
        if isinstance(node, Load):
            new = Load(node.tensor, tuple(map(rebuild, node.index)), node.dtype)
        elif isinstance(node, Temp):
            new = Temp(node.stage, tuple(map(rebuild, node.index)), node.dtype)
        elif isinstance(node, Call):
            args = tuple(map(rebuild, node.args))
            if node.fn in FUNCTIONS:
                new = call(node.fn, *args, dtype=node.dtype)
            else:  # a function of a code generator's own
                new = Call(node.fn, args, node.dtype)
        memo[id(node)] = visit(new)
        return memo[id(node)]

    return rebuild(expr)


def replace_vars(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """An expression with loop variables replaced."""
    return transform(expr, lambda e: values.get(e.name, e) if isinstance(e, Var) else e)


def replace_loads(expr: Expr, visit: Callable[[Load], Expr]) -> Expr:
    """An expression with each operand access replaced by what `visit` gives."""
    return transform(expr, lambda e: visit(e) if isinstance(e, Load) else e)


def loads_of(expr: Expr) -> list[Load]:
    """Every operand access, in order, duplicates once."""
    return list(dict.fromkeys(e for e in walk(expr) if isinstance(e, Load)))


def coefficient(expr: Expr, var: str) -> int | Sym | None:
    """The derivative d expr / d var where `expr` is affine in `var`; None where that is not known.

    The workhorse of vectorisation: 0 means uniform along `var`, 1 means consecutive.
    """
    match expr:
        case Const() | Size():
            return 0
        case Var(name=name):
            return 1 if name == var else 0
        case Load() | Temp():
            return 0 if not _mentions(expr, var) else None
        case Call(fn="add" | "sub" as fn, args=(a, b)):
            p, q = coefficient(a, var), coefficient(b, var)
            if p is None or q is None:
                return None
            return p + q if fn == "add" else p - q
        case Call(fn="mul", args=(a, b)):
            p, q = coefficient(a, var), coefficient(b, var)
            if p == 0 and q == 0:
                return 0
            if p is not None and q == 0:
                return _times(p, b)
            if q is not None and p == 0:
                return _times(q, a)
            return None
    return 0 if not _mentions(expr, var) else None


def _times(slope: int | Sym, factor: Expr) -> int | Sym | None:
    """The slope multiplied by a factor that is a literal or a size; None for other factors."""
    match factor:
        case Const(value=value):
            return slope * int(value)
        case Size(dim=dim):
            return slope * dim
    return None


def _mentions(expr: Expr, var: str) -> bool:
    return any(isinstance(e, Var) and e.name == var for e in walk(expr))


def _key(expr: Const) -> tuple[str, str]:
    return (repr(expr.value), expr.dtype.value)


def print_expr(expr: Expr) -> str:
    """The text of an expression."""
    match expr:
        case Const(value=value, dtype=DType.I64):
            return str(int(value))
        case Const(value=value, dtype=dtype):
            literal = float(value).hex() if dtype.is_float else str(int(value))
            return f"{literal}:{dtype}"
        case Var(name=name):
            return name
        case Size(dim=dim):
            return f"[{dim}]"
        case Load(tensor=n, index=at, dtype=dtype):
            return _list(f"load:{dtype}", str(n), *map(print_expr, at))
        case Temp(stage=n, index=at, dtype=dtype):
            return _list(f"temp:{dtype}", str(n), *map(print_expr, at))
        case Call(fn=fn, args=args, dtype=dtype):
            head = f"{fn}:{dtype}" if fn == "cast" else fn
            return _list(head, *map(print_expr, args))


def _list(*words: str) -> str:
    return f"({' '.join(words)})"


_TOKEN = re.compile(r"\s*(\(|\)|\[[^\]]*\]|[^\s()\[\]]+)")


def parse_expr(text: str) -> Expr:
    """Read an expression back from its text.

    Raises:
        ValueError: The text is not an expression.
    """
    tokens = _TOKEN.findall(text)
    expr, rest = _parse(tokens, 0)
    if rest != len(tokens):
        raise ValueError(f"text after the end of the expression: {text!r}")
    return expr


def _parse(tokens: list[str], at: int) -> tuple[Expr, int]:
    if at >= len(tokens):
        raise ValueError("the expression ends too early")
    token = tokens[at]
    if token != "(":
        return _parse_leaf(token), at + 1
    if at + 1 >= len(tokens):
        raise ValueError("the expression ends too early")
    head, _, tag = tokens[at + 1].partition(":")
    at += 2
    number = -1
    if head in ("load", "temp"):
        number = int(tokens[at])
        at += 1
    args: list[Expr] = []
    while at < len(tokens) and tokens[at] != ")":
        arg, at = _parse(tokens, at)
        args.append(arg)
    if at >= len(tokens):
        raise ValueError("a parenthesis is not closed")
    if head == "load":
        return Load(number, tuple(args), DType(tag)), at + 1
    if head == "temp":
        return Temp(number, tuple(args), DType(tag)), at + 1
    return call(head, *args, dtype=DType(tag) if tag else None), at + 1


def _parse_leaf(token: str) -> Expr:
    if token.startswith("["):
        dim = parse_dim(token[1:-1])
        return index(dim)
    literal, _, tag = token.partition(":")
    if tag:
        dtype = DType(tag)
        if dtype.is_float:
            special = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
            value = special[literal] if literal in special else float.fromhex(literal)
            return Const(value, dtype)
        return Const(bool(int(literal)) if dtype is DType.BOOL else int(literal), dtype)
    if literal.lstrip("-").isdigit():
        return Const(int(literal), DType.I64)
    if not literal.isidentifier():
        raise ValueError(f"{token!r} is not an expression")
    return Var(literal)
