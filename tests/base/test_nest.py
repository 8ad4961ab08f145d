"""Nests: the text of any nest reads back as the same nest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_expr import NATIVE, exprs, indices

from planish.base.nest import COMBINERS, Nest, Stage, Store, parse_nest, print_nest
from planish.base.shapes import symbol

EXTENTS = st.lists(st.one_of(st.integers(0, 99), st.just(symbol("N") * 2)), max_size=3).map(tuple)


def stages() -> st.SearchStrategy[Stage]:
    store = st.builds(Store, st.integers(0, 2), st.lists(indices(), max_size=3).map(tuple))

    def make(combiner: str) -> st.SearchStrategy[Stage]:
        return st.builds(
            Stage,
            map=EXTENTS,
            reduce=EXTENTS if combiner else st.just(()),
            combiner=st.just(combiner),
            expr=exprs(),
            dtype=st.sampled_from(NATIVE),
            store=st.one_of(st.none(), store),
        )

    return st.sampled_from(("", *COMBINERS)).flatmap(make)


@settings(max_examples=50, deadline=None)
@given(st.builds(Nest, EXTENTS, st.lists(stages(), max_size=4).map(tuple)))
def test_text_comes_back(nest: Nest) -> None:
    assert parse_nest(print_nest(nest)) == nest
    assert print_nest(parse_nest(str(nest))) == str(nest)


def test_text_of_a_softmax() -> None:
    text = "\n".join(
        [
            "nest o0<8",
            "  t0:f32 = max r0<128 : (load:f32 0 o0 r0)",
            "  t1:f32 = map m0<128 : (exp (sub (load:f32 0 o0 m0) (temp:f32 0)))",
            "  t2:f32 = sum r0<128 : (temp:f32 1 r0)",
            "  t3:f32 = map m0<128 : (div (temp:f32 1 m0) (temp:f32 2)) -> 0[ o0 m0 ]",
        ]
    )
    nest = parse_nest(text)
    assert str(nest) == text
    assert nest.stages[3].store is not None
    assert nest.stages[0].combiner == "max" and nest.stages[1].combiner == ""


@pytest.mark.parametrize(
    "text",
    ["", "loop o0<3", "nest o0", "nest\n  t0:f32 = map m0<3", "nest\n  t0 = map : 1",
     "nest\n  t0:f32 = map : (nothing)"],
)  # fmt: skip
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_nest(text)
