"""Ranges are chosen by what they typically do to the outputs, whatever one odd sample says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np

from planish.base.dtypes import DType
from planish.pipeline.choose import JUDGES, Trial
from planish.pipeline.options import silent
from planish.plan import TensorInfo
from planish.quantize.observers import OBSERVERS, Range
from planish.quantize.scales import Scale, activation_scale
from planish.quantize.settings import make_settings
from planish.quantize.simulate import Simulation
from planish.runtime import Engine


class _Network:
    """One value that is rounded, and clipped where the range ends."""

    outputs = (TensorInfo("y", DType.F32, (1, 64)),)
    means: ClassVar[dict[str, str]] = {}

    def parameters(self, scales: dict[str, Scale], biases: object) -> dict[str, Any]:
        return {"scale": scales.get("x")}

    def run(self, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
        x, scale = arrays["x"], arrays["scale"]
        if scale is not None:
            codes = np.clip(np.rint(x / scale.step) + scale.zero, 0, 255)
            x = (codes - scale.zero) * scale.step
        return {"y": x.astype(np.float32)}


@dataclass
class _Seen:
    kept: list[dict[str, np.ndarray]]
    means: list[dict[str, np.ndarray]] = field(default_factory=list)

    @property
    def results(self) -> list[dict[str, np.ndarray]]:
        return [{"y": arrays["x"].astype(np.float32)} for arrays in self.kept]


def chosen(samples: list[np.ndarray], ranges: list[tuple[str, Range]]) -> str:
    network = _Network()
    seen = _Seen([{"x": x} for x in samples])
    trial = Trial(cast(Engine, network), cast(Simulation, network), seen, make_settings())
    return trial.choose({"x": ranges}, {}, silent)["x"][0]


def test_one_odd_sample_does_not_decide() -> None:
    random = np.random.default_rng(0)
    samples = [random.uniform(0, 1, (1, 64)) for _ in range(JUDGES + 20)]
    narrow, wide = Range(0.0, 1.0), Range(0.0, 8.0)
    assert activation_scale(narrow) != activation_scale(wide)
    ranges = [("wide" if n else "narrow", wide if n else narrow) for n in range(len(OBSERVERS))]
    assert chosen(samples, ranges) == "narrow"
    samples[JUDGES + 3][0, :4] = 1.8  # the one that the narrow range cuts
    assert chosen(samples, ranges) == "narrow"
    for x in samples:
        x[0, :4] = 1.8
    assert chosen(samples, ranges) == "wide"
