"""What PLANISH_CHECK asks for after each pass: a verified graph, and the same results as before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planish.base import knobs
from planish.base.errors import PlanishError, VerifyError
from planish.base.shapes import evaluate, symbols_of
from planish.graph.graph import Graph
from planish.graph.reference import interpret
from planish.graph.verify import verify
from planish.passes.match import is_random

TOLERANCE = 1e-3  # of an output's largest magnitude
VERIFY, COMPARE = 1, 2
_OTHER_DIM = 2  # size of a dim that no profile has


class PassChecks:
    """Checks a graph after each pass.

    Args:
        graph: The graph as imported.
        opt: Sizes of the symbolic dims to compare at.
        level: 0 nothing, 1 verify, 2 also compare what the graph computes with what it computed
            at first, by the reference implementation: slow.
    """

    def __init__(self, graph: Graph, opt: Mapping[str, int], level: int) -> None:
        self.level = level
        self._feeds: dict[str, np.ndarray] = {}
        self._expected: dict[str, np.ndarray] | None = None
        if level >= COMPARE and not any(is_random(node) for node in graph.nodes):
            self._feeds = _feeds(graph, opt)
            self._expected = self._run(graph, "the import")

    def after(self, name: str, graph: Graph) -> None:
        """Check a graph.

        Args:
            name: The pass that changed it.
            graph: The graph.

        Raises:
            VerifyError: The pass broke the graph or changed its results.
        """
        if self.level < VERIFY:
            return
        try:
            verify(graph)
        except VerifyError as error:
            raise VerifyError(f"after pass {name}: {error.message}", hint=_HINT) from None
        if self._expected is None:
            return
        found = self._run(graph, f"pass {name}")
        for output, expected in self._expected.items():
            off = _error(found[output], expected)
            if off > TOLERANCE:
                raise VerifyError(
                    f"after pass {name}: output {output!r} is off by {off:.2e} of its largest "
                    f"magnitude, allowed is {TOLERANCE:g}",
                    hint=_HINT,
                )

    def _run(self, graph: Graph, where: str) -> dict[str, np.ndarray]:
        try:
            values = interpret(graph, self._feeds)
        except PlanishError as error:
            raise VerifyError(f"{knobs.CHECK.name}=2, after {where}: {error.message}") from error
        return {value.name: np.asarray(values[value.name]) for value in graph.outputs}


_HINT = f"bisect {knobs.STOP_AFTER.name} to find the rewrite; a defect of planish, please report it"


def _feeds(graph: Graph, opt: Mapping[str, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    feeds = {}
    for value in graph.inputs:
        names = {name for dim in value.shape for name in symbols_of(dim)}
        env = {name: opt.get(name, _OTHER_DIM) for name in names}
        shape = tuple(evaluate(dim, env) for dim in value.shape)
        made = (
            random.standard_normal(shape) if value.dtype.is_float else random.integers(0, 2, shape)
        )
        feeds[value.name] = np.asarray(made).astype(value.dtype.numpy)
    return feeds


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference relative to the largest magnitude; infinity for another kind."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if expected.dtype == object or expected.dtype == np.bool_ or not expected.size:
        return 0.0 if np.array_equal(found, expected) else float("inf")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    odd = ~np.isfinite(b)
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return float("inf")
    a, b = a[~odd], b[~odd]
    scale = float(np.abs(b).max(initial=0.0))
    worst = float(np.abs(a - b).max(initial=0.0))
    return worst / scale if scale else (0.0 if worst == 0.0 else float("inf"))
