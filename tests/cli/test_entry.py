"""Arguments, version, speed of the start, texts."""

import subprocess
import sys

import pytest
from commands import planish

import planish as package
from planish.cli.entry import spell_out_json
from planish.cli.terminal import cell_text, plain, size_text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bench a.plan --json", "bench a.plan --json=-"),
        ("bench --json a.plan", "bench --json=- a.plan"),
        ("bench a.plan --json out.json", "bench a.plan --json out.json"),
        ("bench a.plan --json - -q", "bench a.plan --json - -q"),
        ("bench --json -q a.plan", "bench --json=- -q a.plan"),
        ("cache show --json a.json", "cache show --json=- a.json"),
        ("build a.onnx", "build a.onnx"),
        ("", ""),
    ],
)
def test_json_without_a_file_means_stdout(words: str, expected: str) -> None:
    assert spell_out_json(words.split()) == expected.split()


@pytest.mark.parametrize("arguments", [("--version",), ("--version", "--version")])
def test_version(arguments: tuple[str, ...]) -> None:
    assert planish(*arguments).stdout == f"planish {package.__version__}\n"


def test_help_lists_every_verb_and_imports_no_compiler() -> None:
    made = planish("--help")
    verbs = ("build", "run", "bench", "inspect", "explain", "compare", "demo", "doctor", "cache")
    assert made.returncode == 0 and all(f"  {verb}" in made.stdout for verb in verbs)
    code = (
        "import sys, planish.cli.app; "
        "print([m for m in ('numpy', 'onnx', 'llvmlite') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_start_is_quick() -> None:
    # The processor time of the start, so that a busy machine does not fail it.
    code = "import time, planish.cli.app; print(time.process_time())"
    made = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            for _ in range(3)]  # fmt: skip
    assert min(float(run.stdout) for run in made) < 0.4


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, "-"), (0.0, "0"), (0.01234, "0.0123"), (3.14159, "3.14"), (314.159, "314.2"),
     (12345.6, "12,346"), (1234, "1,234"), (True, "True"), (float("inf"), "inf"), ("x", "x")],
)  # fmt: skip
def test_cells(cell: object, text: str) -> None:
    assert cell_text(cell) == text


def test_sizes_and_plain_data() -> None:
    assert [size_text(n) for n in (5, 2048, 3 << 20, 5 << 30)] == [
        "5 B", "2.0 KiB", "3.0 MiB", "5.00 GiB",
    ]  # fmt: skip
    assert plain({"a": (1, float("nan")), 2: {"b": object}}) == {
        "a": [1, None], "2": {"b": "<class 'object'>"},
    }  # fmt: skip
