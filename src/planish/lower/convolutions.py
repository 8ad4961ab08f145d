"""Convolution layers → workloads; a 1×1 convolution is a product over pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import VerifyError
from planish.base.expr import Expr, Load, Var, replace_loads
from planish.base.shapes import Dim, Shape, is_static
from planish.graph.graph import Node, Value
from planish.kernels.workload import NARROW_SUMS, Attr, dense_strides
from planish.lower.contractions import (
    Branch,
    Contraction,
    Place,
    accumulated,
    addend_walks,
    common_dtype,
    finish,
    input_of,
    reshaped,
)
from planish.lower.operands import Loop, Operands, Source, merge_loops
from planish.lower.storage import Buffer, Storage


def conv_layer(branches: list[Branch], place: Place) -> Contraction:
    """A convolution, or several over the same input whose output channels follow each other."""
    first = branches[0].layer.anchor
    x, w = input_of(first, 0), input_of(first, 1)
    operands = Operands(place)
    operands.add(place(x))
    weights = [input_of(b.layer.anchor, 1) for b in branches]
    operands.add(_weights(weights, place))
    rank = len(x.shape)
    exprs = [accumulated(b, operands, bias=2) for b in branches]
    kernel = _kernel(w)
    attrs = _conv_attrs(first, kernel, x, branches[0].layer.anchor.output)
    outputs = [b.target for b in branches]
    if all(k == 1 for k in kernel) and set(attrs["pads"]) == {0}:
        operands.sources[0] = _strided(operands.sources[0], attrs["strides"], outputs[0])
        outputs, exprs, windows = by_pixel(operands, outputs, exprs, rank)
        attrs |= windows
    elif sums_are_narrow(operands.sources[1].data, x.dtype):
        attrs["sum_bits"] = NARROW_SUMS
    return finish("conv", operands, outputs, exprs, 2, tuple(sorted(attrs.items())))


def sums_are_narrow(weights: np.ndarray | None, x: DType) -> bool:
    """Whether constant weights keep every sum of their products with bytes within ±2²⁵.

    Args:
        weights: [O, C/group, *kernel]; None where they are not known.
        x: Type of the data.
    """
    if weights is None or weights.dtype != np.int8 or x not in (DType.U8, DType.I8):
        return False
    taps = tuple(range(1, weights.ndim))
    above = np.maximum(weights, 0).sum(axis=taps, dtype=np.int64)
    below = -np.minimum(weights, 0).sum(axis=taps, dtype=np.int64)
    largest = np.maximum(above, below) * 255 if x is DType.U8 else (above + below) * 128
    return bool(largest.max(initial=0) <= 1 << NARROW_SUMS)


def _strided(source: Source, strides: Sequence[int], target: Storage) -> Source:
    """The pixels that a 1×1 convolution reads: with a stride, every so many."""
    view = source.storage
    pixels = tuple(s * step for s, step in zip(view.strides[2:], strides, strict=True))
    shape = (*view.shape[:2], *target.shape[2:])
    wide = Storage(view.buffer, shape, (*view.strides[:2], *pixels), view.offset)
    return Source(wide, source.data)


def conv_transpose_layer(branch: Branch, place: Place) -> Contraction:
    """A transposed convolution."""
    node = branch.layer.anchor
    x, w = input_of(node, 0), input_of(node, 1)
    operands = Operands(place)
    operands.add(place(x))
    operands.add(replace(place(w), const=w.is_const))
    exprs = [accumulated(branch, operands, bias=2)]
    spatial = len(x.shape) - 2
    kernel = _kernel(w)
    attrs: dict[str, Attr] = {
        "group": int(node.attrs.get("group", 1)),
        "strides": tuple(node.attrs.get("strides") or (1,) * spatial),
        "dilations": tuple(node.attrs.get("dilations") or (1,) * spatial),
        "pads": _transposed_pads(node, kernel, x, node.output),
    }
    return finish(
        "conv_transpose", operands, [branch.target], exprs, 2, tuple(sorted(attrs.items()))
    )


def _kernel(w: Value) -> tuple[int, ...]:
    """The spatial extents of a filter."""
    if not is_static(w.shape):
        raise VerifyError(f"filter {w.name!r} has the symbolic shape {w.type}")
    return tuple(e for e in w.shape[2:] if isinstance(e, int))


def _weights(weights: list[Value], place: Place) -> Source:
    """The weights of siblings, one behind the other along the output channels."""
    if len(weights) == 1:
        return replace(place(weights[0]), const=weights[0].is_const)
    data = np.concatenate([np.asarray(w.data) for w in weights], axis=0)
    dtype = common_dtype(weights, place)
    buffer = Buffer("weight", dtype, int(data.size), " || ".join(w.name for w in weights))
    return Source(Storage(buffer, data.shape, dense_strides(data.shape)), data, True)


def _conv_attrs(node: Node, kernel: tuple[int, ...], x: Value, out: Value) -> dict[str, Any]:
    spatial = len(kernel)
    strides = tuple(node.attrs.get("strides") or (1,) * spatial)
    dilations = tuple(node.attrs.get("dilations") or (1,) * spatial)
    pads = tuple(node.attrs.get("pads") or (0,) * (2 * spatial))
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(auto, kernel, strides, dilations, x.shape[2:], out.shape[2:])
    return {
        "group": int(node.attrs.get("group", 1)),
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
    }


def _same_pads(
    auto: str,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    size: Shape,
    out: Shape,
) -> tuple[int, ...]:
    """Explicit pads of auto_pad SAME_*, for sizes that are known."""
    begin, end = [], []
    for k, s, d, extent, result in zip(kernel, strides, dilations, size, out, strict=True):
        need = 0 if k == 1 else (result - 1) * s + (k - 1) * d + 1 - extent
        if not isinstance(need, int):
            if s != 1:
                raise VerifyError("auto_pad SAME with a stride over a symbolic size is not native")
            need = (k - 1) * d
        total = max(0, need)
        small = total // 2
        begin.append(small if auto == "SAME_UPPER" else total - small)
        end.append(total - begin[-1])
    return (*begin, *end)


def _transposed_pads(node: Node, kernel: tuple[int, ...], x: Value, out: Value) -> tuple[int, ...]:
    """Pads of a transposed convolution; the output shape decides where they were left open."""
    spatial = len(kernel)
    strides = tuple(node.attrs.get("strides") or (1,) * spatial)
    dilations = tuple(node.attrs.get("dilations") or (1,) * spatial)
    extra = tuple(node.attrs.get("output_padding") or (0,) * spatial)
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto == "NOTSET" and not node.attrs.get("output_shape"):
        return tuple(node.attrs.get("pads") or (0,) * (2 * spatial))
    begin, end = [], []
    for n in range(spatial):
        total = strides[n] * (x.shape[2 + n] - 1) + extra[n] + (kernel[n] - 1) * dilations[n] + 1
        total = total - out.shape[2 + n]
        if not isinstance(total, int):
            raise VerifyError("a transposed convolution with symbolic padding is not native")
        small = total // 2
        begin.append(small if auto == "SAME_UPPER" else total - small)
        end.append(total - begin[-1])
    return (*begin, *end)


def by_pixel(
    operands: Operands, outputs: list[Storage], exprs: list[Expr], rank: int
) -> tuple[list[Storage], list[Expr], dict[str, Attr]]:
    """A 1×1 convolution over as few pixel axes as strides allow, and its attributes."""
    merged = _merge_pixels(operands, outputs, exprs, rank)
    outputs, exprs = merged or (outputs, exprs)
    spatial = rank - 2 if merged is None else 1
    old = operands.sources[1]
    shape = (*old.storage.shape[:2], *(1,) * spatial)
    view = Storage(old.storage.buffer, shape, dense_strides(shape), old.storage.offset)
    operands.sources[1] = Source(view, reshaped(old.data, shape), old.const)
    ones = (1,) * spatial
    return outputs, exprs, {"strides": ones, "dilations": ones, "pads": (0,) * (2 * spatial)}


def _merge_pixels(
    operands: Operands, outputs: list[Storage], exprs: list[Expr], rank: int
) -> tuple[list[Storage], list[Expr]] | None:
    """Batch and spatial axes of a 1×1 convolution as one axis; None where strides forbid any."""
    pixel_axes = [0, *range(2, rank)]
    x = operands.sources[0].storage
    walks: list[list[Dim]] = [[x.strides[a] for a in pixel_axes]]
    walks += [[out.strides[a] for a in pixel_axes] for out in outputs]
    extras = addend_walks(operands, exprs, pixel_axes, rank)
    if extras is None:
        return None
    loops = [Loop(f"o{a}", x.shape[a]) for a in pixel_axes]
    merged, new = merge_loops(loops, [*walks, *(list(w) for w in extras.values())])
    if len(merged) > 2:
        return None
    batch = merged[0] if len(merged) == 2 else Loop("", 1)
    pixels = merged[-1] if merged else Loop("", 1)
    full = [_padded(walk) for walk in new]

    def view(old: Storage, walk: list[Dim], channel_axis: int = 1) -> Storage:
        shape = (batch.extent, old.shape[channel_axis], pixels.extent)
        strides = (walk[0], old.strides[channel_axis], walk[1])
        return Storage(old.buffer, shape, strides, old.offset)

    operands.sources[0] = Source(view(x, full[0]), operands.sources[0].data)
    new_outputs = [view(o, w) for o, w in zip(outputs, full[1:], strict=False)]
    numbers: dict[Load, Load] = {}
    for load, walk in zip(extras, full[1 + len(outputs) :], strict=True):
        old = operands.sources[load.tensor].storage
        slope, extent = _channel_walk(load, old, new_outputs)
        shape = (batch.extent, extent, pixels.extent)
        number = operands.view(load.tensor, shape, (walk[0], slope, walk[1]))
        numbers[load] = Load(number, (Var("o0"), Var("o1"), Var("o2")), load.dtype)
    return new_outputs, [replace_loads(e, lambda x: numbers[x]) for e in exprs]


def _padded(walk: list[Dim]) -> list[Dim]:
    """Strides of a batch and a pixel axis, of which merging may have left one or none."""
    none: list[Dim] = [0, 0]
    return none[len(walk) :] + walk


def _channel_walk(load: Load, source: Storage, outputs: list[Storage]) -> tuple[Dim, Dim]:
    """Stride and extent along the output channels; broadcast operands repeat."""
    for where, stride, extent in zip(load.index, source.strides, source.shape, strict=True):
        if where == Var("o1") and extent != 1:
            return stride, extent
    return 0, outputs[0].shape[1]
