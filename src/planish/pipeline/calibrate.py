"""Calibration: the network runs over the data, and what its values are becomes their ranges.

    model ─ float passes ─ equalise ─ placement ─┬─ float plan ─ data ─ histograms ─ ranges
                                                  └─ simulated plan ─ choice of observers, biases

    calibration = calibrate_model("model.onnx", data)
    calibration.save("model.calibration")
    plan = planish.build("model.onnx", precision="int8", calibration=calibration)

The result depends on the data as a set only: samples run one by one (or in the network's fixed
batch), histograms add up exactly, and the few samples on which observers and biases are chosen are
picked by the digests of their contents.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import onnx

from planish.pipeline.options import Progress, silent
from planish.quantize.record import Calibration
from planish.quantize.settings import Settings, make_settings


def calibrate_model(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    data: object,
    settings: Settings | None = None,
    *,
    preprocess: object = None,
    profiles: str | Mapping[str, object] | Sequence[object] | None = None,
    threads: int | None = None,
    isa: str = "",
    progress: Progress = silent,
) -> Calibration:
    """Calibrate a network; what `build` does first when `calibration` is data.

    Args:
        model: As for `build`.
        data: What `data.open_data` reads: arrays, dicts, files, `Samples`.
        settings: From `make_settings`; None: the defaults.
        preprocess: As for `data.open_data`.
        profiles, threads, isa: As for `build`.
        progress: Called with ("calibrating", samples done, samples in all or 0), and the like.

    Raises:
        InputError: The data do not fit the network, or hold NaN or infinities.
        BuildError: The settings make no sense.
    """
    raise NotImplementedError(str((model, data, settings or make_settings(), preprocess)))
