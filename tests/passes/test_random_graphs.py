"""All passes on random graphs: sound after each, and the same numbers in the end."""

from __future__ import annotations

import pytest
from graph_runs import assert_same, outputs_of, random_feeds
from random_graphs import GraphMaker

from planish.graph.graph import Graph
from planish.graph.verify import verify
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.passes.merge_siblings import merge_siblings
from planish.passes.rewrite import Pass, PassRun
from planish.passes.table import PASSES


def check(seed: int, size: int) -> None:
    graph = GraphMaker(seed).graph(size)
    verify(graph)
    names = [value.name for value in graph.outputs]
    feeds = random_feeds(graph, seed)
    expected = outputs_of(graph, feeds)

    def after(work: Pass, graph: Graph) -> None:
        verify(graph)
        assert [value.name for value in graph.outputs] == names, work.name

    run = PassRun(graph, after=after)
    for work in PASSES:
        run.run(work)
    assert_same(outputs_of(graph, feeds), expected, 1e-4)
    merge_siblings(graph, fuse_layers(graph, native_reason, lambda kind, node: True))


@pytest.mark.parametrize("seed", range(40))
def test_random_graph(seed: int) -> None:
    check(seed, 6 + seed)
