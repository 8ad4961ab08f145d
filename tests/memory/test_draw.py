"""The drawing of a layout."""

from __future__ import annotations

from planish.memory.draw import draw
from planish.memory.problem import Buffer, Problem

LAID = Problem((Buffer("in", 0, 2, 2), Buffer("out", 1, 4, 1), Buffer("next", 2, 6, 1)))
OFFSETS = {"in": 0, "out": 2, "next": 0}


def test_a_column_is_a_step_and_a_row_a_byte_where_there_is_room() -> None:
    assert draw(LAID, OFFSETS) == (
        "3 high; steps 0 to 6, 1 a column\n"
        "           2 |.bbb..|\n"
        "           1 |aa....|\n"
        "           0 |aacccc|\n"
        "\n"
        "a in: 2 at 0, steps 0 to 2\n"
        "b out: 1 at 2, steps 1 to 4\n"
        "c next: 1 at 0, steps 2 to 6\n"
    )


def test_a_large_layout_is_scaled_down() -> None:
    problem = Problem((Buffer("low", 0, 500, 1000), Buffer("high", 250, 1000, 3000)))
    picture = draw(problem, {"low": 0, "high": 1000}, columns=8, rows=4).splitlines()
    assert picture[:5] == [
        "4000 high; steps 0 to 1000, 125 a column",
        "        3000 |..bbbbbb|",
        "        2000 |..bbbbbb|",
        "        1000 |..bbbbbb|",
        "           0 |aaaa....|",
    ]


def test_nothing_to_draw() -> None:
    assert draw(Problem(()), {}) == "(no buffers)\n"
