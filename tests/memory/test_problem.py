"""Problems: bounds, groups, the CSV format, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from memory_cases import problems

from planish.base.errors import BuildError
from planish.memory.problem import (
    Buffer,
    Group,
    Problem,
    Rectangle,
    lower_bound,
    naive_sum,
    read_csv,
    shapes,
    write_csv,
)
from planish.memory.sweep import Neighbour, sweep

THREE = (Buffer("a", 0, 2, 4), Buffer("b", 1, 3, 8), Buffer("c", 2, 4, 16))


def test_bounds_of_overlapping_lifetimes() -> None:
    assert lower_bound(Problem(THREE)) == 24  # b and c; a dies when c is born
    assert naive_sum(Problem(THREE)) == 28


def test_bounds_of_nothing() -> None:
    assert lower_bound(Problem(())) == naive_sum(Problem(())) == 0


def test_sections_are_the_largest_live_sets() -> None:
    swept = sweep(Problem((*THREE, Buffer("d", 3, 9, 1), Buffer("e", 20, 21, 1))))
    assert swept.members == ((0, 1), (1, 2), (2, 3), (4,))
    assert swept.totals == (12, 24, 17, 1)
    assert swept.spans == (range(0, 1), range(0, 2), range(1, 3), range(2, 3), range(3, 4))
    assert swept.neighbours[1] == (Neighbour(0, above=8, below=4), Neighbour(2, above=8, below=16))


def test_a_group_covers_the_union_of_its_members() -> None:
    parts = (Buffer("left", 0, 6, 4), Buffer("right", 2, 6, 4), Buffer("all", 4, 8, 8))
    group = Group("concat", (("left", 0), ("right", 4), ("all", 0)))
    problem = Problem(parts, None, (group,))
    (shape,) = shapes(problem)
    assert set(shape.rectangles) == {Rectangle(0, 2, 0, 4), Rectangle(2, 8, 0, 8)}
    assert lower_bound(problem) == 8


@given(problems())
@settings(max_examples=60, deadline=None)
def test_the_fullest_section_is_the_lower_bound(problem: Problem) -> None:
    assert max(sweep(problem).totals) == lower_bound(problem)


def test_csv_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "problem.csv"
    write_csv(Problem(THREE), path)
    assert path.read_text() == "id,lower,upper,size\na,0,2,4\nb,1,3,8\nc,2,4,16\n"
    assert read_csv(path, capacity=30) == Problem(THREE, 30)


def test_csv_keeps_alignment_and_shows_offsets(tmp_path: Path) -> None:
    path = tmp_path / "layout.csv"
    problem = Problem((Buffer("a", 0, 2, 4, 64),))
    write_csv(problem, path, {"a": 128})
    assert path.read_text() == "id,lower,upper,size,align,offset\na,0,2,4,64,128\n"
    assert read_csv(path) == problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,lower,size\na,0,1\n", "expected the columns id,lower,upper,size"),
        ("", "found $"),
        ("id,lower,upper,size\na,0,one,1\n", "line 2: expected id,lower,upper,size"),
        ("id,lower,upper,size\na,0\n", "line 2"),
        ("id,lower,upper,size\na,3,3,1\n", "lifetime .3, 3. is empty"),
    ],
)
def test_malformed_csv_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BuildError, match=f"(?m){says}"):
        read_csv(path)


def test_all_faults_of_a_problem_are_listed_at_once() -> None:
    with pytest.raises(BuildError) as error:
        Problem(
            (Buffer("a", 2, 1, 4), Buffer("a", 0, 1, -4, 0)),
            -1,
            (Group("g", (("x", 0),)), Group("h", (("a", -1),)), Group("i", ())),
        )
    for fault in ("empty", "twice", "size -4", "align 0", "capacity -1", "'x'", "'h'", "'i'"):
        assert fault in error.value.message
