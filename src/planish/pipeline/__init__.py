"""The table of contents: a model goes in, a plan comes out.

import → simplify → quantise → fuse → lower → tune → memory → plan
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from planish.base import knobs
from planish.graph.graph import Graph
from planish.graph.infer import infer_types
from planish.graph.layer import Layer
from planish.importer import import_model
from planish.lower.lowering import Lowered, lower_graph
from planish.lower.profiles import fix_dims, make_profiles, settle_dims
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.passes.merge_siblings import merge_siblings
from planish.passes.rewrite import Pass, PassRun
from planish.passes.table import INTEGER_PASSES, PASSES
from planish.pipeline.checks import PassChecks
from planish.pipeline.conversions import note_conversions
from planish.pipeline.data import Data
from planish.pipeline.dumps import Dumps, from_knobs
from planish.pipeline.goal import LabelsOrMetric, make_goal
from planish.pipeline.options import Progress, make_options, silent
from planish.pipeline.plain import PLAIN_PASSES, single_layers
from planish.pipeline.plan_times import PlanTimes
from planish.pipeline.plans import Plans
from planish.pipeline.precision import choose_precisions
from planish.pipeline.preprocess import Preprocess
from planish.pipeline.provenance import with_provenance
from planish.pipeline.quantiser import Quantiser, make_quantiser
from planish.pipeline.speed import time_plans
from planish.pipeline.trial import tuned_plan
from planish.plan import Plan, Profile
from planish.quantize.compress import compress_weights
from planish.quantize.halve import halve_weights
from planish.quantize.record import Calibration
from planish.quantize.settings import Settings, make_settings
from planish.targets.cpu import CpuTarget, host_target
from planish.tune.cache import default_cache_path


@dataclass
class Optimised:
    """A graph after all passes, grouped into layers.

    Attributes:
        graph: The graph.
        layers: Its layers in order.
        stages: The counters of the builder's log: (stage, nodes or layers left).
        host_reasons: id(node) -> why it runs on the host.
    """

    graph: Graph
    layers: list[Layer]
    stages: list[tuple[str, int]]
    host_reasons: dict[int, str]


def build(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    precision: str = "fp32",
    calibration: Calibration | Data | None = None,
    preprocess: str | Preprocess | None = None,
    observer: str | Mapping[str, str] = "auto",
    layer_precisions: Mapping[str, str] | None = None,
    quantization: Settings | None = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    max_accuracy_drop: float | None = None,
    labels: LabelsOrMetric = None,
    threads: int | None = None,
    profiles: str | Mapping[str, object] | Sequence[object] | None = None,
    inputs: Collection[str] = (),
    level: int = 3,
    timing_cache: str | os.PathLike[str] | None = None,
    isa: str = "",
    time_budget: float = 0.0,
    pins: Mapping[str, str] | None = None,
    optimised: bool = True,
    progress: Progress = silent,
) -> Plan:
    """Turn a trained network into a plan for this machine.

    Args:
        model: Path of an ONNX file, its bytes, or a loaded model.
        precision: "fp32"; "int8"; or "fp16": weights are stored in half precision, and widened as
            they are read (arithmetic stays in f32); or "int8-weights": those of matrix products
            are stored as bytes, with a scale a column (arithmetic stays in f32).
        calibration: For int8: arrays, tuples or dicts of them; a folder of pictures, a .npy or .npz
            file, "module:function"; or a saved calibration. A model with QuantizeLinear nodes of
            its own needs none.
        preprocess: What is done to pictures of `calibration` first, as `preprocess.py` reads it.
        observer: How ranges are found: "auto", "max", "percentile", "mse", "entropy"; or such a
            name for each pattern of value or layer names.
        layer_precisions: Pattern of layer names -> "fp32" or "int8".
        quantization: All settings of int8 at once, from `quantize.settings.make_settings`, in place
            of `observer` and `layer_precisions`.
        calibration_cache: File to read the calibration from, or to write it to where there is none.
        max_accuracy_drop: How much worse int8 may be than fp32, in points of top-1 or of the metric
            of `labels`; without these in percent of noise in the outputs. Layers go back to fp32
            until it holds.
        labels: Right classes of the samples of `calibration`: a file, classes in order or by name,
            `labels.Labels`; or a metric: a function of a function that runs the network.
        threads: Workers that share each layer; None: every core the process may use.
        profiles: Ranges of the symbolic dims, as `profiles.make_profiles` reads them.
        inputs: Inputs that stay inputs though the model has values for them; those of others are
            constants.
        level: 0 (no timing, a plan in seconds) to 5 (every tactic timed).
        timing_cache: File of measured times to read and extend; None: the user's own.
        isa: Cap on the vector instructions ("avx512", "avx2", "generic", "neon").
        time_budget: Seconds that timing may take; 0.0: no limit.
        pins: Layer name or pattern -> tactic that it must run with.
        optimised: False lets each node of the model run by itself, as a yardstick.
        progress: Called with (what, done, total).

    Raises:
        ModelError: The model is malformed.
        BuildError: An option makes no sense, or no kernel runs a layer.
    """
    options = make_options(precision, threads, level, isa, time_budget, pins, optimised)
    target = host_target(options.isa, options.threads)
    all_dumps = [from_knobs()]  # of the first plan that is made

    def read() -> tuple[Graph, list[Profile]]:
        graph = read_graph(model, inputs)
        return graph, list(fix_dims(graph, make_profiles(graph, profiles)))

    def make(quantiser: Quantiser | None) -> Plan:
        dumps = all_dumps.pop() if all_dumps else Dumps(None, 0)
        graph, ranges = read()
        table = PASSES if optimised else PLAIN_PASSES
        narrow = compress_weights if options.precision == "int8-weights" else None
        made = optimise(graph, dumps, table, opt_dims(ranges), quantiser, narrow)
        if options.precision == "fp16":
            halve_weights(made.graph, made.layers)
        lowered = lower(made, target, ranges)
        note_conversions(made.layers, lowered)
        dumps.lowered(lowered)
        plan = tuned_plan(graph, lowered, target, ranges, options, timing_cache, progress, dumps)
        plan.stages = tuple(made.stages)
        dumps.plan(plan, lowered)
        return with_provenance(plan, options, model, quantiser)

    def simplify(hook: Callable[[Graph], None]) -> None:
        graph, ranges = read()
        optimise(graph, None, PASSES, opt_dims(ranges), hook)

    graph, ranges = read()
    settings = quantization or make_settings(observer, layer_precisions)
    quantiser = make_quantiser(
        options, graph, settings, calibration, preprocess, target, ranges, progress
    )
    goal = make_goal(max_accuracy_drop, labels, None if quantiser is None else quantiser.samples)
    if quantiser is None or not optimised:
        return make(quantiser)
    cache = None if calibration_cache is None else Path(calibration_cache)
    times = Path(timing_cache) if timing_cache else default_cache_path()
    measure = PlanTimes(times, target, time_plans)
    plans = Plans(make, simplify, quantiser, level, progress, cache)
    return choose_precisions(plans, goal, quantiser.samples, progress, measure).plan


def read_graph(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto, inputs: Collection[str] = ()
) -> Graph:
    """The model's graph with types; `inputs` as for `build`."""
    graph = import_model(Path(model) if isinstance(model, str | os.PathLike) else model, inputs)
    infer_types(graph)
    settle_dims(graph)
    return graph


def optimise(
    graph: Graph,
    dumps: Dumps | None = None,
    passes: Sequence[Pass] = PASSES,
    opt: Mapping[str, int] | None = None,
    quantise: Callable[[Graph], None] | None = None,
    narrow: Callable[[Graph], object] | None = None,
) -> Optimised:
    """Run the passes, then group the nodes into layers.

    Args:
        graph: From `read_graph`; it is changed.
        dumps: Where the stages are printed and written; None: nowhere.
        passes: The passes; `PLAIN_PASSES` for a layer a node.
        opt: Likely sizes of the symbolic dims, for numeric checks.
        quantise: Puts pairs of QuantizeLinear and DequantizeLinear into the simplified graph of
            floats; None: what the model brings stays.
        narrow: Changes how weights are stored, after all passes; None: they stay.
    """
    dumps = dumps or Dumps(None, 0)
    checks = PassChecks(graph, opt or {}, knobs.CHECK.value)

    def after(work: Pass, graph: Graph) -> None:
        dumps.graph(work.name, graph)
        checks.after(work.name, graph)

    dumps.graph("import", graph)
    stages = [("nodes in the model", len(graph.nodes))]
    limit = knobs.STOP_AFTER.value
    run = PassRun(graph, None if limit < 0 else limit, after)
    for work in passes:
        run.run(work)
        _count(stages, work.stage, len(graph.nodes))
    if quantise is not None:
        quantise(graph)
        infer_types(graph)
        dumps.graph("quantise", graph)
        checks = PassChecks(graph, opt or {}, knobs.CHECK.value)
        stages.append(("quantised", len(graph.nodes)))
    for work in INTEGER_PASSES if passes is not PLAIN_PASSES else ():
        run.run(work)
        _count(stages, work.stage, len(graph.nodes))
    if narrow is not None:
        narrow(graph)
    reasons = {id(node): why for node in graph.nodes if (why := native_reason(node)) is not None}
    if passes is PLAIN_PASSES:
        layers = single_layers(graph, native_reason)
        stages.append(("each node by itself", len(layers)))
    else:
        layers = fuse_layers(graph, native_reason, lambda kind, node: True)
        stages.append(("after vertical fusion", len(layers)))
        layers = merge_siblings(graph, layers)
        stages.append(("after horizontal fusion", len(layers)))
    dumps.layers(layers, reasons)
    return Optimised(graph, layers, stages, reasons)


def _count(stages: list[tuple[str, int]], stage: str, left: int) -> None:
    """Add a line to the log. A stage that comes again is told again if it changed something."""
    before = stages[-1][1]
    if stages[-1][0] == stage:
        stages[-1] = (stage, left)
    elif left != before or all(name != stage for name, _ in stages):
        stages.append((stage, left))


def lower(optimised: Optimised, target: CpuTarget, ranges: Sequence[Profile]) -> Lowered:
    """Layers as steps."""
    return lower_graph(
        optimised.graph,
        optimised.layers,
        target.threads,
        opt_dims(ranges),
        optimised.host_reasons,
    )


def opt_dims(ranges: Sequence[Profile]) -> dict[str, int]:
    """The opt size of each symbolic dim, of the first profile that has it."""
    return {name: middle for p in reversed(ranges) for name, _, middle, _ in p.dims}
