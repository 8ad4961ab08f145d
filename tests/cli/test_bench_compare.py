"""bench, compare, cache, doctor, demo."""

import json
from pathlib import Path

import pytest
from commands import planish, small_model


def test_bench_of_a_plan(plan: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    made = planish("bench", plan, "--seconds", 0.1, "--shape", "N=2", "--profile", "--json", path)
    assert made.returncode == 0, made.stderr
    for word in ("Latency, ms", "first", "p99", "throughput", "streams", "memory", "slowest first"):
        assert word in made.stdout
    report = json.loads(path.read_text())
    times = report["latency"]
    assert times["min"] <= times["median"] <= times["p90"] <= times["p99"] <= times["max"]
    assert report["batch"] == 2 and report["throughput"] > 0
    assert report["first_ms"] > 0 and report["memory"]["peak_rss"] > 0
    assert report["streams"] * report["stream_threads"] <= max(report["threads"], 1)
    assert len(report["profile"]["steps"]) >= 4


def test_bench_warns_when_few_runs_were_made(tmp_path: Path) -> None:
    model = small_model(tmp_path / "net.onnx", batch=1)
    made = planish("bench", model, "--seconds", 0.05, "--level", 0, "--json")
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)
    unstable = any("vary" in text for text in report["warnings"])
    assert unstable != report["stable"]
    assert all(f"warning: {text}" in made.stderr for text in report["warnings"])


def test_bench_of_a_model_at_a_shape(model: Path) -> None:
    made = planish("bench", model, "--seconds", 0.05, "--level", 0, "--shape", "x=3x3x8x8",
                   "--json", "--streams", 1)  # fmt: skip
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)
    assert report["inputs"] == {"x": [3, 3, 8, 8]} and report["streams"] == 1


@pytest.mark.parametrize("against", ["reference", ""])
def test_compare_agrees(model: Path, against: str) -> None:
    made = planish("compare", model, "--per-layer", "--runs", 2, "--json", "--against", against)
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)
    inner = [row["name"] for row in report["outputs"] if row["inner"]]
    assert report["passed"] and report["runs"] == 2 and inner[:2] == ["ca", "ra"]


def test_compare_fails_on_another_models_plan(model: Path, tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    other = onnx.load(model)
    changed = numpy_helper.to_array(other.graph.initializer[2]) + np.float32(1)
    other.graph.initializer[2].CopyFrom(numpy_helper.from_array(changed, "wg"))
    onnx.save(other, tmp_path / "other.onnx")
    planish("build", tmp_path / "other.onnx", "--level", 0, "--quiet")
    made = planish("compare", model, "--plan", tmp_path / "other.plan")
    assert made.returncode == 1 and "OFF" in made.stdout and "allowed is" in made.stderr


def test_caches_are_shown_and_merged(model: Path, tmp_path: Path) -> None:
    caches = []
    for number, size in enumerate((1, 2)):
        caches.append(tmp_path / f"cache{number}.json")
        made = planish("build", model, "-o", tmp_path / "a.plan", "--level", 1, "--quiet",
                       "--profile", f"N={size}", "--timing-cache", caches[-1])  # fmt: skip
        assert made.returncode == 0, made.stderr
    merged = tmp_path / "merged.json"
    made = planish("cache", "merge", *caches, "-o", merged)
    assert made.returncode == 0, made.stderr
    entries = [json.loads(path.read_text())["entries"] for path in (*caches, merged)]
    assert set(entries[2]) == set(entries[0]) | set(entries[1])
    shown = json.loads(planish("cache", "show", merged, "--json").stdout)
    assert len(shown["entries"]) == len(entries[2])
    assert " us  cpu." in planish("cache", "show", merged).stdout
    assert (merged.stat().st_mode & 0o077) == 0  # private


def test_a_bad_cache_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    made = planish("cache", "show", tmp_path / "bad.json")
    assert made.returncode == 1 and "no timing cache" in made.stderr
    made = planish("cache", "merge", tmp_path / "none.json", "-o", tmp_path / "out.json")
    assert made.returncode == 1 and "no such timing cache" in made.stderr


def test_doctor_finds_nothing_wrong() -> None:
    made = planish("doctor", "--json")
    report = json.loads(made.stdout)
    assert made.returncode == 0 and report["problems"] == []
    assert [row["state"] for row in report["isas"]].count("used") == 1
    assert report["cores"]["usable"] >= 1


def test_doctor_sees_misspelt_and_illegal_knobs() -> None:
    made = planish("doctor", env={"PLANISH_DEBUGG": "1", "PLANISH_CHECK": "seven"})
    assert made.returncode == 0
    assert "PLANISH_DEBUGG is set" in made.stderr and "PLANISH_CHECK='seven'" in made.stderr


def test_demo_shows_what_was_fused_and_the_figures() -> None:
    made = planish("demo", "--seconds", 0.05, "--level", 0, "--json")
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)
    before, after, narrow = report["figures"].values()
    assert list(report["figures"]) == ["unoptimised", "fp32 plan", "int8 plan"]
    assert before["accuracy"] == after["accuracy"] > 0.97
    assert abs(narrow["accuracy"] - after["accuracy"]) < 0.01
    assert after["steps"] < before["steps"] / 2
    assert narrow["memory"]["weights"] < after["memory"]["weights"] / 2
    assert not any(row["kind"] == "concat" and "gone" not in row["how"] for row in report["layers"])
