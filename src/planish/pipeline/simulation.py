"""Runs a network with any set of its layers in 8 bits and the others in floats, from one plan.

    run = simulation.runner({"conv1"})      conv1 in floats, all others as if in 8 bits
    outputs = run({"data": picture})

See quantize/switches.py for what is imitated. The plan is built at level 0, once; going from one
set to another writes some weights and some switches.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from planish.base.errors import VerifyError
from planish.base.shapes import evaluate
from planish.graph.copy import copy_graph
from planish.graph.graph import Graph, Node
from planish.lower.assemble import Assembler
from planish.lower.lowering import LoweredStep, lower_graph
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.pipeline.options import Progress, make_options
from planish.pipeline.samples import Arrays
from planish.pipeline.trial import Trial
from planish.plan import NativeStep, Plan, Profile, Ref
from planish.quantize.insert import channel_axis
from planish.quantize.placement import Placement, place
from planish.quantize.rounding import Rounding
from planish.quantize.scales import Scale
from planish.quantize.settings import Settings
from planish.quantize.switches import SWITCHES, Edge, edges_of, insert_switches
from planish.runtime import Engine
from planish.targets.cpu import CpuTarget, usable_cores
from planish.targets.driver import driver_object
from planish.tune.compile import CompilePool

_ALIGN = 64  # bytes; the engine reads dense constants in place where they lie so


class Simulation:
    """One plan for all mixes of 8 bits and floats.

    Args:
        graph: The optimised float graph, as it would be quantised; it is not changed.
        settings: How it is quantised.
        scales: Group name -> scale.
        target: The CPU.
        profiles: Ranges of the symbolic dims.
        progress: Called with ("compiling", done, total).
        biases: Layer -> what 8 bits add to its bias, one a channel.
        roundings: Layer -> which codes of its weights are not the nearest.

    Attributes:
        layers: Names of the contractions that 8 bits are for, in the graph's order.
        origins: Layer -> its ONNX nodes.
        ops: Layer -> its operator.
        work: Layer -> its multiply-adds at the opt sizes.
        step_of: Layer -> scale of its input.
        others: Layers that stay in floats: (name, operator, why).
    """

    def __init__(
        self,
        graph: Graph,
        settings: Settings,
        scales: Mapping[str, Scale],
        target: CpuTarget,
        profiles: Sequence[Profile],
        progress: Progress,
        biases: Mapping[str, np.ndarray] | None = None,
        roundings: Mapping[str, Rounding] | None = None,
    ) -> None:
        self._graph, self._settings = graph, settings
        placement = self._placement(frozenset())
        self.layers = tuple(node.name for node in placement.contractions)
        self.origins = {node.name: node.origin for node in placement.contractions}
        self.ops = {node.name: node.op for node in placement.contractions}
        opt = {n: m for p in reversed(profiles) for n, _, m, _ in p.dims}
        self.work = {node.name: _multiply_adds(node, opt) for node in placement.contractions}
        owner = {value: group.name for group in placement.groups for value in group.values}
        self.step_of = {
            node.name: scales[owner[node.inputs[0]]]
            for node in placement.contractions
            if node.inputs[0] is not None
        }
        self.others = tuple(
            (p.name, p.op, p.why) for p in placement.precisions if p.precision != "int8"
        )
        copy = copy_graph(graph)[0]
        inner = place(copy, fuse_layers(copy, native_reason, _absorbs_all), settings)
        made = insert_switches(copy, inner, scales, settings.per_channel, biases, roundings)
        self.edges = made.edges
        self._plain = {
            node.name: np.asarray(node.inputs[1].data)
            for node in placement.contractions
            if node.inputs[1] is not None
        }
        self._rounded = made.weights
        self._make = (target, profiles, progress)
        with _Maker(*self._make) as maker:
            floats, steps = maker.plan(made.graph)
            values = {value.name: value for value in made.graph.values()}
            for name, data in (pair for pairs in made.constants.values() for pair in pairs):
                values[name].data = data
            narrow, _ = maker.plan(made.graph)
        self._pairs = _weights_of(steps, floats, narrow, made.constants)
        self._weights = [_writable(w) for w in floats.weights]
        self._engine = Engine(replace(floats, weights=tuple(self._weights)))
        self._state: dict[str, bool] = dict.fromkeys(self.layers, False)
        self._switches: dict[frozenset[str], np.ndarray] = {}

    def runner(self, floats: frozenset[str]) -> Callable[[Arrays], Arrays]:
        """Something that runs the network with some layers in floats.

        Args:
            floats: Names of `layers`.
        """
        if floats not in self._switches:
            self._switches[floats] = self._edges_in_8_bits(floats)
        switches = self._switches[floats]

        def run(feeds: Arrays) -> Arrays:
            self._set_weights(floats)
            return self._engine.run({**feeds, SWITCHES: switches})

        return run

    @property
    def reference(self) -> Callable[[Arrays], Arrays]:
        """Runs the network in floats."""
        return self.runner(frozenset(self.layers))

    def weights_of(self, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """A layer's weights in floats, and as 8 bits have them."""
        return self._plain[layer], self._rounded[layer]

    def watch(self) -> Watch:
        """Runs the network in floats and gives what each layer reads."""
        copy = copy_graph(self._graph)[0]
        read = {n.name: n.inputs[0] for n in copy.nodes if n.name in self.ops}
        names = {name: value.name for name, value in read.items() if value is not None}
        outputs = dict.fromkeys(v for v in read.values() if v is not None and v not in copy.inputs)
        copy.outputs += [v for v in outputs if not copy.is_output(v)]
        with _Maker(*self._make) as maker:
            return Watch(Engine(maker.plan(copy)[0]), names)

    def close(self) -> None:
        """Free the plan."""
        self._engine.close()

    def _set_weights(self, floats: frozenset[str]) -> None:
        for name in self.layers:
            wanted = name not in floats
            if self._state[name] != wanted:
                for number, wide, narrow in self._pairs[name]:
                    np.copyto(self._weights[number], narrow if wanted else wide)
                self._state[name] = wanted

    def _edges_in_8_bits(self, floats: frozenset[str]) -> np.ndarray:
        """The switches for some layers in floats: edges that would still be in 8 bits are on."""
        on: set[Edge] = set()
        if floats < frozenset(self.layers):
            on = set(edges_of(self._placement(floats)))
        return np.array([edge in on for edge in self.edges], np.bool_)

    def _placement(self, floats: frozenset[str]) -> Placement:
        layers = fuse_layers(self._graph, native_reason, _absorbs_all)
        return place(self._graph, layers, in_floats(self._settings, floats))


class Watch:
    """Gives what each layer reads."""

    def __init__(self, engine: Engine, names: Mapping[str, str]) -> None:
        self._engine, self._names = engine, names

    def __call__(self, feeds: Arrays) -> Arrays:
        """Layer -> its input, in floats."""
        values = {**feeds, **self._engine.run(feeds)}
        return {layer: values[name] for layer, name in self._names.items()}

    def close(self) -> None:
        """Free the plan."""
        self._engine.close()


def in_floats(settings: Settings, layers: frozenset[str]) -> Settings:
    """Settings with some layers, by name, in floats."""
    rules = tuple((glob.escape(name), "fp32") for name in sorted(layers))
    return replace(settings, layers=settings.layers + rules)


def _multiply_adds(node: Node, opt: Mapping[str, int]) -> float:
    """Of a contraction with constant weights; 0 where its shape is known at run time only."""
    weights, shape = node.inputs[1], node.output.type.shape
    if weights is None or weights.data is None or shape is None:
        return 0.0
    size = np.asarray(weights.data).shape
    results = math.prod(evaluate(dim, opt) for dim in shape)
    return float(results * math.prod(size) // size[channel_axis(node)])


def _absorbs_all(kind: str, node: object) -> bool:
    return True


class _Maker:
    """Makes level-0 plans of one graph with different constants."""

    def __init__(self, target: CpuTarget, profiles: Sequence[Profile], progress: Progress) -> None:
        self._target, self._profiles, self._progress = target, profiles, progress
        self._pool = CompilePool(usable_cores())
        self._trial: Trial | None = None

    def plan(self, graph: Graph) -> tuple[Plan, list[LoweredStep]]:
        """A plan, and its steps before assembly."""
        layers = fuse_layers(graph, native_reason, _absorbs_all)
        opt = {n: m for p in reversed(self._profiles) for n, _, m, _ in p.dims}
        reasons = {id(n): why for n in graph.nodes if (why := native_reason(n)) is not None}
        lowered = lower_graph(graph, layers, self._target.threads, opt, reasons)
        driver = driver_object(self._target)
        assembler = Assembler(graph, lowered.steps, self._target, self._profiles, driver)
        if self._trial is None:
            options = make_options("fp32", self._target.threads, 0, "", 0.0, None)
            self._trial = Trial(
                lowered, self._target, assembler, options, self._pool, self._progress
            )
        trial = self._trial
        trial.assembler = assembler  # the same steps with other constants: code is made once
        return trial.plan({w: found.tactics[0] for w, found in trial.found.items()}, {}), (
            lowered.steps
        )

    def __enter__(self) -> _Maker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()


def _weights_of(
    steps: Sequence[LoweredStep],
    wide: Plan,
    narrow: Plan,
    constants: Mapping[str, Sequence[tuple[str, np.ndarray]]],
) -> dict[str, list[tuple[int, np.ndarray, np.ndarray]]]:
    """Layer -> (number of a packed constant of the plan, in floats, as 8 bits have it)."""
    if [w.shape for w in wide.weights] != [w.shape for w in narrow.weights]:
        raise VerifyError("one graph with two sets of weights was packed in two ways")
    owner = {name: layer for layer, pairs in constants.items() for name, _ in pairs}
    found: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {name: [] for name in constants}
    for step, native in zip(steps, wide.steps, strict=True):
        if not isinstance(native, NativeStep):
            continue
        for source, ref in zip(step.inputs, native.args, strict=False):
            layer = owner.get(source.storage.buffer.root().name)
            if layer is not None and isinstance(ref, Ref) and ref.kind == "weight":
                pair = (ref.number, wide.weights[ref.number], narrow.weights[ref.number])
                found[layer].append(pair)
    return found


def _writable(weight: np.ndarray) -> np.ndarray:
    """A copy at a cache line, which the engine reads in place."""
    raw = np.empty(weight.nbytes + _ALIGN, np.uint8)
    start = -raw.ctypes.data % _ALIGN
    copy = np.ndarray(weight.shape, weight.dtype, raw.data, start)
    copy[...] = weight
    return copy
