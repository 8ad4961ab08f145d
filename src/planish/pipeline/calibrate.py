"""Calibration by itself: the network runs over the data, and its values become ranges.

    calibration = calibrate_model("model.onnx", data)
    calibration.save("model.calibration")
    plan = planish.build("model.onnx", precision="int8", calibration="model.calibration")

The result depends on the data as a set only: samples run one by one (or in the network's fixed
batch), histograms add up exactly, and the few samples on which observers and biases are chosen are
picked by the digests of their contents.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import onnx

from planish.graph.graph import Graph
from planish.lower.profiles import fix_dims, make_profiles
from planish.pipeline import opt_dims, optimise, read_graph
from planish.pipeline.data import Data, inputs_of, open_data
from planish.pipeline.options import Progress, silent
from planish.pipeline.preprocess import Preprocess
from planish.pipeline.quantiser import Quantiser
from planish.quantize.record import Calibration
from planish.quantize.settings import Settings, make_settings
from planish.targets.cpu import host_target


def calibrate_model(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    data: Data,
    settings: Settings | None = None,
    *,
    preprocess: str | Preprocess | None = None,
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
        profiles: As for `build`.
        threads: As for `build`.
        isa: As for `build`.
        progress: Called with ("calibrating", samples done, samples in all or 0), and the like.

    Raises:
        InputError: The data do not fit the network, or hold NaN or infinities.
        BuildError: The settings make no sense.
    """
    graph = read_graph(model)
    ranges = fix_dims(graph, make_profiles(graph, profiles))
    samples = open_data(data, inputs_of(graph), preprocess)
    target = host_target(isa, threads or 0)
    found: list[Calibration] = []

    def quantise(simplified: Graph) -> None:
        stage = Quantiser(settings or make_settings(), target, ranges, samples, None, progress)
        found.append(stage.calibrated(simplified, stage.prepare(simplified)))

    optimise(graph, opt=opt_dims(ranges), quantise=quantise)
    return found[0]
