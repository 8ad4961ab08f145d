"""What a pass is, and the one place where rewrites are carried out, counted, checked and dumped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from planish.base.defects import defects_named
from planish.base.errors import VerifyError
from planish.graph.graph import Graph, Patch
from planish.graph.infer import infer_from, infer_types

_MOST_SWEEPS = 1000  # a chain of nodes may need a sweep each; more means that a pass undoes itself


@dataclass(frozen=True)
class Pass:
    """A kind of rewrite.

    Attributes:
        name: verb_noun; also the file's name, the CLI's and the dump's.
        stage: The line of the builder's log under which its rewrites are counted.
        find: Yields rewrites one by one. Each is applied before the next is asked for, so a finder
            may go on with the nodes it had listed, if it skips those that the graph no longer
            holds.
    """

    name: str
    stage: str
    find: Callable[[Graph], Iterator[Patch]]


@dataclass
class PassRun:
    """Runs passes over a graph.

    Attributes:
        graph: The graph.
        limit: Rewrites allowed in total; a wrong one is found by bisecting this number. None: all.
        after: Called after each pass that changed something, for dumps and checks.
        done: Rewrites carried out so far, by pass.
    """

    graph: Graph
    limit: int | None = None
    after: Callable[[Pass, Graph], None] | None = None
    done: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Rewrites carried out so far."""
        return sum(self.done.values())

    def run(self, work: Pass) -> int:
        """Run one pass until it finds nothing more. Returns how many rewrites it made.

        Raises:
            VerifyError: The pass finds no end.
        """
        made = 0
        for _ in range(_MOST_SWEEPS):
            found = self._sweep(work)
            made += found
            if not found:
                break
        else:
            raise VerifyError(f"pass {work.name} still finds rewrites after {_MOST_SWEEPS} sweeps")
        if made and self.after is not None:
            self.after(work, self.graph)
        return made

    def _retype(self, patch: Patch) -> None:
        """Types of what a rewrite made, and of all that reads it."""
        infer_types(self.graph, patch.add)
        taken = [new for _, new in patch.replace]
        makers = [v.producer for v in taken if v.producer is not None]
        users = [user for value in taken for user in self.graph.users(value)]
        infer_from(self.graph, dict.fromkeys((*makers, *users)))

    def _sweep(self, work: Pass) -> int:
        with defects_named(f"pass {work.name}"):
            return self._rewrites(work)

    def _rewrites(self, work: Pass) -> int:
        made = 0
        for patch in work.find(self.graph):
            if self.limit is not None and self.total >= self.limit:
                return 0
            self.graph.apply(patch, work.name)
            self._retype(patch)
            self.done[work.name] = self.done.get(work.name, 0) + 1
            made += 1
        return made
