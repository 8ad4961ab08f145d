"""What the variants of the accuracy table are built with."""

from __future__ import annotations

from typing import Any

import pytest

import accuracy_variants
import zoo_quantised
from accuracy_variants import VARIANTS, Setup
from planish.pipeline import calibrate
from zoo import ZooModel


@pytest.mark.parametrize("name", ["auto", "auto-tensor", "max"])
def test_a_plan_is_quantised_as_its_calibration_was(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def calibrated(path: object, feeds: object, settings: object, *, threads: int) -> str:
        asked["settings"] = settings
        return "ranges"

    monkeypatch.setattr(Setup, "path", "model.onnx")
    monkeypatch.setattr(calibrate, "calibrate_model", calibrated)
    monkeypatch.setattr(zoo_quantised, "calibration_feeds", lambda *_: [])
    monkeypatch.setattr(accuracy_variants, "_planish", lambda _, **given: asked.update(given))
    model = ZooModel.__new__(ZooModel)
    VARIANTS[name].prepare(Setup(model, 2, None))
    assert asked["quantization"] is asked["settings"]
    assert asked["calibration"] == "ranges"
    assert asked["quantization"].per_channel is not VARIANTS[name].per_tensor
