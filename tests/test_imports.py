"""The import table of ARCHITECTURE.md: which room may import which, inside functions as well."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
SOURCE = PROJECT / "src" / "planish"
FILES = sorted(SOURCE.rglob("*.py"))


def table() -> dict[str, set[str]]:
    """What each room may import, as ARCHITECTURE.md has it."""
    text = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.search(r"\| room \|.*\n\|[-|]+\n((?:\|.*\n)+)", text)
    assert rows is not None, "ARCHITECTURE.md has no table of rooms"
    found: dict[str, set[str]] = {}
    everything: list[str] = []
    for row in rows.group(1).splitlines():
        names, _, may = (cell.strip() for cell in row.strip("|").split("|"))
        above = set(found)
        rooms = re.findall(r"\w+", names)
        everything += rooms if may == "everything" else []
        words = {"–": set(), "everything": set(), "all above": above}
        found |= {room: words.get(may, set(may.split())) for room in rooms}
    return found | {room: set(found) - set(everything) for room in everything}


MAY_IMPORT = table()


def room_of(path: Path) -> str:
    """The room of a source file: its folder, or its own name at the top."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import that runs, and every `planish.name` used.

    What only type checkers import is left out.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from imported(child)
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            module = node.module or ""
            names = [f"planish.{a.name}" for a in node.names] if module == "planish" else [module]
            yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "planish":
            yield node.lineno, f"planish.{node.attr}"
        yield from imported(node)


def rooms(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, room) of what a file imports from the package; its version is free to all."""
    for line, module in imported(tree):
        package, _, rest = module.partition(".")
        room = rest.partition(".")[0]
        if package == "planish" and room not in ("", "__version__"):
            yield line, room


@pytest.mark.parametrize("room", sorted({room_of(path) for path in FILES}))
def test_room_imports_only_what_it_may(room: str) -> None:
    assert room in MAY_IMPORT, f"{room} has no row in ARCHITECTURE.md's table of rooms"
    allowed = {room, *MAY_IMPORT[room]}
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {other}"
        for path in FILES
        if room_of(path) == room
        for line, other in rooms(ast.parse(path.read_text(encoding="utf-8")))
        if other not in allowed
    ]
    assert not wrong, f"{room} may import {sorted(MAY_IMPORT[room])}:\n" + "\n".join(wrong)


def test_no_room_depends_on_itself() -> None:
    """The table has no cycle, so that every room can be understood after those it imports."""
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {room for room, may in MAY_IMPORT.items() if room not in done and may <= done}
        assert ready, f"a cycle among {sorted(set(MAY_IMPORT) - done)}"
        done |= ready


def test_few_rooms_know_onnx() -> None:
    """Passes, kernels, the tuner, plans and memory never see a protobuf."""
    readers = {
        room_of(path)
        for path in FILES
        for _, module in imported(ast.parse(path.read_text(encoding="utf-8")))
        if module.partition(".")[0] in ("onnx", "google")
    }
    may = {"reference", "graph", "importer", "runtime", "pipeline", "measure", "cli"}
    assert readers <= {*may, "onnx_backend"}


def test_what_counts_as_an_import() -> None:
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "from planish.base import knobs\n"
        "import planish.plan.read\n"
        "from planish import ops\n"
        "if TYPE_CHECKING:\n"
        "    from planish.lower import views\n"
        "def f():\n"
        "    from planish.graph.graph import Graph\n"
        "    import numpy\n"
        "import planish\n"
        "print(planish.__version__, planish.build)\n"
    )
    assert [room for _, room in rooms(tree)] == ["base", "plan", "ops", "graph", "build"]
