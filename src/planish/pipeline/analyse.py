"""The sensitivity of a model's layers to 8 bits, from its file and data to the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from planish.base.errors import BuildError
from planish.graph.graph import Graph
from planish.lower.profiles import fix_dims, make_profiles
from planish.pipeline import build, opt_dims, optimise, read_graph
from planish.pipeline.data import Data, inputs_of, open_data
from planish.pipeline.goal import LabelsOrMetric, make_scorer
from planish.pipeline.options import Progress, make_options, silent
from planish.pipeline.plans import simulate_network
from planish.pipeline.preprocess import Preprocess
from planish.pipeline.quantiser import Quantiser, make_quantiser
from planish.pipeline.scoring import pick
from planish.pipeline.sensitivity import Sensitivity, measure_sensitivity
from planish.quantize.record import read_calibration
from planish.quantize.settings import make_settings
from planish.targets.cpu import host_target


def quantiser_for(
    graph: Graph,
    precision: str,
    data: str,
    *,
    preprocess: str | None,
    observer: str | Mapping[str, str],
    layer_precisions: Mapping[str, str],
    calibration_cache: Path | None,
    profiles: Sequence[str] | None,
    threads: int,
    isa: str,
    progress: Progress,
) -> Quantiser | None:
    """The stage that quantises, for looking at what it does; None for a network in floats.

    Args:
        graph: The network as it was read.
        precision: "fp32" or "int8".
        data: Data, or a saved calibration; "" for none.
        preprocess: As for `build`.
        observer: As for `build`.
        layer_precisions: As for `build`.
        calibration_cache: A calibration to use, where there is one.
        profiles: As for `build`.
        threads: As for `build`; 0: all cores.
        isa: As for `build`.
        progress: Called while calibrating.
    """
    ranges = make_profiles(graph, profiles)
    options = make_options(precision, threads or None, 0, isa, 0.0, None)
    made = make_quantiser(
        options, graph, make_settings(observer, layer_precisions), data or None, preprocess,
        host_target(isa, threads), ranges, progress,
    )  # fmt: skip
    if made is not None and calibration_cache is not None and calibration_cache.exists():
        made.calibration = made.calibration or read_calibration(calibration_cache)
    return made


def analyse_model(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    data: Data,
    *,
    preprocess: str | Preprocess | None = None,
    observer: str | Mapping[str, str] = "auto",
    layer_precisions: Mapping[str, str] | None = None,
    labels: LabelsOrMetric = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    samples: int = 16,
    profiles: str | Mapping[str, object] | Sequence[object] | None = None,
    threads: int | None = None,
    level: int = 0,
    isa: str = "",
    timing_cache: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Look at what 8 bits do to each layer of a model.

    Args:
        model: As for `build`.
        data: Samples to calibrate with and to look at.
        preprocess: As for `build`.
        observer: As for `build`.
        layer_precisions: As for `build`.
        labels: Right classes or a metric, for drops; None: none are told.
        calibration_cache: As for `build`.
        samples: How many samples the ratios are taken on.
        profiles: As for `build`.
        threads: As for `build`.
        level: Above 0 plans in floats and in 8 bits are built and timed for what each layer saves.
        isa: As for `build`.
        timing_cache: As for `build`.
        progress: Called with (what, done, total).

    Raises:
        BuildError: The model is quantised already, or has nothing that could be.
    """
    graph = read_graph(model)
    ranges = fix_dims(graph, make_profiles(graph, profiles))
    source = open_data(data, inputs_of(graph), preprocess)
    settings = make_settings(observer, layer_precisions)
    stage = Quantiser(settings, host_target(isa, threads or 0), ranges, source, None, progress)
    cache = None if calibration_cache is None else Path(calibration_cache)
    if cache is not None and cache.exists():
        stage.calibration = read_calibration(cache)

    def simplify(hook: Callable[[Graph], None]) -> None:
        fresh = read_graph(model)
        opt = opt_dims(fix_dims(fresh, make_profiles(fresh, profiles)))
        optimise(fresh, opt=opt, quantise=hook)

    simulation = simulate_network(simplify, stage, progress)
    try:
        if not simulation.layers:
            raise BuildError(
                "the model has no layer that could run in 8 bits",
                hint="planish explain says of each layer what it runs in and why",
            )
        if cache is not None and not cache.exists() and stage.calibration is not None:
            stage.calibration.save(cache)
        saved = None
        if level > 0:
            plan = build(
                model, precision="int8", calibration=stage.calibration, observer=observer,
                layer_precisions=layer_precisions, profiles=profiles, threads=threads,
                level=level, isa=isa, timing_cache=timing_cache, progress=progress,
            )  # fmt: skip
            times = plan.provenance["choice"]["times"]
            saved = {name: wide - narrow for name, wide, narrow in times}
        make = make_scorer(labels, source)
        scorer = None if make is None else make(simulation.reference)
        return measure_sensitivity(simulation, pick(source, samples), scorer, saved, progress)
    finally:
        simulation.close()
