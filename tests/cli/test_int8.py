"""int8 from the command line: build, inspect, sensitivity, explain."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from commands import planish


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    np.save(folder / "data.npy", random.standard_normal((16, 3, 8, 8)).astype(np.float32))
    np.save(folder / "labels.npy", np.arange(16) % 5)
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    (folder / "pictures").mkdir()
    for n in range(4):
        pixels = random.integers(0, 256, (10, 12, 3), np.uint8)
        image.fromarray(pixels).save(folder / "pictures" / f"{n}.png")
    return folder


def test_build_inspect(model: Path, data: Path, tmp_path: Path) -> None:
    cache, plan = tmp_path / "c.txt", tmp_path / "m.plan"
    made = planish(
        "build", model, "-o", plan, "--precision", "int8", "--calibrate", data / "data.npy",
        "--calibration-cache", cache, "--max-accuracy-drop", 50, "--labels", data / "labels.npy",
        "--layer-precision", "conv_b=fp32", "--observer", "max", "--observer", "conv_a=mse",
        "--level", 0, "--json", tmp_path / "report.json",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "Accuracy guard: at most 50 points of top-1" in made.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["choice"]["guard"]["bound"] == 50
    assert cache.read_text().startswith("planish calibration")
    shown = planish("inspect", plan, "--json")
    record = json.loads(shown.stdout)
    layers = {row[0]: row for row in record["provenance"]["quantization"]["layers"]}
    assert layers["conv_a"][2] == "int8" and layers["conv_b"][2] == "fp32"
    assert {"u8", "f32 to u8"} <= {row["precision"] for row in record["steps"]}
    assert any(row["conversion"] for row in record["steps"])
    text = planish("inspect", plan).stdout
    assert "conv_b" in text and "the user wants it so" in text
    assert "only convert between floats and 8 bits" in text


def test_pictures_and_their_spec_are_kept(model: Path, data: Path, tmp_path: Path) -> None:
    made = planish(
        "build", model, "-o", tmp_path / "m.plan", "--precision", "int8", "--level", 0,
        "--calibrate", data / "pictures", "--preprocess", "crop=8 scale=1/255",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "crop=8 scale=1/255" in planish("inspect", tmp_path / "m.plan").stdout


def test_sensitivity(model: Path, data: Path, tmp_path: Path) -> None:
    made = planish(
        "sensitivity", model, "--calibrate", data / "data.npy", "--labels", data / "labels.npy",
        "--plot", tmp_path / "s.svg", "--json",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    record = json.loads(made.stdout)
    names = [row["name"] for row in record["layers"]]
    assert sorted(names) == ["classify.MatMul", "conv_a", "conv_b"]
    ratios = [row["output_sqnr"] for row in record["layers"]]
    assert ratios == sorted(ratios) and record["output_sqnr"] > 20
    picture = ET.parse(tmp_path / "s.svg").getroot()
    assert picture.tag.endswith("svg") and len(picture.findall("{*}g")) == 3


def test_sensitivity_with_times(model: Path, data: Path) -> None:
    made = planish(
        "sensitivity", model, "--calibrate", data / "data.npy", "--level", 1, "--samples", 2
    )
    assert made.returncode == 0, made.stderr
    assert "saves us" in made.stdout


def test_explain_times_conversions(model: Path, data: Path) -> None:
    command = ["explain", model, "--precision", "int8", "--calibrate", data / "data.npy", "--time"]
    made = planish(*command, "--no-nodes")
    assert made.returncode == 0, made.stderr
    told = re.search(
        r"(\d+) steps only convert between floats and 8 bits: ([\d.]+) us of ([\d.]+)", made.stdout
    )
    assert told is not None, made.stdout
    assert int(told[1]) > 0 and 0 < float(told[2]) < float(told[3])


def test_explain_tells_precisions(model: Path, data: Path, tmp_path: Path) -> None:
    made = planish("explain", model, "--precision", "int8", "--calibrate", data / "data.npy",
                   "--no-nodes", "--json", tmp_path / "e.json")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "its weights are constant" in made.stdout and "only convert" in made.stdout
    record = json.loads((tmp_path / "e.json").read_text())
    assert any(row["what"].startswith("f32 to u8") for row in record["conversions"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--precision", "int8"), "there is no calibration"),
        (("--precision", "int8", "--calibrate", "nowhere"), "no data at 'nowhere'"),
        (("--calibrate", "x.npy"), "precision is 'fp32'"),
        (("--precision", "int8", "--observer", "best"), "observer 'best'"),
        (("--precision", "int8", "--layer-precision", "conv_a"), "expected PATTERN=fp32|int8"),
        (("--precision", "int8", "--labels", "nothing.txt"), "cannot read the labels"),
    ],
)
def test_what_is_wrong(model: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    made = planish("build", model, "-o", tmp_path / "m.plan", "--level", 0, *arguments)
    assert made.returncode == 1 and says in made.stderr
