"""Symbolic sizes: arithmetic agrees with that of the values, and text comes back as it went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.base.shapes import (
    Dim,
    Sym,
    ceildiv,
    dim_max,
    dim_min,
    evaluate,
    floordiv,
    is_static,
    mod,
    name_of,
    parse_dim,
    product,
    substitute,
    symbol,
    symbols_of,
)

N, H = symbol("N"), symbol("H")
ENVS = [{"N": n, "H": h} for n in (1, 2, 5, 12) for h in (1, 3, 8)]


def dims() -> st.SearchStrategy[Dim]:
    """Sizes over N and H."""
    leaves = st.one_of(st.integers(-6, 12), st.sampled_from([N, H]))

    def grow(inner: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
        pair = st.tuples(inner, inner)
        divided = st.tuples(inner, st.integers(1, 7))
        return st.one_of(
            pair.map(lambda p: p[0] + p[1]),
            pair.map(lambda p: p[0] - p[1]),
            pair.map(lambda p: p[0] * p[1]),
            pair.map(lambda p: dim_max(*p)),
            pair.map(lambda p: dim_min(*p)),
            divided.map(lambda p: floordiv(*p)),
            divided.map(lambda p: mod(*p)),
            divided.map(lambda p: ceildiv(*p)),
        )

    return st.recursive(leaves, grow, max_leaves=8)


@given(dims())
def test_text_comes_back(dim: Dim) -> None:
    assert parse_dim(str(dim)) == dim


@given(dims(), dims())
def test_arithmetic_agrees_with_values(a: Dim, b: Dim) -> None:
    for env in ENVS:
        x, y = evaluate(a, env), evaluate(b, env)
        assert evaluate(a + b, env) == x + y
        assert evaluate(a - b, env) == x - y
        assert evaluate(a * b, env) == x * y
        assert evaluate(dim_max(a, b), env) == max(x, y)
        assert evaluate(dim_min(a, b), env) == min(x, y)


@given(dims(), st.integers(1, 9))
def test_division_rounds_down(a: Dim, b: int) -> None:
    for env in ENVS:
        x = evaluate(a, env)
        assert evaluate(floordiv(a, b), env) == x // b
        assert evaluate(mod(a, b), env) == x % b
        assert evaluate(ceildiv(a, b), env) == -(-x // b)


@given(dims())
def test_substitution_agrees_with_values(dim: Dim) -> None:
    for env in ENVS:
        assert substitute(dim, dict(env)) == evaluate(dim, env)
        halves = substitute(dim, {"N": H + 1})
        assert symbols_of(halves) <= {"H"}
        assert evaluate(halves, env) == evaluate(dim, {"N": env["H"] + 1, "H": env["H"]})


def test_equal_polynomials_are_equal_objects() -> None:
    assert (N + 1) * (N - 1) == N * N - 1
    assert N - N == 0
    assert hash(N * H + 2) == hash(2 + H * N)
    assert floordiv(4 * N * H, 2 * H) == 2 * N
    assert mod(6 * N, 3) == 0
    assert floordiv(4 * N + 3, 4) == N
    assert product([N, 2, H]) == 2 * N * H


ODD_NAMES = ["a-b", "a_b", "a b", "a.b", "N+1", "N_1", "0", "max", "lambda", "größe", "ﬁ", "fi",
             "it's", 'say "n"', "a,b]", "(", "two\nlines", "\\", "\u2028", "😀"]  # fmt: skip


@given(st.lists(st.sampled_from(ODD_NAMES) | st.text(min_size=1), min_size=2, max_size=4))
def test_any_text_is_a_name_of_its_own(names: list[str]) -> None:
    total: Dim = 1
    for number, name in enumerate(names):
        assert name_of(symbol(name)) == name
        total = total * symbol(name) + dim_max(symbol(name), number)
    assert symbols_of(total) == set(names)
    assert parse_dim(str(total)) == total
    assert str(total).isprintable()


def test_names_in_text() -> None:
    assert str(symbol("batch size") * 2 + symbol("batch")) == "2*'batch size'+batch"
    assert name_of(2 * N) == name_of(N + 1) == name_of(dim_max(N, 2)) == name_of(3) == ""
    with pytest.raises(ValueError, match="empty"):
        symbol("")


def test_static_shapes() -> None:
    assert is_static((1, 2)) and not is_static((1, N))


def test_truth_of_a_symbol_is_refused() -> None:
    assert isinstance(N, Sym)
    with pytest.raises(TypeError, match="not known"):
        bool(N)


@pytest.mark.parametrize("text", ["", "N+", "f(N)", "1.5", "N**2", "max(N)", "(" * 500])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_dim(text)
