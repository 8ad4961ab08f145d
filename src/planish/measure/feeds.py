"""Inputs to measure with: random, the same for the same seed, at shapes the plan allows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planish.base.errors import ShapeError
from planish.base.shapes import evaluate, symbols_of
from planish.plan import Plan


def opt_dims(plan: Plan) -> dict[str, int]:
    """The opt value of each symbolic dim of the first profile that has it."""
    return {name: middle for p in reversed(plan.profiles) for name, _, middle, _ in p.dims}


def random_feeds(
    plan: Plan, dims: Mapping[str, int] | None = None, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """An array for each input: normal numbers, or 0 and 1 for integers and bools.

    Args:
        plan: The plan.
        dims: Values of symbolic dims; those left out take their opt value.
        seed: Of the random numbers.

    Raises:
        ShapeError: `dims` names a dim that the plan has not.
    """
    env = {**opt_dims(plan), **(dims or {})}
    known = {n for tensor in plan.inputs for dim in tensor.shape for n in symbols_of(dim)}
    unknown = sorted(set(dims or {}) - known)
    if unknown:
        raise ShapeError(f"dims {unknown} are not dims of the plan, which has {sorted(known)}")
    random = np.random.default_rng(seed)
    feeds = {}
    for tensor in plan.inputs:
        shape = tuple(evaluate(dim, env) for dim in tensor.shape)
        if tensor.dtype.is_float:
            feeds[tensor.name] = random.standard_normal(shape).astype(tensor.dtype.numpy)
        else:
            feeds[tensor.name] = random.integers(0, 2, shape).astype(tensor.dtype.numpy)
    return feeds
