"""Inputs to measure with: random, the same for the same seed, at shapes the plan allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from planish.base.errors import ShapeError
from planish.base.shapes import evaluate, name_of, symbols_of
from planish.plan import Plan, TensorInfo

Shapes = dict[str, tuple[int, ...]]  # of an input, or one size of a symbolic dim


def opt_dims(plan: Plan) -> dict[str, int]:
    """The opt value of each symbolic dim of the first profile that has it."""
    return {name: middle for p in reversed(plan.profiles) for name, _, middle, _ in p.dims}


def parse_shapes(texts: Sequence[str]) -> Shapes:
    """Sizes as people write them: "data=8x3x224x224" (an input), "batch=8" (a dim).

    Raises:
        ShapeError: A text is neither.
    """
    found: Shapes = {}
    for text in [part for entry in texts for part in entry.split(",")]:
        name, given, sizes = text.rpartition("=")
        try:
            found[name] = tuple(int(size) for size in sizes.split("x"))
        except ValueError:
            given = ""
        if not given or not name or any(size < 0 for size in found[name]):
            raise ShapeError(
                f"shape {text!r}: expected NAME=SIZES, like data=8x3x224x224 or batch=8"
            )
    return found


def dims_of(plan: Plan, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The symbolic dims that shapes of inputs, or of dims, mean.

    Raises:
        ShapeError: A name is neither an input nor a symbolic dim, or a shape does not fit.
    """
    inputs = {tensor.name: tensor for tensor in plan.inputs}
    names = {n for tensor in plan.inputs for dim in tensor.shape for n in symbols_of(dim)}
    env: dict[str, int] = {}
    for name, sizes in shapes.items():
        if name in inputs:
            made = _bound(inputs[name], sizes)
        elif name in names and len(sizes) == 1:
            made = {name: int(sizes[0])}
        else:
            raise ShapeError(
                f"{name!r} is neither an input of the plan ({sorted(inputs)}) nor one of its dims "
                f"({sorted(names) or 'none: every shape is fixed'})"
            )
        for dim, size in made.items():
            if env.setdefault(dim, size) != size:
                raise ShapeError(f"dim {dim!r} is said to be {env[dim]} and {size}")
    return env


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
    return {tensor.name: _random(tensor, env, random) for tensor in plan.inputs}


def _random(tensor: TensorInfo, env: Mapping[str, int], random: np.random.Generator) -> np.ndarray:
    shape = tuple(evaluate(dim, env) for dim in tensor.shape)
    if tensor.dtype.numpy.kind == "O":
        return np.full(shape, "", object)
    if tensor.dtype.is_float:
        return random.standard_normal(shape).astype(tensor.dtype.numpy)
    return random.integers(0, 2, shape).astype(tensor.dtype.numpy)


def _bound(tensor: TensorInfo, sizes: Sequence[int]) -> dict[str, int]:
    """The dims that a shape gives an input."""
    expected = "x".join(map(str, tensor.shape))
    found = "x".join(map(str, sizes))
    if len(sizes) != len(tensor.shape):
        raise ShapeError(f"input {tensor.name!r} is {expected}, not {found}")
    made: dict[str, int] = {}
    for dim, size in zip(tensor.shape, sizes, strict=True):
        if isinstance(dim, int) and dim != size:
            raise ShapeError(f"input {tensor.name!r} is {expected}, not {found}")
        if name_of(dim):
            made[name_of(dim)] = int(size)
    return made
