"""Holds a tactic that won its race against the plainest other one, on random data.

A kernel is right by its tests; this catches what they cannot: a compiler's defect on this CPU, or a
config whose rounding is too rough for this very workload.

Integers must be equal, but for one case: 8-bit codes that a layer writes whose sums are floats. Two
tactics add the same numbers in another order, the sums differ in their last bits, and one that
lies on the edge between two codes is rounded to either. So there a difference of one code counts as
none. Sums of integers have no order that shows, and their codes stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import evaluate
from planish.kernels.check import largest_error, run_built
from planish.kernels.workload import Operand, Workload
from planish.targets.cpu import CpuTarget
from planish.targets.link import LinkedCode
from planish.tune.compile import Compiled, Tactic

_CODES = frozenset((DType.U8, DType.I8))
_FRESH = 1 << 20  # random numbers that are drawn; larger operands repeat them


def tactic_error(
    tactic: Tactic,
    compiled: Compiled,
    plain: Tactic,
    plain_compiled: Compiled,
    workload: Workload,
    target: CpuTarget,
    env: Mapping[str, int],
) -> float:
    """How far a tactic's result lies from the plain one's.

    Args:
        tactic: The tactic in question.
        compiled: Its code.
        plain: The tactic it is held against.
        plain_compiled: That one's code.
        workload: The workload.
        target: The CPU.
        env: Values of the workload's params.

    Returns:
        The largest difference relative to the largest magnitude; infinity for stray NaNs, and for
        integers that differ by more than the rounding of float sums explains.
    """
    inputs = random_operands(workload, env)
    results = [
        run_built(
            t.kernel, workload, t.config, target, c.source, LinkedCode([c.object]), inputs, env,
            target.threads,
        )
        for t, c in ((tactic, compiled), (plain, plain_compiled))
    ]  # fmt: skip
    slack = adds_floats(workload)
    triples = zip(*results, workload.outputs, strict=True)
    errors = (_error(got, want, slack and o.dtype in _CODES) for got, want, o in triples)
    return max(errors, default=0.0)


def adds_floats(workload: Workload) -> bool:
    """Whether a layer adds up floats, so that its sums depend on the order."""
    if workload.nest is None:
        return workload.inputs[0].dtype.is_float
    return any(s.combiner in ("sum", "prod") and s.dtype.is_float for s in workload.nest.stages)


def _error(got: np.ndarray, want: np.ndarray, one_code: bool) -> float:
    if not one_code or got.shape != want.shape:
        return largest_error(got, want)
    apart = np.abs(got.astype(np.int16) - want.astype(np.int16)).max(initial=0)
    return 0.0 if apart <= 1 else float("inf")


def plainest(tactics: tuple[Tactic, ...]) -> Tactic:
    """The tactic whose code is simplest: of a `.plain` kernel if there is one, else the last."""
    named = [tactic for tactic in tactics if tactic.kernel.name.endswith(".plain")]
    return named[0] if named else tactics[-1]


def random_operands(workload: Workload, env: Mapping[str, int]) -> list[np.ndarray]:
    """An array for each input, in its logical shape; broadcast axes repeat one element."""
    random = np.random.default_rng(0)
    return [_random(operand, env, random) for operand in workload.inputs]


def _random(operand: Operand, env: Mapping[str, int], random: np.random.Generator) -> np.ndarray:
    shape = tuple(evaluate(dim, env) for dim in operand.shape)
    own = tuple(1 if s == 0 else e for e, s in zip(shape, operand.strides, strict=True))
    count = int(np.prod(own, dtype=np.int64))
    fresh = min(count, _FRESH)
    numbers: np.ndarray
    if operand.dtype.is_float:
        numbers = random.standard_normal(fresh, dtype=np.float32)
    else:
        numbers = random.integers(0, 2, fresh)
    filled = np.resize(numbers.astype(operand.dtype.numpy), count).reshape(own)
    return np.broadcast_to(filled, shape)
