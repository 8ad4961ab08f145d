"""What becomes of a model: the stages, the layers, and the fate of each ONNX node.

Everything here is read off what the passes and the lowering noted down. Only where times are asked
for, the steps are compiled, each with its likeliest kernel, and run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from planish.graph.graph import Event, Graph
from planish.graph.layer import Layer
from planish.lower.lowering import Lowered
from planish.lower.profiles import fix_dims, make_profiles
from planish.passes.explain_missed import explain_missed
from planish.pipeline import Optimised, lower, optimise
from planish.pipeline.conversions import note_conversions, noted_conversion
from planish.pipeline.dumps import Dumps
from planish.pipeline.options import Progress, make_options, silent
from planish.pipeline.quantiser import Quantiser
from planish.pipeline.trial import opt_feeds, tuned_plan
from planish.plan import Plan
from planish.runtime import Engine
from planish.targets.cpu import host_target

_RUNS = 20


@dataclass(frozen=True)
class Stage:
    """A line of the optimiser's log."""

    name: str
    left: int  # nodes; layers after fusion; steps at the end


@dataclass(frozen=True)
class LayerFate:
    """A layer and how it runs.

    Attributes:
        name: Its nodes' names.
        kind: "conv", "matmul", "loop", "view", "concat", "host" …
        ops: Its operators.
        origin: The ONNX nodes it stands for.
        how: "one step", "no step: …", …
        host: Why it runs on the host; "".
        micros: Of its steps in a run; None where nothing was timed.
    """

    name: str
    kind: str
    ops: str
    origin: tuple[str, ...]
    how: str
    host: str
    micros: float | None = None


@dataclass(frozen=True)
class NodeFate:
    """What became of an ONNX node.

    Attributes:
        name, op: The node.
        fate: In one line.
        history: What the passes did to it: (pass, note).
    """

    name: str
    op: str
    fate: str
    history: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Conversion:
    """A step that only converts between floats and 8 bits.

    Attributes:
        step: Its name.
        what: Such as "f32 to u8".
        micros: Of it in a run; None where nothing was timed.
    """

    step: str
    what: str
    micros: float | None = None


@dataclass(frozen=True)
class Explanation:
    """What becomes of a model.

    Attributes:
        stages: The optimiser's log.
        layers: The fused layers.
        nodes: The ONNX nodes.
        missed: What was not done: (what, why).
        precisions: Of layers, for a build in int8: (layer, operator, precision, why).
        conversions: Steps that only convert between floats and 8 bits.
        micros: Of a run; None where nothing was timed.
    """

    stages: tuple[Stage, ...]
    layers: tuple[LayerFate, ...]
    nodes: tuple[NodeFate, ...]
    missed: tuple[tuple[str, str], ...]
    precisions: tuple[tuple[str, str, str, str], ...] = ()
    conversions: tuple[Conversion, ...] = ()
    micros: float | None = None

    def record(self) -> dict[str, Any]:
        """As data for JSON."""
        return {
            "stages": [{"stage": s.name, "left": s.left} for s in self.stages],
            "layers": [asdict(layer) for layer in self.layers],
            "nodes": [
                asdict(n) | {"history": [{"pass": p, "note": note} for p, note in n.history]}
                for n in self.nodes
            ],
            "missed": [{"what": what, "why": why} for what, why in self.missed],
            "precisions": [
                {"layer": layer, "op": op, "precision": precision, "why": why}
                for layer, op, precision, why in self.precisions
            ],
            "conversions": [asdict(conversion) for conversion in self.conversions],
            "micros": self.micros,
        }


def explain_build(
    graph: Graph,
    profiles: str | Mapping[str, object] | Sequence[object] | None = None,
    threads: int = 0,
    isa: str = "",
    quantiser: Quantiser | None = None,
    time: bool = False,
    progress: Progress = silent,
) -> Explanation:
    """Run a build up to the tuner and tell what happened.

    Args:
        graph: From `pipeline.read_graph`; it is changed.
        profiles: As for `build`.
        threads: As for `build`; 0: all cores.
        isa: As for `build`.
        quantiser: Quantises the graph on the way; None: it stays as it is.
        time: Run the steps at the opt shapes, with the kernels of level 0.
        progress: Called with (what, done, total).
    """
    ranges = fix_dims(graph, make_profiles(graph, profiles))
    nodes = [(node.name, node.op) for node in graph.nodes]
    made = optimise(graph, quantise=quantiser)
    target = host_target(isa, threads)
    lowered = lower(made, target, ranges)
    note_conversions(made.layers, lowered)
    spent: list[float] | None = None
    if time:
        options = make_options("fp32", threads or None, 0, isa, 0.0, None, True)
        plan = tuned_plan(graph, lowered, target, ranges, options, None, progress, Dumps(None, 0))
        spent = _times(plan)
    layers = tuple(_layer(layer, made, lowered, spent) for layer in made.layers)
    stages = [Stage(name, left) for name, left in made.stages]
    stages.append(Stage("after concat and view elimination", len(lowered.steps)))
    return Explanation(
        stages=tuple(stages),
        layers=layers,
        nodes=tuple(_node(name, op, graph.history, layers) for name, op in nodes),
        missed=(*explain_missed(graph, made.layers), *_copies(lowered)),
        precisions=tuple(
            (p.name, p.op, p.precision, p.why) for p in (quantiser.precisions if quantiser else ())
        ),
        conversions=tuple(
            Conversion(step.name, what, None if spent is None else spent[number])
            for number, step in enumerate(lowered.steps)
            if (what := noted_conversion(step.note))
        ),
        micros=None if spent is None else sum(spent),
    )


def _times(plan: Plan) -> list[float]:
    """Microseconds of each step, the median of some runs."""
    with Engine(plan) as engine:
        report = engine.profile(opt_feeds(plan), runs=_RUNS)
    return [step.micros for step in report.steps]


def _copies(lowered: Lowered) -> list[tuple[str, str]]:
    """What the lowering noted: (what, why)."""
    parts = [note.partition(": ") for _, note, _ in lowered.notes]
    return [(what, why) for what, _, why in parts]


def _layer(
    layer: Layer, made: Optimised, lowered: Lowered, spent: Sequence[float] | None
) -> LayerFate:
    parts = layer.siblings or (layer,)
    nodes = [node for part in parts for node in part.nodes]
    reasons = [made.host_reasons[id(n)] for n in nodes if id(n) in made.host_reasons]
    names = {layer.name, *(node.name for node in nodes)}
    steps = [
        number
        for number, step in enumerate(lowered.steps)
        if step.name in names or step.name.partition("[")[0] in names
    ]
    return LayerFate(
        name=layer.name,
        kind=layer.kind,
        ops=" || ".join(" + ".join(node.op for node in part.nodes) for part in parts),
        origin=tuple(dict.fromkeys(o for node in nodes for o in node.origin)),
        how=_how(layer, len(steps), len(parts)),
        host="; ".join(reasons),
        micros=None if spent is None else sum(spent[number] for number in steps),
    )


def _how(layer: Layer, steps: int, siblings: int) -> str:
    if layer.kind == "host":
        return "on the host"
    if layer.kind == "concat":
        count = len(layer.anchor.inputs)
        if steps:
            return f"{steps} of {count} inputs copied, the others written in place"
        return "gone: every input is written straight to its place"
    if layer.kind == "view":
        return "copied" if steps else "gone: a view, no data moves"
    if not steps:
        return "gone: nobody reads it"
    return f"one step for {siblings} siblings" if siblings > 1 else "one step"


def _node(name: str, op: str, history: Sequence[Event], layers: Sequence[LayerFate]) -> NodeFate:
    events = tuple((e.step, e.note) for e in history if name in e.origin)
    mine = [(number, layer) for number, layer in enumerate(layers) if name in layer.origin]
    if mine:
        fate = "; ".join(_place(number, layer) for number, layer in mine)
    elif events:
        fate = f"removed by {events[-1][0]}"
    else:
        fate = "removed: nobody uses its result"
    return NodeFate(name, op, fate, events)


def _place(number: int, layer: LayerFate) -> str:
    return f"layer {number} ({layer.kind}: {layer.ops}), {layer.how}"
