"""README and docs: every command and every line of Python in them runs, every link leads somewhere.

A ```console block holds `$ planish …` commands, a ```python block a program; those of one page run
in order in one folder with a small model. A ```sh block is for installing and for what takes long.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests" / "cli"))
from commands import small_model  # noqa: E402  # lies beside the tests of the command line

PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT_S = 240


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "planish"
    shim.parent.mkdir()
    shim.write_text(f"#!{sys.executable}\nfrom planish.cli import main\nmain()\n", encoding="utf-8")
    shim.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    small_model(work / "model.onnx")
    env = {
        **os.environ,
        "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        "PLANISH_CACHE_DIR": str(tmp_path / "cache"),
    }
    program = ""
    for language, text in blocks(page):
        if language == "console":
            for line in text.splitlines():
                assert line.startswith("$ "), f"{page.name}: {line!r} is no command"
                _run(["bash", "-c", line[2:]], work, env)
        elif language == "python":
            program += text  # a later block may use what an earlier one made
            _run([sys.executable, "-c", program], work, env)
        else:
            assert language == "sh", f"{page.name}: what is a block of {language}?"


def _run(command: list[str], folder: Path, env: dict[str, str]) -> None:
    made = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert made.returncode == 0, f"{command[-1]}\n{made.stdout}\n{made.stderr}"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {t for page in PAGES for t in re.findall(r"\bmake (\w+)", _commands(page))}
    assert {"demo", "test"} <= named <= targets


def _commands(page: Path) -> str:
    return "\n".join(text for language, text in blocks(page) if language == "sh")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_knob_verb_and_public_name_is_documented() -> None:
    import planish
    from planish.cli.app import VERBS

    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [v.__name__ for v in VERBS if f"## {v.__name__}" not in text.replace(", ", "\n## ")]
    missing += [name for name in planish.__all__ if f"`{name}`" not in text]
    assert missing == []
