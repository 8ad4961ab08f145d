"""Every pass against golden text, against itself before and after, and against a second run.

A file of tests/passes/golden/<pass>/ holds the graph before, a line of dashes, and what the pass
makes of it: the graph, then a line for each rewrite. `pytest --update-golden` writes that half. The
files of golden/all/ and golden/integers/ are for all passes of a table in order. In kept.txt stands
what looks like the pass's work and must stay as it is: shared values, results of the graph, other
axes, types and ranks, operands that are computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from graph_runs import assert_same, outputs_of, random_feeds

from planish.graph.parse import parse_graph
from planish.graph.text import print_graph
from planish.graph.verify import verify
from planish.passes.rewrite import Pass, PassRun
from planish.passes.table import INTEGER_PASSES, PASSES

GOLDEN = Path(__file__).parent / "golden"
LINE = "-" * 40 + "\n"
WORKS = {work.name: work for work in (*PASSES, *INTEGER_PASSES)}
GROUPS = {"all": PASSES, "integers": INTEGER_PASSES}
FILES = sorted(path for name in (*WORKS, *GROUPS) for path in (GOLDEN / name).glob("*.txt"))
IDS = [f"{path.parent.name}/{path.stem}" for path in FILES]


def works_of(path: Path) -> tuple[Pass, ...]:
    name = path.parent.name
    return GROUPS.get(name) or (WORKS[name],)


def before_of(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition(LINE)[0]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_text(path: Path, golden: Callable[[Path, str], None]) -> None:
    before = before_of(path)
    graph = parse_graph(before)
    run = PassRun(graph)
    for work in works_of(path):
        run.run(work)
    verify(graph)
    assert run.done == Counter(event.step for event in graph.history)
    notes = "".join(f"{event.note}\n" for event in graph.history)
    golden(path, before + LINE + print_graph(graph, digests=False) + notes)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_numbers(path: Path) -> None:
    graph = parse_graph(before_of(path))
    feeds = random_feeds(graph)
    expected = outputs_of(graph, feeds)
    run = PassRun(graph)
    for work in works_of(path):
        run.run(work)
    assert_same(outputs_of(graph, feeds), expected)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_second_run_changes_nothing(path: Path) -> None:
    graph = parse_graph(before_of(path))
    run = PassRun(graph)
    for work in works_of(path):
        run.run(work)
    text = print_graph(graph)
    assert [run.run(work) for work in works_of(path)] == [0] * len(works_of(path))
    assert print_graph(graph) == text


@pytest.mark.parametrize("name", WORKS)
def test_every_pass_has_its_work_and_its_limits(name: str) -> None:
    assert (WORKS[name].find.__module__).rpartition(".")[2] == name
    graphs = {path.stem: parse_graph(before_of(path)) for path in (GOLDEN / name).glob("*.txt")}
    made = {stem: PassRun(graph).run(WORKS[name]) for stem, graph in graphs.items()}
    assert made.pop("kept", None) == 0, f"{name}/kept.txt is missing, or the pass rewrites it"
    assert any(made.values()), f"no golden file shows what {name} does"
