"""Tuning in the plan itself: candidate plans are made, run and timed, and the best tactics kept."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planish.base import knobs
from planish.base.defects import defects_named
from planish.base.dtypes import DType
from planish.base.errors import BuildError, CompileError, PlanFileError, ShapeError, VerifyError
from planish.base.shapes import evaluate
from planish.graph.graph import Graph
from planish.kernels.workload import Workload
from planish.lower.assemble import Assembler, Chosen, likely
from planish.lower.lowering import Lowered
from planish.pipeline.dumps import Dumps
from planish.pipeline.options import Options, Progress
from planish.plan import NativeStep, Plan, Profile, TensorInfo, check_plan
from planish.runtime import Engine
from planish.targets.cpu import CpuTarget, usable_cores
from planish.targets.driver import driver_object
from planish.tune.cache import TimingCache, default_cache_path
from planish.tune.candidates import Candidates, candidates
from planish.tune.check import plainest, tactic_error
from planish.tune.compile import Compiled, CompilePool, Tactic, compile_here
from planish.tune.search import Race, race_all, verdict
from planish.tune.weights import within_weights


def tuned_plan(
    graph: Graph,
    lowered: Lowered,
    target: CpuTarget,
    profiles: Sequence[Profile],
    options: Options,
    timing_cache: str | os.PathLike[str] | None,
    progress: Progress,
    dumps: Dumps,
) -> Plan:
    """The plan with the fastest tactics.

    Raises:
        BuildError: No kernel runs a layer, or a pinned tactic is not legal for it.
    """
    cache = TimingCache(Path(timing_cache) if timing_cache else default_cache_path())
    assembler = Assembler(graph, lowered.steps, target, profiles, driver_object(target))
    with CompilePool(usable_cores()) as pool:
        trial = Trial(lowered, target, assembler, options, pool, progress)
        races = trial.race(cache)
        with defects_named("putting the plan together"):
            plan = trial.plan({w: race.winner() for w, race in races.items()}, races)
    _verify(plan)
    dumps.source(trial.sources(plan), target)
    if options.level > 0:
        cache.save()
    return plan


def _verify(plan: Plan) -> None:
    """Hold the plan against its own rules before anyone gets it.

    Raises:
        BuildError: No machine has the memory that it needs.
        VerifyError: It breaks one.
    """
    if plan.arena > _MOST_BYTES:
        raise BuildError(
            f"the plan needs {plan.arena} bytes for activations, expected {_MOST_BYTES} at most",
            hint="give a profile with smaller largest sizes",
        )
    try:
        check_plan(plan)
    except PlanFileError as error:
        raise VerifyError(
            f"the plan is not sound: {error.message}",
            hint="a defect of planish, please report it with the model",
        ) from error


_MOST_BYTES = 1 << 46  # of activations
_FEW = 20  # tactics


class Trial:
    """Makes and times candidate plans of one lowered graph."""

    def __init__(
        self,
        lowered: Lowered,
        target: CpuTarget,
        assembler: Assembler,
        options: Options,
        pool: CompilePool,
        progress: Progress,
    ) -> None:
        self.steps = lowered.steps
        self.target = target
        self.assembler = assembler
        self.options = options
        self.pool = pool
        self.progress = progress
        self.opt = {n: m for p in reversed(assembler.profiles) for n, _, m, _ in p.dims}
        self.pinned = _pins(lowered, options, target)
        self.found: dict[Workload, Candidates] = {}
        for step in lowered.steps:
            if step.workload is not None and step.workload not in self.found:
                with defects_named(f"kernels for layer {step.name!r}"):
                    self.found[step.workload] = candidates(step.workload, target, options.level)
        self._compiled: dict[tuple[Workload, str], Compiled] = {}

    def race(self, cache: TimingCache) -> dict[Workload, Race]:
        """Find the fastest tactic of each workload."""
        inputs = self.assembler.graph.inputs
        if self.options.level == 0 or any(v.type.shape is None for v in inputs):
            uses = Counter(s.workload for s in self.steps if s.workload is not None)
            every = {w: (*one.tactics, *one.skipped) for w, one in self.found.items()}
            chosen = within_weights(every, uses, self.target, knobs.WEIGHT_GROWTH.value)
            return {w: Race(w, [tactic], fixed=True) for w, tactic in chosen.items()}
        wanted = []
        for workload, found in self.found.items():
            known = cache.times(workload, self.target)
            if len(found.tactics) > 1 and not all(t.text in known for t in found.tactics):
                wanted += [(tactic, workload) for tactic in found.tactics]
        self._compile(wanted)
        return race_all(
            self.found,
            self.target,
            cache,
            self.measure,
            accept=self.error if knobs.CHECK.value else None,
            time_budget=self.options.time_budget,
            progress=self.progress,
        )

    def error(self, workload: Workload, tactic: Tactic) -> float | None:
        """How far off a tactic's result is, if that is more than its kernel's tolerance."""
        plain = plainest(self.found[workload].tactics)
        if plain.text == tactic.text:
            return None
        step = next(s for s in self.steps if s.workload == workload)
        env = {
            name: likely(dim, self.opt)
            for name, dim in zip(workload.params, step.params, strict=True)
        }
        made = [self._compiled[workload, t.text] for t in (tactic, plain)]
        error = tactic_error(tactic, made[0], plain, made[1], workload, self.target, env)
        return error if error > tactic.kernel.tolerance else None

    def measure(self, choice: dict[Workload, Tactic], runs: int) -> dict[Workload, list[float]]:
        """Run a plan with these tactics; microseconds of each workload, one a run."""
        plan = self.plan(choice, {})
        times: dict[Workload, list[float]] = {}
        with Engine(plan) as engine:
            try:
                report = engine.profile(opt_feeds(plan), runs=runs)
            except ShapeError as error:
                raise ShapeError(
                    f"the model cannot be timed at the opt shapes: {error.message}",
                    hint="give a profile whose sizes fit each other, or build at level 0",
                ) from None
        shared = Counter(step.group for step in plan.steps if isinstance(step, NativeStep))
        for step, made, timed in zip(self.steps, plan.steps, report.steps, strict=True):
            if step.workload is None or not isinstance(made, NativeStep):
                continue
            # Steps of one group overlap, so there only the time inside each one's code counts.
            alone = shared[made.group] == 1
            micros = timed.micros if alone else sum(timed.busy) / max(1, len(timed.busy))
            times.setdefault(step.workload, []).append(micros)
        return times

    def plan(self, choice: dict[Workload, Tactic], races: dict[Workload, Race]) -> Plan:
        """The plan with these tactics; pins win."""
        tactics = [
            None if s.workload is None else self.pinned.get(n, choice[s.workload])
            for n, s in enumerate(self.steps)
        ]
        self._compile(
            [
                (t, s.workload)
                for t, s in zip(tactics, self.steps, strict=True)
                if t is not None and s.workload is not None
            ]
        )

        def choose(number: int) -> Chosen:
            workload, tactic = self.steps[number].workload, tactics[number]
            assert workload is not None and tactic is not None
            made = self._compiled[workload, tactic.text]
            race = races.get(workload)
            reason: tuple[str, ...] = ()
            micros = 0.0
            if number in self.pinned:
                reason = (f"{tactic.text}: pinned by the user",)
            elif race is not None:
                reason = verdict(race, self.found[workload], tactic)
                micros = race.best(tactic) if race.times else 0.0
            return Chosen(tactic.kernel, tactic.config, made.source, made.object, reason, micros)

        return self.assembler.plan(choose)

    def sources(self, plan: Plan) -> dict[str, str]:
        """The code of each tactic that a plan runs, by workload and tactic."""
        return {
            f"{step.workload} {made.kernel} {made.tactic}": self._compiled[
                step.workload, f"{made.kernel} {made.tactic}".strip()
            ].source.text
            for step, made in zip(self.steps, plan.steps, strict=True)
            if step.workload is not None and isinstance(made, NativeStep)
        }

    def _compile(self, wanted: Sequence[tuple[Tactic, Workload]]) -> None:
        """Compile what is not compiled yet, on all cores."""
        new = {
            (workload, tactic.text): (tactic, workload)
            for tactic, workload in wanted
            if (workload, tactic.text) not in self._compiled
        }
        total = len(new)

        def tell(done: int) -> None:
            self.progress("compiling", done, total)

        if total <= _FEW:  # starting a process costs more than compiling a few here
            results = compile_here(new.values(), self.target, tell)
        else:
            results = self.pool.map(new.values(), self.target, tell)
        for key, result in zip(new, results, strict=True):
            if isinstance(result, CompileError):
                raise result
            self._compiled[key] = result


def opt_feeds(plan: Plan) -> dict[str, np.ndarray]:
    """Inputs at the opt shapes: small random numbers, the same each time."""
    opt = {name: middle for p in reversed(plan.profiles) for name, _, middle, _ in p.dims}
    random = np.random.default_rng(0)
    return {tensor.name: _feed(tensor, opt, random) for tensor in plan.inputs}


def _feed(tensor: TensorInfo, opt: dict[str, int], random: np.random.Generator) -> np.ndarray:
    shape = tuple(evaluate(dim, opt) for dim in tensor.shape)
    if tensor.dtype is DType.STRING:
        return np.full(shape, "", object)
    if tensor.dtype.is_float:
        return random.standard_normal(shape).astype(tensor.dtype.numpy)
    return random.integers(0, 2, shape).astype(tensor.dtype.numpy)


def _pins(lowered: Lowered, options: Options, target: CpuTarget) -> dict[int, Tactic]:
    """The tactic that each pinned step must run with.

    Raises:
        BuildError: A pattern names no layer, or the tactic is not legal for one that it names.
    """
    pinned: dict[int, Tactic] = {}
    for pattern, wanted in options.pins:
        hit = False
        for number, step in enumerate(lowered.steps):
            names = (step.name, *step.origin)
            if step.workload is None or not any(fnmatch.fnmatchcase(n, pattern) for n in names):
                continue
            hit = True
            legal = candidates(step.workload, target, 5)
            chosen = next((t for t in legal.tactics if t.text == wanted), None)
            if chosen is None:
                refused = dict(legal.refused).get(wanted.split(" ")[0])
                known = ", ".join(t.text for t in legal.tactics)
                why = f"it refuses: {refused}" if refused else f"legal are: {known}"
                raise BuildError(f"pin {pattern!r}: {wanted!r} cannot run {step.name!r}; {why}")
            pinned[number] = chosen
        if not hit:
            raise BuildError(
                f"pin {pattern!r} names no native layer",
                hint="planish explain lists the layers' names",
            )
    return pinned
