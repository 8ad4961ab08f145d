"""Builds in 8 bits from end to end: choice by time, accuracy guard, calibration cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_simulation import DATA, model

import planish
from planish.base.errors import BuildError
from planish.pipeline.accuracy import GUARDED
from planish.pipeline.speed import time_plans
from planish.quantize.record import is_calibration


def wild_model() -> onnx.ModelProto:
    """The model with one input channel of the second convolution a thousand times the others."""
    made = model()
    for weights in made.graph.initializer:
        data = numpy_helper.to_array(weights).copy()
        if weights.name == "wa":
            data[3] *= 1000.0
        elif weights.name in ("wb", "wc"):
            data[:, 3] /= 1000.0
        weights.CopyFrom(numpy_helper.from_array(data, weights.name))
    return made


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_CACHE_DIR", str(tmp_path / "cache"))


def build(network: onnx.ModelProto, **options: object) -> planish.Plan:
    options = {"precision": "int8", "level": 0, "profiles": "N=1:2:16", **options}
    return planish.build(network, **options)  # type: ignore[arg-type]  # options by name


def test_the_calibration_is_kept_and_read(tmp_path: Path) -> None:
    cache = tmp_path / "net.calibration"
    one = build(model(), calibration=list(DATA), calibration_cache=cache)
    assert is_calibration(cache)
    again = build(model(), calibration=list(DATA), calibration_cache=cache)
    alone = build(model(), calibration_cache=cache)
    assert one.provenance["quantization"]["data"] == alone.provenance["quantization"]["data"]
    with planish.runtime.Engine(one) as a, planish.runtime.Engine(again) as b:
        assert np.array_equal(a(DATA[:2]), b(DATA[:2]))
    with pytest.raises(BuildError, match="made from the data"):
        build(model(), calibration=list(DATA[1:]), calibration_cache=cache)


def test_the_guard_ends_inside_the_bound() -> None:
    free = build(wild_model(), calibration=list(DATA))
    assert free.provenance["choice"]["guard"] is None
    made = build(wild_model(), calibration=list(DATA), max_accuracy_drop=0.1)
    guard = made.provenance["choice"]["guard"]
    assert guard["bound"] == 0.1 and "noise" in guard["unit"]
    assert guard["drop"] <= 0.1
    assert guard["path"][0]["layers"] == [] and guard["path"][-1]["inside"]
    with planish.runtime.Engine(made) as engine, planish.runtime.Engine(free) as other:
        floats = planish.build(wild_model(), level=0, profiles="N=1:2:16")
        with planish.runtime.Engine(floats) as exact:
            wanted = exact(DATA)
            found, worse = engine(DATA), other(DATA)
    noise = ((found - wanted) ** 2).sum() / (wanted**2).sum()
    assert noise < 0.0015
    if guard["path"][0]["inside"]:
        return
    assert noise < ((worse - wanted) ** 2).sum() / (wanted**2).sum()
    rows = {row[0]: row for row in made.provenance["quantization"]["layers"]}
    for name, why in made.provenance["choice"]["layers"]:
        assert why == GUARDED and rows[name][2:4] == ["fp32", GUARDED]


def test_labels_and_metrics_guard_too() -> None:
    labels = [n % 5 for n in range(12)]
    made = build(model(), calibration=list(DATA), max_accuracy_drop=100.0, labels=labels)
    assert made.provenance["choice"]["guard"]["unit"] == "points of top-1"
    seen: list[float] = []

    def metric(run: object) -> float:
        outputs = run({"x": DATA[:2]})  # type: ignore[operator]  # a function
        seen.append(float(outputs["scores"].sum()))
        return 1.0

    made = build(model(), calibration=list(DATA), max_accuracy_drop=0.0, labels=metric)
    assert made.provenance["choice"]["guard"]["drop"] == 0.0 and len(seen) >= 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": [1], "calibration": list(DATA)}, "no max_accuracy_drop"),
        ({"max_accuracy_drop": 0.5}, "needs data"),
        ({"max_accuracy_drop": -1.0, "calibration": list(DATA)}, "expected 0 or more"),
        ({"precision": "fp32", "calibration": list(DATA)}, "precision is 'fp32'"),
    ],
)
def test_what_makes_no_sense(options: dict[str, object], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        build(model(), **options)


def test_what_was_timed_is_kept() -> None:
    made = build(model(), calibration=list(DATA), level=1)
    tried = made.provenance["choice"]["tried"]
    assert [t["what"] for t in tried][:2] == ["fp32", "int8"]
    assert all(t["micros"] > 0 for t in tried)
    assert made.provenance["choice"]["kept"] in ("int8", "mixed", "fp32")
    floats = planish.build(model(), level=0, profiles="N=1:2:16")
    assert len(time_plans([made, floats])) == 2
