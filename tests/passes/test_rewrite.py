"""Running passes: counting, stopping after a number of rewrites, passes without end, types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from planish.base.errors import VerifyError
from planish.graph.graph import Graph, Patch
from planish.graph.parse import parse_graph
from planish.graph.verify import verify
from planish.passes import remove_noops
from planish.passes.match import make
from planish.passes.rewrite import Pass, PassRun
from planish.passes.table import PASSES

NOOPS = """
graph g
  input %x: f32[4]
  %a = Identity(%x)
  %b = Identity(%a)
  %c = Identity(%b)
  %y = Relu(%c)
  output %y
"""


def test_counts_and_tells() -> None:
    graph = parse_graph(NOOPS)
    told: list[str] = []
    run = PassRun(graph, after=lambda work, graph: told.append(work.name))
    assert run.run(remove_noops.PASS) == 3
    assert run.run(remove_noops.PASS) == 0
    assert (run.total, run.done, told) == (3, {"remove_noops": 3}, ["remove_noops"])
    assert [event.step for event in graph.history] == ["remove_noops"] * 3


@pytest.mark.parametrize("limit", range(4))
def test_stops_after_a_number_of_rewrites(limit: int) -> None:
    graph = parse_graph(NOOPS)
    run = PassRun(graph, limit)
    run.run(remove_noops.PASS)
    verify(graph)
    assert run.total == limit and len(graph.nodes) == 4 - limit


def test_a_pass_without_end_is_told() -> None:
    def find(graph: Graph) -> Iterator[Patch]:
        node = graph.nodes[0]
        made = make(graph, "Neg", node.inputs, node.output, sources=[node])
        yield Patch("again", (node,), (made,), ((node.output, made.output),))

    graph = parse_graph("graph g\n  input %x: f32[4]\n  %y = Neg(%x)\n  output %y\n")
    with pytest.raises(VerifyError, match="pass circle still finds rewrites"):
        PassRun(graph).run(Pass("circle", "", find))


def test_types_follow_a_rewrite() -> None:
    graph = parse_graph(
        """
        graph g
          input %x: f32[N,4]
          input %k: i64[2]
          %a = Reshape(%x, %k)
          %b = Relu(%a)
          %c = Shape(%b)
          output %c
        """
    )
    before = graph.nodes[0]
    assert graph.nodes[2].output.dims != (4, 4)

    def find(graph: Graph) -> Iterator[Patch]:
        if graph.holds(before):
            made = make(graph, "Relu", [graph.inputs[0]], before.output, sources=[before])
            yield Patch("no reshape", (before,), (made,), ((before.output, made.output),))

    PassRun(graph).run(Pass("drop", "", find))
    verify(graph)
    assert str(graph.nodes[2].output.dims) == "(N, 4)"


def test_names_and_stages() -> None:
    for work in PASSES:
        verb, _, noun = work.name.partition("_")
        assert verb and noun and work.stage
