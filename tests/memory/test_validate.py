"""The validator accepts what is right and names what is wrong."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from memory_cases import buffers

from planish.base.errors import VerifyError
from planish.memory.problem import Buffer, Group, Problem
from planish.memory.solve import solve
from planish.memory.validate import validate

PAIR = Problem((Buffer("a", 0, 4, 8), Buffer("b", 2, 6, 8, 8), Buffer("c", 4, 6, 8)), 16)
GOOD = {"a": 0, "b": 8, "c": 0}


def test_accepts_a_layout_that_is_right() -> None:
    validate(PAIR, GOOD)


@pytest.mark.parametrize(
    ("offsets", "says"),
    [
        ({"a": 0, "b": 8}, "'c' has no offset"),
        ({**GOOD, "z": 0}, "'z' has an offset, but"),
        ({**GOOD, "c": -8}, "'c' lies at -8, below"),
        ({**GOOD, "a": 12, "b": 4}, "'b' lies at 4, no multiple of its alignment 8"),
        ({**GOOD, "a": 9}, "'a' ends at 17, above the capacity 16"),
        ({**GOOD, "a": 1}, "'a' and 'b' share bytes 8 to 9 from step 2 to 4"),
        ({**GOOD, "c": 8}, "'b' and 'c' share bytes 8 to 16 from step 4 to 6"),
    ],
)
def test_names_what_is_wrong(offsets: dict[str, int], says: str) -> None:
    with pytest.raises(VerifyError, match=says):
        validate(PAIR, offsets)


def test_a_group_may_share_bytes_but_not_be_torn() -> None:
    parts = (Buffer("slice", 0, 4, 8), Buffer("whole", 2, 6, 16))
    problem = Problem(parts, None, (Group("g", (("slice", 8), ("whole", 0))),))
    validate(problem, {"slice": 108, "whole": 100})
    with pytest.raises(VerifyError, match=r"'g' is torn apart: .* \[92, 100\]"):
        validate(problem, {"slice": 100, "whole": 100})


@given(buffers(8), st.data())
@settings(max_examples=40, deadline=None)
def test_a_buffer_moved_onto_another_is_rejected(
    made: tuple[Buffer, ...], data: st.DataObject
) -> None:
    problem = Problem(made)
    alive_together = [
        (one.id, other.id)
        for one, other in permutations([buffer for buffer in made if buffer.size], 2)
        if one.lower < other.upper and other.lower < one.upper
    ]
    assume(alive_together)
    moved, onto = data.draw(st.sampled_from(alive_together))
    offsets = dict(solve(problem).offsets)
    offsets[moved] = offsets[onto]
    with pytest.raises(VerifyError, match=moved):
        validate(problem, offsets)
