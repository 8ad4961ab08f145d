"""What every workload means, in NumPy: the plain twin that all kernels are held against.

Written to be read and to be right, not to be fast: whole iteration spaces at once, sums in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from planish.base.errors import VerifyError
from planish.base.expr import Expr, Load, Temp, walk
from planish.base.nest import Nest, Stage
from planish.base.shapes import Dim, evaluate
from planish.kernels.reference_conv import attention, conv, conv_transpose, matmul
from planish.kernels.reference_expr import eval_expr
from planish.kernels.workload import Workload

__all__ = ["eval_expr", "run_nest", "run_reference"]

_BLOCK = 1 << 21  # points of an iteration space that are evaluated at a time
_CONTRACTIONS = {"conv": conv, "matmul": matmul}


def run_reference(
    workload: Workload, inputs: Sequence[np.ndarray], env: Mapping[str, int] | None = None
) -> list[np.ndarray]:
    """Run a workload.

    Args:
        workload: Any legal workload.
        inputs: One array for each operand, in its logical shape.
        env: Values of the symbolic sizes.

    Returns:
        One array for each output, in its logical shape, dense.

    Raises:
        VerifyError: The workload's op has no reference, or an index leaves its operand.
    """
    sizes = dict(env or {})
    if workload.op == "nest":
        return run_nest(workload, inputs, sizes)
    if workload.op == "attention":
        whole = attention(workload, inputs, lambda s: _masked(workload, s, inputs, sizes))
    elif workload.op == "conv_transpose":
        out = [evaluate(dim, sizes) for dim in workload.outputs[0].shape[2:]]
        whole = conv_transpose(workload, inputs, out)
    elif workload.op in _CONTRACTIONS:
        whole = _CONTRACTIONS[workload.op](workload, inputs)
    else:
        raise VerifyError(f"no reference for the op {workload.op!r}")
    parts = _split_channels(workload, whole, sizes)
    epilogues = workload.epilogue or (None,) * len(parts)
    return [
        _finish(part, epilogue, output.dtype.numpy, inputs, sizes)
        for part, epilogue, output in zip(parts, epilogues, workload.outputs, strict=True)
    ]


def _masked(
    workload: Workload,
    score: np.ndarray,
    inputs: Sequence[np.ndarray],
    sizes: Mapping[str, int],
) -> np.ndarray:
    """The scores of an attention as the softmax sees them."""
    if workload.mask is None:
        return score
    return _finish(score, workload.mask, np.dtype(np.float64), inputs, sizes)


def _split_channels(
    workload: Workload, whole: np.ndarray, sizes: Mapping[str, int]
) -> list[np.ndarray]:
    if len(workload.outputs) == 1:
        return [whole]
    widths = [evaluate(output.shape[1], sizes) for output in workload.outputs]
    return np.split(whole, np.cumsum(widths)[:-1], axis=1)


def _finish(
    accumulator: np.ndarray,
    epilogue: Expr | None,
    dtype: np.dtype,
    inputs: Sequence[np.ndarray],
    sizes: Mapping[str, int],
) -> np.ndarray:
    if epilogue is None:
        return accumulator.astype(dtype)
    kept = next((e.dtype.numpy for e in walk(epilogue) if isinstance(e, Temp)), dtype)
    axes = _axes("o", [(0, extent) for extent in accumulator.shape], accumulator.ndim, 0)
    value = eval_expr(epilogue, axes, inputs, [accumulator.astype(kept)], sizes)
    return np.broadcast_to(value.astype(dtype), accumulator.shape).copy()


def run_nest(
    workload: Workload, inputs: Sequence[np.ndarray], sizes: Mapping[str, int]
) -> list[np.ndarray]:
    """Run a `nest` workload. Elements that no stage stores stay zero.

    Loads numbered from the number of inputs on read back the outputs.
    """
    if workload.nest is None:
        raise VerifyError("a nest workload without a nest")
    nest = workload.nest
    outputs = [
        np.zeros([evaluate(d, sizes) for d in output.shape], output.dtype.numpy)
        for output in workload.outputs
    ]
    temps: list[np.ndarray] = []
    for stage in nest.stages:
        temps.append(_run_stage(nest, stage, inputs, temps, outputs, sizes))
    return outputs


def _run_stage(
    nest: Nest,
    stage: Stage,
    inputs: Sequence[np.ndarray],
    temps: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    sizes: Mapping[str, int],
) -> np.ndarray:
    """The values of a stage over the outer and map loops; stored, too, where the stage says so."""
    free = _extents((*nest.outer, *stage.map), sizes)
    reduced = _extents(stage.reduce, sizes)
    value = np.zeros(free, stage.dtype.numpy)
    ranges = [(0, extent) for extent in free]
    boxes = _boxes(ranges, math.prod(reduced))
    if _reads_itself(stage, len(inputs)):
        boxes = _one_by_one(ranges, len(nest.outer))
    inputs = [*inputs, *outputs]
    for box in boxes:
        rank = len(free) + len(reduced)
        outer, inner = box[: len(nest.outer)], box[len(nest.outer) :]
        loops = _axes("o", outer, rank, 0) | _axes("m", inner, rank, len(outer))
        loops |= _axes("r", [(0, extent) for extent in reduced], rank, len(free))
        space = tuple(stop - start for start, stop in box) + reduced
        raw = np.broadcast_to(eval_expr(stage.expr, loops, inputs, temps, sizes), space)
        if stage.combiner:
            raw = _combine(stage, raw, len(free))
        part = raw.astype(stage.dtype.numpy)
        value[tuple(slice(*bounds) for bounds in box)] = part
        if stage.store is not None:
            flat = {name: at.reshape(at.shape[: len(free)]) for name, at in loops.items()
                    if name[0] != "r"}  # fmt: skip
            at = [eval_expr(e, flat, inputs, temps, sizes) for e in stage.store.index]
            target = outputs[stage.store.tensor]
            where = tuple(np.broadcast_to(i, part.shape) for i in at)
            _require_inside(where, target.shape)
            target[where] = part.astype(target.dtype)
    return value


def _combine(stage: Stage, raw: np.ndarray, keep: int) -> np.ndarray:
    """Combine the axes after the first `keep`."""
    flat = raw.reshape(*raw.shape[:keep], math.prod(raw.shape[keep:]))
    kind = stage.dtype.numpy
    if flat.dtype.kind == "f" or stage.dtype.is_float:
        flat, kind = flat.astype(np.float64), np.dtype(np.float64)
    if stage.combiner == "sum":
        return np.asarray(np.sum(flat, axis=-1, dtype=kind))
    if stage.combiner == "prod":
        return np.asarray(np.prod(flat, axis=-1, dtype=kind))
    if stage.combiner in ("max", "min"):
        best = np.max if stage.combiner == "max" else np.min
        edge = _edge(stage, highest=stage.combiner == "min")
        return np.asarray(best(flat, axis=-1, initial=edge))
    if stage.combiner == "or":
        return np.asarray(np.any(flat, axis=-1))
    if stage.combiner.startswith("arg"):
        first = np.argmax if "max" in stage.combiner else np.argmin
        if stage.combiner.endswith("_last"):
            return np.asarray(flat.shape[-1] - 1 - first(flat[..., ::-1], axis=-1))
        return np.asarray(first(flat, axis=-1))
    raise VerifyError(f"no combiner {stage.combiner!r}")


def _edge(stage: Stage, *, highest: bool) -> float | int | bool:
    """The identity of a minimum or a maximum."""
    kind = stage.dtype.numpy
    if stage.dtype.is_float:
        return math.inf if highest else -math.inf
    if kind == np.bool_:
        return highest
    return int(np.iinfo(kind).max if highest else np.iinfo(kind).min)


def _extents(dims: Sequence[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(dim, sizes) for dim in dims)


def _axes(
    prefix: str, box: Sequence[tuple[int, int]], rank: int, first: int
) -> dict[str, np.ndarray]:
    """Loop variables as arrays, each along an axis of its own."""
    made = {}
    for number, (start, stop) in enumerate(box):
        shape = [1] * rank
        shape[first + number] = stop - start
        made[f"{prefix}{number}"] = np.arange(start, stop, dtype=np.int64).reshape(shape)
    return made


def _boxes(box: list[tuple[int, int]], inner: int) -> list[list[tuple[int, int]]]:
    """Cut a box of loop ranges until each piece has at most `_BLOCK` points."""
    sizes = [stop - start for start, stop in box]
    if not box or math.prod(sizes) * inner <= _BLOCK or max(sizes) <= 1:
        return [box]
    axis = sizes.index(max(sizes))
    start, stop = box[axis]
    middle = (start + stop) // 2
    low = [*box[:axis], (start, middle), *box[axis + 1 :]]
    high = [*box[:axis], (middle, stop), *box[axis + 1 :]]
    return _boxes(low, inner) + _boxes(high, inner)


def _reads_itself(stage: Stage, inputs: int) -> bool:
    """Whether a stage reads the output that it stores: its map then runs in order."""
    if stage.store is None:
        return False
    exprs = [stage.expr, *stage.store.index]
    back = inputs + stage.store.tensor
    return any(isinstance(e, Load) and e.tensor == back for x in exprs for e in walk(x))


def _one_by_one(ranges: list[tuple[int, int]], outer: int) -> list[list[tuple[int, int]]]:
    """All outer points at once, but one point of the map after the other."""
    points = itertools.product(*(range(stop) for _, stop in ranges[outer:]))
    return [[*ranges[:outer], *((i, i + 1) for i in point)] for point in points]


def _require_inside(where: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> None:
    for axis, (at, extent) in enumerate(zip(where, shape, strict=True)):
        if at.size and (at.min() < 0 or at.max() >= extent):
            raise VerifyError(
                f"a store at axis {axis} covers [{at.min()}, {at.max()}], the extent is {extent}"
            )
