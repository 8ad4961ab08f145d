"""Tables for the driver: where barriers stand, and where none is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import tiny_plans as tiny

from planish.plan import NativeStep, PhaseCall, Ref
from planish.runtime.schedule import Places, Segment
from planish.targets.driver import BARRIER, OTHERS, OWN

A = Ref("arena", 0, 0)
NAMES = {"add1": 1, "mirror": 2}


def drawn(steps: Sequence[NativeStep], workers: int) -> list[str]:
    """Each worker's table: "step:begin-end", "|" for a barrier."""
    segment = Segment(list(enumerate(steps)), NAMES.__getitem__)
    places = Places(0, (), {"arena": [64]}, [0] * workers)
    bound = segment.bind({}, places)
    lines = []
    for table, numbers in zip(bound.tables, bound.steps, strict=True):
        words = []
        for row, step in zip(table.tolist(), numbers, strict=False):
            function, _, begin, end, flags = row
            assert (flags & BARRIER) == (function == 0)
            if flags & (OWN | OTHERS):
                words.append(f"{step}:{'own' if flags == OWN else 'others'}")
            else:
                words.append(f"{step}:{begin}-{end}" if function else "|")
        lines.append(" ".join(words))
    return lines


def step(units: int, group: int, *, barrier: bool = True, weight: float = 1.0) -> NativeStep:
    return tiny.step("add1", [A, A], units, group=group, barrier=barrier, weight=weight)


def test_barriers_stand_between_groups() -> None:
    assert drawn([step(4, 0), step(3, 1)], 2) == ["0:0-2 | 1:0-2", "0:2-4 | 1:2-3"]
    assert drawn([step(4, 0), step(3, 1)], 1) == ["0:0-4 1:0-3"]


def test_a_group_shares_the_workers() -> None:
    steps = [step(1, 0, weight=2.0), step(2, 0)]
    assert drawn(steps, 2) == ["0:0-1", "1:0-2"]


def test_no_barrier_where_none_was_asked_for() -> None:
    assert drawn([step(4, 0), step(4, 1, barrier=False)], 2) == ["0:0-2 1:0-2", "0:2-4 1:2-4"]


def test_one_worker_alone_needs_no_barrier() -> None:
    steps = [step(4, 0), step(1, 1), step(1, 2), step(4, 3)]
    assert drawn(steps, 2) == ["0:0-2 | 1:0-1 2:0-1 | 3:0-2", "0:2-4 | | 3:2-4"]


def test_a_barrier_left_out_stays_due() -> None:
    """Step 2 asks for none, counting on the one before step 1, which stood alone and had none."""
    steps = [step(1, 0), step(1, 1), step(4, 2, barrier=False)]
    assert drawn(steps, 2) == ["0:0-1 1:0-1 | 2:0-2", "| 2:2-4"]


def test_empty_steps_keep_barriers_due() -> None:
    steps = [step(4, 0), step(0, 1), step(4, 2, barrier=False)]
    assert drawn(steps, 2) == ["0:0-2 | 2:0-2", "0:2-4 | 2:2-4"]
    assert drawn([step(0, 0)], 2) == ["", ""]
    assert drawn([step(0, 0), step(2, 1)], 2) == ["1:0-1", "1:1-2"]


def test_phases_of_a_group_are_lined_up() -> None:
    two = [PhaseCall("add1", 2), PhaseCall("mirror", 4)]
    steps = [tiny.step(two, [A, A], 0), step(2, 0)]
    assert drawn(steps, 2) == ["0:0-1 1:0-1 | 0:0-2", "0:1-2 1:1-2 | 0:2-4"]


def test_phases_without_a_barrier_share_their_units() -> None:
    chain = [PhaseCall("add1", 5), PhaseCall("mirror", 5, barrier=False)]
    steps = [tiny.step(chain, [A, A], 0), step(3, 0, weight=0.5)]
    for line in drawn(steps, 2):
        own = [word[2:] for word in line.split() if word.startswith("0:")]
        assert own[0] == own[1]


def test_more_workers_than_units() -> None:
    assert drawn([step(2, 0), step(3, 1)], 3) == ["0:0-1 | 1:0-1", "0:1-2 | 1:1-2", "| 1:2-3"]


def long_step(units: int, group: int, *, barrier: bool = True) -> NativeStep:
    return replace(step(units, group, barrier=barrier), micros=50.0)


def test_long_steps_are_shared_in_pieces() -> None:
    assert drawn([long_step(90, 0), step(3, 1)], 2) == [
        "0:own 0:others | 1:0-2",
        "0:own 0:others | 1:2-3",
    ]
    assert drawn([long_step(90, 0)], 1) == ["0:0-90"]
    assert drawn([long_step(7, 0)], 2) == ["0:0-4", "0:4-7"]


def test_branches_side_by_side_are_helped_after_the_own_parts() -> None:
    row = "0:own 1:own 0:others 1:others"
    assert drawn([long_step(90, 0), long_step(64, 0)], 2) == [row, row]


def test_steps_that_follow_without_a_barrier_are_not_shared() -> None:
    steps = [long_step(90, 0), long_step(90, 1, barrier=False)]
    assert drawn(steps, 2) == ["0:0-45 1:0-45", "0:45-90 1:45-90"]


def test_share_records_cover_all_units() -> None:
    segment = Segment([(0, long_step(90, 0))], NAMES.__getitem__)
    bound = segment.bind({}, Places(0, (), {"arena": [64]}, [0] * 3))
    assert bound.shares[:, :4].tolist() == [[0, 0, 30, 4], [0, 30, 60, 4], [0, 60, 90, 4]]
    assert bound.job[0, 5] == 3
    assert bound.shares.ctypes.data % 64 == 0
