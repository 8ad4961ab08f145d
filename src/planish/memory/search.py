"""Searches for a layout below a ceiling: depth first, in the canonical form of MiniMalloc.

Any layout can be pushed down until each shape rests on another one or on the ground, and its shapes
can then be named in the order of their offsets. So it is enough to look for layouts that are built
in that order, each shape placed where it comes to rest on those before it (Moffitt, "MiniMalloc",
ASPLOS 2023). Branching is only over which shape is next. What cuts the tree:

- *Sections.* The shapes still to come in a section go above the lowest place that one of them can
  take. With their bytes on top of that, the ceiling must hold.
- *Dominance.* No shape is placed at or above a height below which another one would fit whole.
- *Passing over.* A shape that was tried at its resting place, in vain, must rise before it is tried
  again: it ends up on some neighbour that is still to come. That is a lower bound on its offset.
- *Decomposition.* Where no shape to come crosses the border of two sections, both sides are solved
  by themselves.
- *Memory of dead ends.* What is still possible depends only on where the shapes to come would rest,
  not on how that came about. States without a solution are remembered across restarts.

The order in which equal candidates are tried matters most, and none is best everywhere. So several
are tried in turn with growing allowances. Everything counts placements and not seconds: the same
problem gives the same layout on every machine.

Offsets of a group with a hollow below it need not follow that order, so layouts of groups may be
missed. What is found is always valid.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import pairwise

from planish.memory.sweep import Sweep

# Which shapes go first, the largest of each trait: bytes to come in the fullest section it crosses;
# steps alive; bytes times steps; sections it crosses.
PREFERENCES = (
    ("pressure", "lifetime", "area"),
    ("pressure", "area", "lifetime"),
    ("lifetime", "area", "pressure"),
    ("sections", "pressure", "area"),
)
FIRST_ALLOWANCE = 4  # placements a shape that each preference gets in the first round
GROWTH = 4  # of the allowance, from round to round
CLOCK_EVERY = 256  # placements between two looks at the clock

PLACED = 1 << 62  # as a resting place: the shape is placed, it takes part no more
PASSED = -1  # as a resting place: the shape was passed over, it must rise first

Steps = Generator["Steps", bool, bool]  # yields sub-searches, is sent whether they succeeded


class OutOfBudgetError(Exception):
    """The allowance of placements, or the time, is used up."""


@dataclass
class Budget:
    """What a search may spend.

    Attributes:
        placements: How many shapes may still be placed.
        deadline: When to stop in any case, on the clock of `time.monotonic`.
    """

    placements: int
    deadline: float

    def spend(self) -> None:
        """Pays for one placement.

        Raises:
            OutOfBudgetError: Nothing is left to pay with.
        """
        if self.placements % CLOCK_EVERY == 0 and self.is_spent:
            raise OutOfBudgetError
        self.placements -= 1

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.placements <= 0 or time.monotonic() > self.deadline


def search(problem: Sweep, ceiling: int, budget: Budget) -> list[int] | None:
    """Looks for a layout no higher than the ceiling.

    Args:
        problem: The shapes and their sections.
        ceiling: The height allowed.
        budget: What may be spent; what is left of it is updated.

    Returns:
        The offset of each shape, or None where none was found.
    """
    if max(problem.totals, default=0) > ceiling:
        return None
    dead_ends: set[int] = set()
    allowance = FIRST_ALLOWANCE * len(problem.shapes)
    while not budget.is_spent:
        for preference in PREFERENCES:
            granted = Budget(min(allowance, budget.placements), budget.deadline)
            before = granted.placements
            descent = _Descent(problem, ceiling, preference, granted, dead_ends)
            try:
                return descent.offsets if descent.run() else None
            except OutOfBudgetError:
                continue
            finally:
                budget.placements -= before - granted.placements
        allowance *= GROWTH
    return None


class _Descent:
    """One depth-first search with one preference. All state is undone on the way back."""

    def __init__(
        self,
        problem: Sweep,
        ceiling: int,
        preference: tuple[str, ...],
        budget: Budget,
        dead_ends: set[int],
    ) -> None:
        count = len(problem.shapes)
        self.ceiling = ceiling
        self.preference = preference
        self.budget = budget
        self.dead_ends = dead_ends
        self.offsets = [0] * count
        # Facts about shapes and sections, as plain tuples: the loops below are hot.
        # An empty shape counts as one byte high, or nothing could ever lie where it rests.
        self.height = [max(1, shape.height) for shape in problem.shapes]
        self.align = [shape.align for shape in problem.shapes]
        self.span = [slice(span.start, span.stop) for span in problem.spans]
        self.loads = problem.loads
        self.members = problem.members
        self.above = [[(n.shape, n.above) for n in row] for row in problem.neighbours]
        self.below = [[(n.shape, n.below) for n in row] for row in problem.neighbours]
        self.traits = {
            "lifetime": [shape.lifetime for shape in problem.shapes],
            "area": [shape.area for shape in problem.shapes],
            "sections": [len(span) for span in problem.spans],
            "pressure": [0] * count,
        }
        # State: where each shape would rest now, and the least offset it can end up with. The two
        # differ only where the shape was passed over, and has yet to rise to `least`.
        self.rest = [0] * count
        self.least = [0] * count
        self.to_come = list(problem.totals)  # bytes to come in each section
        self.witness = [shapes[0] for shapes in problem.members]  # see `_leaves_room`
        self.crossing = [0] * len(problem.totals)  # shapes to come in this section and the next
        for span in problem.spans:
            for section in span[:-1]:
                self.crossing[section] += 1
        self.trail: list[tuple[list[int], int, int]] = []  # (which state, where, what was there)

    def run(self) -> bool:
        """Searches; True leaves the layout in `offsets`.

        Raises:
            OutOfBudgetError: It gave up before it was through.
        """
        borders = [section + 1 for section, shapes in enumerate(self.crossing) if not shapes]
        return _drive(self._solve_parts(range(len(self.rest)), [0, *borders]))

    def _solve_parts(self, shapes: Iterable[int], borders: list[int]) -> Steps:
        """Solves the parts between borders that no shape to come crosses, each by itself."""
        for first, stop in pairwise(borders):
            part = [x for x in shapes if first <= self.span[x].start < stop]
            if part and not (yield self._solve_part(self._preferred(part), first, stop)):
                return False
        return True

    def _solve_part(self, shapes: list[int], first: int, stop: int) -> Steps:
        """Places the shapes, in order of preference, that are to come in sections [first, stop)."""
        rest = self.rest
        # A hash stands for a state. Were two to collide, a layout could be missed, none be wrong.
        state = hash(frozenset(zip(shapes, map(rest.__getitem__, shapes), strict=True)))
        if state in self.dead_ends:
            return False
        start = len(self.trail)
        found = False
        for x in self._candidates(shapes, first, stop):
            offset = rest[x]
            if offset + max(self.to_come[self.span[x]]) <= self.ceiling:
                before = len(self.trail)
                if self._place(x, offset):
                    left = [y for y in shapes if y != x]
                    found = not left or (yield self._solve_rest(x, left, first, stop))
                self._rewind(before)
            if found or not self._pass_over(x, offset):
                break
        self._rewind(start)
        if not found:
            self.dead_ends.add(state)
        return found

    def _solve_rest(self, placed: int, left: list[int], first: int, stop: int) -> Steps:
        """Goes on with what is left: in parts, where the shape just placed held them together."""
        span = self.span[placed]
        borders = [s + 1 for s in range(span.start, span.stop - 1) if not self.crossing[s]]
        if borders:
            return self._solve_parts(left, [first, *borders, stop])
        return self._solve_part(left, first, stop)

    def _preferred(self, shapes: list[int]) -> list[int]:
        """Sorts by the traits of the preference, largest first."""
        pressure = self.traits["pressure"]
        for x in shapes:
            pressure[x] = max(self.to_come[self.span[x]])
        traits = [self.traits[name] for name in self.preference]
        return sorted(shapes, key=lambda x: [-trait[x] for trait in traits])

    def _candidates(self, shapes: list[int], first: int, stop: int) -> list[int]:
        """The shapes that may be next, lowest resting place first, then in order of preference."""
        rest, least, height = self.rest, self.least, self.height
        lowest_top = min([least[x] + height[x] for x in shapes])  # another one fits below that
        highest = min(lowest_top - 1, self.ceiling - max(self.to_come[first:stop]))
        return sorted([x for x in shapes if 0 <= rest[x] <= highest], key=rest.__getitem__)

    def _place(self, x: int, offset: int) -> bool:
        """Places a shape and raises its neighbours; False where a section has no room any more."""
        self.budget.spend()
        rest, least, align, note = self.rest, self.least, self.align, self.trail.append
        self.offsets[x] = offset
        note((rest, x, offset))
        note((least, x, least[x]))
        rest[x] = least[x] = PLACED
        for section, size in self.loads[x]:
            note((self.to_come, section, self.to_come[section]))
            self.to_come[section] -= size
        for section in range(self.span[x].start, self.span[x].stop - 1):
            note((self.crossing, section, self.crossing[section]))
            self.crossing[section] -= 1
        raised = [x]
        for y, distance in self.above[x]:
            top = offset + distance
            top += -top % align[y]
            if top > least[y]:
                note((rest, y, rest[y]))
                note((least, y, least[y]))
                rest[y] = least[y] = top
                raised.append(y)
            elif rest[y] < top == least[y]:
                note((rest, y, PASSED))
                rest[y] = top
        return all(map(self._leaves_room, raised))

    def _pass_over(self, x: int, offset: int) -> bool:
        """Notes that x has to rise from here onto a neighbour to come; False where it cannot."""
        least = self.least
        landings = [max(least[y], offset) + distance for y, distance in self.below[x]]
        landing = min(landings, default=PLACED)
        self.trail.append((self.rest, x, offset))
        self.rest[x] = PASSED
        if landing <= least[x]:
            return True
        self.trail.append((least, x, least[x]))
        least[x] = landing
        return self._leaves_room(x)

    def _leaves_room(self, x: int) -> bool:
        """Whether every section still has room after x went up.

        What is to come in a section must fit on top of the lowest place that any of it can take.
        One shape that is low enough is witness of that, and is not looked for again until it rises.
        """
        least, to_come, witness = self.least, self.to_come, self.witness
        if least[x] + max(to_come[self.span[x]]) <= self.ceiling:
            return True
        for section, _ in self.loads[x]:
            room = self.ceiling - to_come[section]
            if witness[section] == x and least[x] > room and to_come[section]:
                for y in self.members[section]:
                    if least[y] <= room:
                        self.trail.append((witness, section, x))
                        witness[section] = y
                        break
                else:
                    return False
        return True

    def _rewind(self, length: int) -> None:
        """Undoes the last changes of state, until the trail is as long as it was."""
        trail = self.trail
        while len(trail) > length:
            state, index, value = trail.pop()
            state[index] = value


def _drive(steps: Steps) -> bool:
    """Runs a search that yields its sub-searches, on a stack of its own instead of recursion."""
    stack = [steps]
    result = False
    fresh = True
    while stack:
        try:
            deeper = next(stack[-1]) if fresh else stack[-1].send(result)
        except StopIteration as finished:
            stack.pop()
            result, fresh = finished.value, False
        else:
            stack.append(deeper)
            fresh = True
    return result
