"""The ways in which `accuracy.py` runs a trained network: in floats, and quantised by whom and how.

A variant prepares a network and gives a function that maps one input to its scores. What it has to
do with the calibration data is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import zoo
import zoo_quantised
from zoo_data import DATASETS

Scorer = Callable[[np.ndarray], np.ndarray]  # input without its batch dim -> scores, flat
OBSERVERS = ("max", "percentile", "mse", "entropy", "auto")


@dataclass(frozen=True)
class Setup:
    """What a variant is given.

    Attributes:
        model: The float network.
        threads: For runs and calibration.
        samples: Calibration samples at most; None: all there are. onnxruntime's files always come
            of all of them.
    """

    model: zoo.ZooModel
    threads: int
    samples: int | None

    @property
    def path(self) -> Path:
        """The network with batch 1."""
        return zoo.with_batch(self.model, 1).path

    @property
    def feed(self) -> str:
        """Name of the input."""
        (name,) = self.model.inputs
        return name


@dataclass(frozen=True)
class Prepared:
    """A network ready to be scored; seconds of calibration where there was one."""

    run: Scorer
    seconds: float | None = None


@dataclass(frozen=True)
class Variant:
    """A row of VARIANTS.

    Attributes:
        name: As the command line calls it.
        prepare: Calibrates and builds.
        per_tensor: One scale for all weights of a layer: done only where asked for.
    """

    name: str
    prepare: Callable[[Setup], Prepared]
    per_tensor: bool = False


def _planish(setup: Setup, **arguments: object) -> Scorer:
    import planish

    plan = planish.build(setup.path, threads=setup.threads, level=0, **arguments)
    engine = planish.Engine(plan)
    return lambda one: next(iter(engine.run({setup.feed: one[None]}).values())).reshape(-1)


def _floats(setup: Setup) -> Prepared:
    return Prepared(_planish(setup))


def _observer(name: str, *, per_channel: bool = True) -> Callable[[Setup], Prepared]:
    def prepare(setup: Setup) -> Prepared:
        from planish.pipeline.calibrate import calibrate_model
        from planish.quantize.settings import make_settings

        settings = make_settings(name, per_channel=per_channel)
        feeds = zoo_quantised.calibration_feeds(setup.model, setup.samples)
        begin = time.perf_counter()
        calibration = calibrate_model(setup.path, feeds, settings, threads=setup.threads)
        seconds = time.perf_counter() - begin
        run = _planish(setup, precision="int8", calibration=calibration, quantization=settings)
        return Prepared(run, seconds)

    return prepare


def _onnxruntime(path: Path, setup: Setup) -> Scorer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda one: session.run(None, {setup.feed: one[None]})[0].reshape(-1)


def _onnxruntime_floats(setup: Setup) -> Prepared:
    return Prepared(_onnxruntime(setup.path, setup))


def _static(*, per_channel: bool) -> Callable[[Setup], Prepared]:
    def prepare(setup: Setup) -> Prepared:
        made = zoo_quantised.quantised(setup.model, per_channel=per_channel)
        return Prepared(_onnxruntime(made.path, setup), zoo_quantised.seconds(made))

    return prepare


FLOATS = "fp32"
RIVAL = "onnxruntime"
DEFAULT = "auto"
PER_TENSOR = "auto-tensor"
VARIANTS: dict[str, Variant] = {
    row.name: row
    for row in (
        Variant(FLOATS, _floats),
        *(Variant(name, _observer(name)) for name in OBSERVERS),
        Variant(RIVAL, _static(per_channel=True)),
        Variant(PER_TENSOR, _observer("auto", per_channel=False), per_tensor=True),
        Variant("onnxruntime-tensor", _static(per_channel=False), per_tensor=True),
        Variant("onnxruntime-fp32", _onnxruntime_floats),
    )
}


def scored(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, classes) of all labelled data of a network; read once, as they are used often."""
    inputs, labels = zip(*DATASETS[name].everything(), strict=True)
    return np.stack(inputs), np.array(labels)
