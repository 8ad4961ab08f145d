"""The debug dial: what a build prints (PLANISH_DEBUG) and writes (PLANISH_DUMP) while it goes.

    00-import.txt  01-remove_noops.txt  …  09-layers.txt  10-steps.txt  11-tactics.txt
    12-memory.txt  13-source.txt  14-plan.txt

One numbered text file a stage; after a pass the file bears the pass's name. Machine code is among
them at PLANISH_DEBUG=6 only, since it is compiled again for it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from planish.base import knobs
from planish.base.errors import PlanishError
from planish.base.shapes import Dim, evaluate
from planish.graph.graph import Graph
from planish.graph.layer import Layer
from planish.graph.text import print_graph
from planish.lower.lowering import Lowered
from planish.lower.schedule import group_steps, lifetimes
from planish.lower.storage import Buffer as ArenaBuffer
from planish.memory.draw import draw
from planish.memory.problem import Buffer, Problem
from planish.plan import HostStep, NativeStep, Plan, plan_text
from planish.targets.cpu import CpuTarget, assembly

# What each level of PLANISH_DEBUG adds.
STAGES, STEPS, TACTICS, SOURCE, GRAPHS, CODE = range(1, 7)


class Dumps:
    """Prints and writes the stages of one build, as the knobs say.

    Args:
        folder: Where the files go; None writes none.
        level: 0 prints nothing, to 6.
    """

    def __init__(self, folder: Path | None, level: int) -> None:
        self.folder = folder
        self.level = level
        self._number = 0
        self._since = time.perf_counter()
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise PlanishError(
                    f"{knobs.DUMP.name}: cannot make the folder {folder}: {error.strerror}"
                ) from error

    def graph(self, name: str, graph: Graph) -> None:
        """The graph after the import or a pass."""
        self._stage(name, f"{len(graph.nodes)} nodes")
        self._give(name, GRAPHS, lambda: print_graph(graph))

    def layers(self, layers: Sequence[Layer], host_reasons: Mapping[int, str]) -> None:
        """What was fused."""
        self._stage("layers", f"{len(layers)} layers")
        self._give("layers", STEPS, lambda: layers_text(layers, host_reasons))

    def lowered(self, lowered: Lowered) -> None:
        """The steps before tuning: workloads and notes."""
        self._stage("steps", f"{len(lowered.steps)} steps")
        self._give("steps", TACTICS, lambda: steps_text(lowered))

    def source(self, sources: Mapping[str, str], target: CpuTarget) -> None:
        """The emitted code of each tactic in use, by a heading."""
        self._stage("tune", f"{len(sources)} kernels")
        self._give("source", SOURCE, lambda: _sections(sources))
        if self.level >= CODE:
            made = {name: assembly(text, target) for name, text in sources.items()}
            self._give("code", CODE, lambda: _sections(made))

    def plan(self, plan: Plan, lowered: Lowered) -> None:
        """The plan: the reason of each choice, the arena as a drawing, the steps."""
        self._stage("plan", f"{len(plan.steps)} steps, arena {plan.arena:,} bytes")
        self._give("tactics", TACTICS, lambda: tactics_text(plan))
        self._give("memory", TACTICS, lambda: memory_text(plan, lowered))
        self._give("plan", STEPS, lambda: plan_text(plan, times=True))

    def _stage(self, name: str, what: str) -> None:
        now = time.perf_counter()
        if self.level >= STAGES:
            print(f"planish: {name}: {what}, {(now - self._since) * 1e3:.1f} ms", file=sys.stderr)
        self._since = now

    def _give(self, name: str, level: int, text: Callable[[], str]) -> None:
        """Print from a level on, write where a folder is given."""
        if self.folder is None and self.level < level:
            return
        made = text()
        if self.level >= level:
            print(made, file=sys.stderr)
        if self.folder is not None:
            path = self.folder / f"{self._number:02}-{name}.txt"
            self._number += 1
            try:
                path.write_text(made, encoding="utf-8")
            except OSError as error:
                raise PlanishError(f"{knobs.DUMP.name}: cannot write {path}: {error}") from error
        self._since = time.perf_counter()  # writing is no part of any stage


def from_knobs() -> Dumps:
    """As the environment says."""
    return Dumps(knobs.DUMP.value, knobs.DEBUG.value)


def layers_text(layers: Sequence[Layer], host_reasons: Mapping[int, str]) -> str:
    """A line a layer, with the nodes in it."""
    lines = []
    for number, layer in enumerate(layers):
        nodes = [node for part in layer.siblings or (layer,) for node in part.nodes]
        ops = " || ".join(
            " + ".join(node.op for node in part.nodes) for part in layer.siblings or (layer,)
        )
        lines.append(f"{number:>4} {layer.kind:<14} {ops}")
        lines.append(f"     {layer.name}")
        lines += [
            f"     on the host: {host_reasons[id(node)]}"
            for node in nodes
            if id(node) in host_reasons
        ]
    return "\n".join(lines) + "\n"


def steps_text(lowered: Lowered) -> str:
    """Each step with its workload."""
    lines = []
    for number, step in enumerate(lowered.steps):
        note = f"  ({step.note})" if step.note else ""
        lines.append(f"{number:>4} {step.name}{note}")
        if step.host is not None:
            lines.append(f"     on the host: {step.host.op}: {step.host.reason}")
        else:
            lines += [f"     {line}" for line in str(step.workload).splitlines()]
            if step.params:
                lines.append(f"     params {', '.join(map(str, step.params))}")
    lines += [f"note {stage}: {note}" for stage, note, _ in lowered.notes]
    return "\n".join(lines) + "\n"


def tactics_text(plan: Plan) -> str:
    """Each step's tactic with the reasons."""
    lines = []
    for number, step in enumerate(plan.steps):
        if isinstance(step, HostStep):
            lines += [f"{number:>4} {step.name}", f"     on the host: {step.reason}"]
            continue
        lines += [f"{number:>4} {step.name}", f"     {step.kernel} {step.tactic}".rstrip()]
        lines += [f"     - {reason}" for reason in step.reason]
    return "\n".join(lines) + "\n"


def memory_text(plan: Plan, lowered: Lowered) -> str:
    """The arena at the largest shapes of the profiles."""
    largest: dict[str, int] = {}
    for profile in plan.profiles:
        for name, _, _, high in profile.dims:
            largest[name] = max(high, largest.get(name, 0))
    bases = _bases(plan, lowered)
    buffers, offsets = [], {}
    for number, life in enumerate(lifetimes(lowered.steps, group_steps(lowered.steps))):
        size, base = evaluate(life.size, largest), bases.get(life.buffer.root())
        if not size or base is None:
            continue
        name = f"{number} {life.buffer.name}"
        buffers.append(Buffer(name, life.lower, life.upper, size))
        offsets[name] = evaluate(base, largest)
    return draw(Problem(tuple(buffers)), offsets)


def _bases(plan: Plan, lowered: Lowered) -> dict[ArenaBuffer, Dim]:
    """Where each buffer of the arena begins, from the operands that lie in it."""
    bases: dict[ArenaBuffer, Dim] = {}
    for step, made in zip(lowered.steps, plan.steps, strict=True):
        if not isinstance(made, NativeStep):
            continue
        refs = made.args[len(step.inputs) : len(step.inputs) + len(step.outputs)]
        for view, ref in zip(step.outputs, refs, strict=True):
            if ref is not None and ref.kind == "arena":
                bases.setdefault(view.buffer.root(), ref.offset - view.offset * view.dtype.size)
    return bases


def _sections(texts: Mapping[str, str]) -> str:
    return "\n".join(f"; ======== {name}\n{text}" for name, text in texts.items())
