"""What a pass is, and the one place where rewrites are carried out, counted, checked and dumped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from planish.graph.graph import Graph, Patch
from planish.graph.infer import infer_types


@dataclass(frozen=True)
class Pass:
    """A kind of rewrite.

    Attributes:
        name: verb_noun; also the file's name, the CLI's and the dump's.
        stage: The line of the builder's log under which its rewrites are counted.
        find: Yields rewrites one by one. Each is applied before the next is asked for, so a finder
            may go on with the nodes it had listed, if it skips those that are gone.
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
        """Run one pass until it finds nothing more. Returns how many rewrites it made."""
        start = self.done.get(work.name, 0)
        again = True
        while again:
            again = False
            for patch in work.find(self.graph):
                if self.limit is not None and self.total >= self.limit:
                    return self.done.get(work.name, 0) - start
                self.graph.apply(patch, work.name)
                infer_types(self.graph, patch.add)
                self.done[work.name] = self.done.get(work.name, 0) + 1
                again = True
        made = self.done.get(work.name, 0) - start
        if made:
            infer_types(self.graph)
            if self.after is not None:
                self.after(work, self.graph)
        return made
