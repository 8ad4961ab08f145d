"""The import table: which room may import which. Imports inside functions count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "planish"

_GRAPH = "base ops graph"
_ALL_BUILD = (
    "base ops graph importer passes quantize targets memory plan kernels tune lower runtime"
)
MAY_IMPORT: dict[str, str] = {
    "base": "",
    "ops": "base",
    "graph": "base ops",
    "importer": _GRAPH,
    "passes": _GRAPH,
    "quantize": _GRAPH,
    "targets": "base",
    "memory": "base",
    "plan": "base",
    "kernels": "base ops targets",
    "tune": "base ops targets kernels",
    "lower": "base ops graph targets kernels tune memory plan",
    "runtime": "base targets plan",
    "pipeline": _ALL_BUILD,
    "measure": "base plan runtime pipeline",
    "report": "base plan runtime",
    "serve": "base plan runtime",
    "demo": "",
    "cli": f"{_ALL_BUILD} pipeline measure report serve demo",
    # The two modules beside the rooms.
    "__init__": "base pipeline plan runtime",
    "onnx_backend": "base pipeline plan runtime",
}
ROOMS = sorted(
    path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of each import of planish; `planish` alone is the package's face."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            yield node.lineno, node.module
            if node.module == "planish":
                yield from ((node.lineno, f"planish.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_it_may(room: str) -> None:
    assert room in MAY_IMPORT, f"{room} has no row in the import table"
    allowed = {room, *MAY_IMPORT[room].split()}
    files = sorted((ROOT / room).rglob("*.py")) or [ROOT / f"{room}.py"]
    wrong = []
    for path in files:
        for line, module in imports(path):
            parts = module.split(".")
            if parts[0] != "planish" or len(parts) == 1:
                continue
            known = (ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").exists()
            if known and parts[1] not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert wrong == []


def test_no_room_depends_on_itself() -> None:
    """The table has no cycle, so that every room can be understood after those it imports."""
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {r for r in MAY_IMPORT if r not in done and set(MAY_IMPORT[r].split()) <= done}
        assert ready, f"a cycle among {sorted(set(MAY_IMPORT) - done)}"
        done |= ready


def test_few_rooms_know_onnx() -> None:
    """Passes, kernels, the tuner, plans and memory never see a protobuf.

    What repairs the reference implementation lies in base, for graph and runtime both run it.
    """
    shared = ROOT / "base" / "reference_ops.py"
    readers = {
        path.relative_to(ROOT).parts[0]
        for path in ROOT.rglob("*.py")
        for _, module in imports(path)
        if module.partition(".")[0] in ("onnx", "google") and path != shared
    }
    may = {"graph", "importer", "runtime", "pipeline", "measure", "cli", "onnx_backend.py"}
    assert readers <= may
