"""build and run: files in, files out, exit codes."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import planish, small_model
from onnx.reference import ReferenceEvaluator


def test_build_tells_stages_kernels_memory_and_size(model: Path, tmp_path: Path) -> None:
    made = planish("build", model, "-o", tmp_path / "a.plan", "--level", 0)
    assert made.returncode == 0, made.stderr
    for word in ("nodes in the model", "after vertical fusion", "cpu.", "lower bound", "plan:"):
        assert word in made.stdout
    assert "no --profile given, assumed N 1:1:64" in made.stderr
    assert "\x1b[" not in made.stdout + made.stderr  # no ANSI without a terminal
    assert (tmp_path / "a.plan").stat().st_size > 4096


def test_build_names_the_plan_after_the_model(tmp_path: Path) -> None:
    model = small_model(tmp_path / "net.onnx", batch=1)
    made = planish("build", model, "--level", 0, "--quiet")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    assert (tmp_path / "net.plan").exists()


def test_build_as_json(model: Path, tmp_path: Path) -> None:
    made = planish("build", model, "-o", tmp_path / "a.plan", "--level", 1, "--json",
                   "--profile", "N=2")  # fmt: skip
    report = json.loads(made.stdout)
    assert report["host"] == [] and report["profiles"] == []
    assert report["stages"][0]["stage"] == "nodes in the model"
    assert report["memory"]["planned"] >= report["memory"]["lower_bound"]
    assert sum(row["layers"] for row in report["kernels"]) == report["steps"]


def test_build_is_loud_about_the_host(tmp_path: Path) -> None:
    model = small_model(tmp_path / "host.onnx", batch=1, host=True)
    made = planish("build", model, "--level", 0, "--quiet")
    assert made.returncode == 0, made.stderr
    assert "run on the host" in made.stderr
    assert "Unique (unique)" in made.stderr and "us a run" in made.stderr


def test_unoptimised_build_has_a_step_a_node(model: Path, tmp_path: Path) -> None:
    made = planish("build", model, "-o", tmp_path / "a.plan", "--unoptimised", "--level", 0,
                   "--json", "--profile", "N=1")  # fmt: skip
    report = json.loads(made.stdout)
    assert report["stages"][-1] == {"stage": "each node by itself", "left": 9}


def test_run_writes_the_right_outputs(model: Path, plan: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    made = planish("run", plan, "--input", f"x={tmp_path}/x.npy", "--output-dir", tmp_path / "out")
    assert made.returncode == 0, made.stderr
    (expected,) = ReferenceEvaluator(onnx.load(model)).run(None, {"x": x})
    found = np.load(tmp_path / "out" / "scores.npy")
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_run_takes_npz_and_a_lone_file(plan: Path, tmp_path: Path) -> None:
    x = np.ones((1, 3, 8, 8), np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    np.save(tmp_path / "x.npy", x)
    for given in (f"{tmp_path}/in.npz", f"{tmp_path}/x.npy"):
        made = planish("run", plan, "-i", given, "--npz", tmp_path / "out.npz", "--json")
        assert json.loads(made.stdout)["outputs"][0]["shape"] == [1, 5]
        with np.load(tmp_path / "out.npz") as stored:
            assert stored["scores"].shape == (1, 5)


def test_run_without_inputs_says_that_they_are_random(plan: Path) -> None:
    made = planish("run", plan, "--shape", "N=4")
    assert made.returncode == 0 and "random numbers" in made.stderr
    assert "[4, 5]" in made.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "{plan}", "-i", "x=nowhere.npy"), "cannot read nowhere.npy"),
        (("run", "{plan}", "-i", "y={plan}"), "as an array"),
        (("run", "{plan}", "--shape", "N=5"), "profile"),
        (("run", "{plan}", "--shape", "q=5"), "neither an input"),
        (("run", "{model}"), "plan"),
        (("build", "nowhere.onnx"), "cannot read nowhere.onnx"),
        (("build", "{plan}"), "not an ONNX model"),
        (("build", "{model}", "--precision", "fp99"), "fp99"),
        (("build", "{model}", "--isa", "mmx"), "mmx"),
        (("build", "{model}", "--pin", "conv_a"), "LAYER=TACTIC"),
        (("build", "{model}", "--pin", "nobody=cpu.x"), "names no native layer"),
        (("build", "{model}", "--profile", "z=1"), "neither an input"),
        (("inspect", "nowhere.plan"), "cannot read nowhere.plan"),
        (("bench", "nowhere.onnx"), "cannot read nowhere.onnx"),
    ],
)
def test_errors_are_told_without_a_traceback(
    arguments: tuple[str, ...], words: str, model: Path, plan: Path, tmp_path: Path
) -> None:
    filled = [a.format(plan=plan, model=model) for a in arguments]
    made = planish(*filled)
    assert made.returncode == 1
    assert words in made.stderr and "error: " in made.stderr
    assert "Traceback" not in made.stderr and made.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [("build",), ("no-such-verb",), ("build", "a.onnx", "--level", "9"), ("run", "a", "-z")],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    made = planish(*arguments)
    assert made.returncode == 2 and "Usage:" in made.stderr


def test_a_pin_is_obeyed(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    planish("build", model, "-o", path, "--level", 0, "--profile", "N=1", "--quiet")
    steps = json.loads(planish("inspect", path, "--json").stdout)["steps"]
    step = next(s for s in steps if "conv_a" in s["origin"])
    other = next(line.partition(":")[0] for line in step["why"] if "not timed" in line)
    made = planish("build", model, "-o", path, "--level", 0, "--profile", "N=1", "--quiet",
                   "--pin", f"conv_a={other}")  # fmt: skip
    assert made.returncode == 0, made.stderr
    steps = json.loads(planish("inspect", path, "--json").stdout)["steps"]
    step = next(s for s in steps if "conv_a" in s["origin"])
    assert step["kernel"] == other and step["why"] == [f"{other}: pinned by the user"]
