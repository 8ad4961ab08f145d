"""The rooms import only what DESIGN's table lets them, function-level imports included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import planish

SOURCE = Path(planish.__file__).parent

_BUILD = "base ops graph importer passes quantize targets kernels tune memory plan lower runtime"
ALL = f"{_BUILD} pipeline measure report serve cli demo onnx_backend"
TABLE: dict[str, str] = {
    "base": "",
    "ops": "base",
    "graph": "base ops",
    "importer": "base ops graph",
    "passes": "base ops graph",
    "quantize": "base ops graph",
    "targets": "base",
    "memory": "base",
    "plan": "base",
    "kernels": "base ops targets",
    "tune": "base ops targets kernels",
    "lower": "base ops graph targets kernels tune memory plan",
    "runtime": "base targets plan",
    "pipeline": _BUILD,
    "measure": "base plan runtime pipeline",
    "report": "base plan runtime",
    "serve": "base plan runtime",
    "demo": "base",
    "cli": ALL,
    "onnx_backend": f"{_BUILD} pipeline",
    "__init__": ALL,
    "__main__": ALL,
}


def room_of(path: Path) -> str:
    """The room of a source file: its folder, or its own name at the top."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, room) of every import from the package that runs, and every `planish.name` used.

    What only type checkers import is left out; the package's version is free to all.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from imported_rooms(child)
            continue
        yield from _rooms_of(node)
        yield from imported_rooms(node)


def _rooms_of(node: ast.AST) -> Iterator[tuple[int, str]]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import"
        module = node.module or ""
        names = [f"planish.{a.name}" for a in node.names] if module == "planish" else [module]
    elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "planish":
        names = [f"planish.{node.attr}"]
    for name in names:
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if package == "planish" and room not in ("", "__version__"):
            yield node.lineno, room  # type: ignore[attr-defined]  # all three kinds have a line


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("room", sorted({room_of(path) for path in FILES}))
def test_room(room: str) -> None:
    assert room in TABLE, f"{room} has no row in the table of rooms"
    allowed = {room, *TABLE[room].split()}
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {other}"
        for path in FILES
        if room_of(path) == room
        for line, other in imported_rooms(ast.parse(path.read_text(encoding="utf-8")))
        if other not in allowed
    ]
    assert not wrong, f"{room} may import {TABLE[room] or 'nothing'}:\n" + "\n".join(wrong)


def test_the_table_has_no_cycles() -> None:
    rank = {room: len(names.split()) for room, names in TABLE.items()}
    for room, names in TABLE.items():
        for other in names.split():
            if room not in ("cli", "__init__", "__main__"):
                assert room not in TABLE[other].split(), f"{room} and {other} import each other"
    assert rank["base"] == 0


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
    assert [room for _, room in imported_rooms(tree)] == ["base", "plan", "ops", "graph", "build"]
