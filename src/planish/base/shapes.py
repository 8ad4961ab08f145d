"""Sizes that may be symbolic: an integer, or a polynomial over named dims.

A `Dim` is `int | Sym`. A `Sym` is kept in normal form (a sum of integer multiples of products of
atoms), so two sizes that are equal as polynomials are equal as objects. An atom is a symbol's name
or a call of a function that no polynomial expresses (`floordiv`, `mod`, `max`, `min`).

A symbol is called as the model calls it. In the text of a size, a name that is no plain word stands
in quotes: `2*'batch size'+N`.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": max,
    "min": min,
}


@dataclass(frozen=True)
class _Call:
    """An atom `fn(a, b)` that is not a polynomial."""

    fn: str
    a: Dim
    b: Dim

    def __str__(self) -> str:
        return f"{self.fn}({self.a},{self.b})"


_Atom = str | _Call
_Monomial = tuple[_Atom, ...]  # sorted by text; () is the constant term


@dataclass(frozen=True)
class Sym:
    """A symbolic size in normal form. Make one with `symbol` and arithmetic, never directly."""

    terms: tuple[tuple[_Monomial, int], ...]

    def __str__(self) -> str:
        parts = []
        for monomial, factor in self.terms:
            names = "*".join(map(_atom_text, monomial))
            if not names:
                parts.append(str(factor))
            elif factor == 1:
                parts.append(names)
            else:
                parts.append(f"{factor}*{names}")
        return "+".join(parts).replace("+-", "-")

    __repr__ = __str__

    def __add__(self, other: Dim) -> Dim:
        total = dict(self.terms)
        for monomial, factor in _terms(other):
            total[monomial] = total.get(monomial, 0) + factor
        return _normal(total)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1

    def __rsub__(self, other: Dim) -> Dim:
        return self * -1 + other

    def __mul__(self, other: Dim) -> Dim:
        total: dict[_Monomial, int] = {}
        for left, p in self.terms:
            for right, q in _terms(other):
                monomial = tuple(sorted(left + right, key=_atom_text))
                total[monomial] = total.get(monomial, 0) + p * q
        return _normal(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of the symbolic size {self} is not known at build time")


Dim = int | Sym
Shape = tuple[Dim, ...]


def symbol(name: str) -> Sym:
    """A named unknown size; any text but the empty one is a name.

    Raises:
        ValueError: The name is empty.
    """
    if not name:
        raise ValueError("expected a name for a size, found an empty one")
    return Sym((((name,), 1),))


def name_of(dim: Dim) -> str:
    """The symbol's name where a size is just that; "" otherwise."""
    if isinstance(dim, Sym) and len(dim.terms) == 1:
        ((monomial, factor),) = dim.terms
        if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
            return monomial[0]
    return ""


def floordiv(a: Dim, b: Dim) -> Dim:
    """`a // b`, exact where every term of `a` divides."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if a == b:
        return 1
    quotient = _exact_quotient(a, b)
    if quotient is not None:
        return quotient
    if isinstance(b, int) and isinstance(a, Sym):
        whole = {m: f // b for m, f in a.terms if f % b == 0}
        rest = {m: f for m, f in a.terms if f % b}
        if whole:
            return _normal(whole) + floordiv(_normal(rest), b)
    return _call("floordiv", a, b)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """`a / b` rounded up, for positive `b`."""
    return floordiv(a + b - 1, b)


def mod(a: Dim, b: Dim) -> Dim:
    """`a % b` with the sign of `b`, as Python has it."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if b == 1 or _exact_quotient(a, b) is not None:
        return 0
    return _call("mod", a, b)


def dim_max(a: Dim, b: Dim) -> Dim:
    """The larger of two sizes."""
    if a == b:
        return a
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else _call("max", a, b)


def dim_min(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes."""
    if a == b:
        return a
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else _call("min", a, b)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of sizes; 1 for none."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def is_static(shape: Iterable[Dim]) -> bool:
    """True when no size is symbolic."""
    return all(isinstance(d, int) for d in shape)


def symbols_of(dim: Dim) -> frozenset[str]:
    """The names of all symbols in a size."""
    if isinstance(dim, int):
        return frozenset()
    found: set[str] = set()
    for monomial, _ in dim.terms:
        for atom in monomial:
            if isinstance(atom, str):
                found.add(atom)
            else:
                found |= symbols_of(atom.a) | symbols_of(atom.b)
    return frozenset(found)


def evaluate(dim: Dim, env: Mapping[str, int]) -> int:
    """The value of a size with the symbols' values given.

    Raises:
        KeyError: A symbol has no value in `env`.
    """
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, factor in dim.terms:
        for atom in monomial:
            if isinstance(atom, str):
                factor *= env[atom]
            else:
                factor *= _FUNCTIONS[atom.fn](evaluate(atom.a, env), evaluate(atom.b, env))
        total += factor
    return total


def substitute(dim: Dim, env: Mapping[str, Dim]) -> Dim:
    """A size with some symbols replaced by other sizes."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, factor in dim.terms:
        term: Dim = factor
        for atom in monomial:
            if isinstance(atom, str):
                term = term * env.get(atom, symbol(atom))
            else:
                term = term * _APPLY[atom.fn](substitute(atom.a, env), substitute(atom.b, env))
        total = total + term
    return total


def lower_bound(dim: Dim, least: Callable[[str], int]) -> int | None:
    """A number that a size is never below, where one is easily found.

    Args:
        dim: The size.
        least: The smallest value, 0 or more, of a symbol.
    """
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, factor in dim.terms:
        for atom in monomial:
            bound = least(atom) if isinstance(atom, str) else _call_bound(atom, least)
            if bound is None or bound < 0 or factor < 0:
                return None
            factor *= bound
        total += factor
    return total


def _call_bound(atom: _Call, least: Callable[[str], int]) -> int | None:
    a, b = lower_bound(atom.a, least), lower_bound(atom.b, least)
    if atom.fn == "max":
        return max((bound for bound in (a, b) if bound is not None), default=None)
    if a is None or b is None:
        return None
    if atom.fn == "min":
        return min(a, b)
    if b < 1 or (atom.fn == "floordiv" and a < 0):
        return None
    return a // atom.b if atom.fn == "floordiv" and isinstance(atom.b, int) else 0


def parse_dim(text: str) -> Dim:
    """Read a size back from its text, e.g. "2*N+floordiv(H,2)".

    Raises:
        ValueError: The text is not a size.
    """
    try:
        return _from_ast(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a size") from error


def _from_ast(tree: ast.expr) -> Dim:
    match tree:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name) | ast.Constant(value=str() as name) if name:
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _from_ast(operand) * -1
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _from_ast(left) + _from_ast(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _from_ast(left) - _from_ast(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _from_ast(left) * _from_ast(right)
        case ast.Call(func=ast.Name(id=fn), args=[a, b]) if fn in _APPLY:
            return _APPLY[fn](_from_ast(a), _from_ast(b))
    raise ValueError(f"{ast.unparse(tree)!r} is not a size")


def _atom_text(atom: _Atom) -> str:
    if isinstance(atom, _Call):
        return str(atom)
    word = atom.isascii() and atom.isidentifier() and not keyword.iskeyword(atom)
    return atom if word and atom not in _FUNCTIONS else repr(atom)


def _terms(dim: Dim) -> tuple[tuple[_Monomial, int], ...]:
    if isinstance(dim, Sym):
        return dim.terms
    return (((), int(dim)),) if dim else ()


def _normal(total: Mapping[_Monomial, int]) -> Dim:
    terms = {m: f for m, f in total.items() if f}
    if not terms:
        return 0
    if set(terms) == {()}:
        return terms[()]
    return Sym(tuple(sorted(terms.items(), key=lambda t: (-len(t[0]), str(t[0])))))


def _exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """`a / b` when `b` is one term that divides every term of `a`; None otherwise."""
    if b == 0 or len(_terms(b)) != 1:
        return None
    ((divisor, factor),) = _terms(b)
    total: dict[_Monomial, int] = {}
    for monomial, f in _terms(a):
        rest = list(monomial)
        for atom in divisor:
            if atom not in rest:
                return None
            rest.remove(atom)
        if f % factor:
            return None
        total[tuple(rest)] = f // factor
    return _normal(total)


def _call(fn: str, a: Dim, b: Dim) -> Sym:
    return Sym((((_Call(fn, a, b),), 1),))


_APPLY: dict[str, Callable[[Dim, Dim], Dim]] = {
    "floordiv": floordiv,
    "mod": mod,
    "max": dim_max,
    "min": dim_min,
}
