"""Contraction layers → workloads: convolutions, matrix products, and their epilogues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import VerifyError
from planish.base.expr import Expr, Load, Temp, Var, call, loads_of, replace_loads, replace_vars
from planish.base.shapes import Dim, Shape, dim_min, evaluate, is_static
from planish.graph.graph import Node, Value
from planish.graph.layer import Layer
from planish.kernels.workload import Attr, dense_strides
from planish.lower.expressions import LayerExpressions
from planish.lower.operands import (
    Loop,
    Operands,
    Source,
    merge_loops,
    renumber,
    used_sources,
    walk_strides,
)
from planish.lower.storage import Buffer, Storage

Attrs = tuple[tuple[str, Attr], ...]


@dataclass
class Contraction:
    """A contraction with its operands, ready to become a workload."""

    op: str
    inputs: list[Source]
    outputs: list[Storage]
    attrs: Attrs
    epilogue: tuple[Expr, ...]
    mask: Expr | None = None  # of an attention


@dataclass
class Branch:
    """One of the layers that a contraction computes: alone, or merged with its siblings."""

    layer: Layer
    value: Value
    target: Storage


Place = Callable[[Value], Source]


def conv_layer(branches: list[Branch], place: Place) -> Contraction:
    """A convolution, or several over the same input whose output channels follow each other."""
    first = branches[0].layer.anchor
    x, w = input_of(first, 0), input_of(first, 1)
    operands = Operands(place)
    operands.add(_as(place(x), False))
    weights = [input_of(b.layer.anchor, 1) for b in branches]
    operands.add(_weights(weights, place))
    rank = len(x.shape)
    exprs = [accumulated(b, operands, bias=2) for b in branches]
    kernel = _kernel(w)
    attrs = _conv_attrs(first, kernel, x, branches[0].layer.anchor.output)
    outputs = [b.target for b in branches]
    if all(k == 1 for k in kernel) and set(attrs["pads"]) == {0}:
        operands.sources[0] = _strided(operands.sources[0], attrs["strides"], outputs[0])
        outputs, exprs, windows = _by_pixel(operands, outputs, exprs, rank)
        attrs |= windows
    return finish("conv", operands, outputs, exprs, 2, tuple(sorted(attrs.items())))


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
    operands.add(_as(place(x), False))
    operands.add(_as(place(w), w.is_const))
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


def matmul_layer(branch: Branch, place: Place) -> Contraction:
    """A matrix product with batch axes broadcast; vectors become matrices of one row or column."""
    node = branch.layer.anchor
    a, b = input_of(node, 0), input_of(node, 1)
    out = node.output
    operands = Operands(place)
    left, right = _as(place(a), False), _as(place(b), b.is_const)
    target, shape = branch.target, out.shape
    rows = () if len(a.shape) == 1 else (a.shape[-2],)
    cols = () if len(b.shape) == 1 else (b.shape[-1],)
    batch = shape[: len(shape) - len(rows) - len(cols)]
    full: Shape = (*batch, *(rows or (1,)), *(cols or (1,)))
    inner = b.shape[-2] if len(b.shape) > 1 else b.shape[0]
    inner = inner if isinstance(inner, int) else a.shape[-1]
    left = matrix_view(left, (*batch, *(rows or (1,)), inner), vector_axis=0 if not rows else None)
    flat = b.is_const and all(e == 1 for e in b.shape[:-2])
    b_shape = (inner, *(cols or (1,)))
    if flat and b.data is not None:
        data = _reshape(b.data, b_shape)
        view = Storage(right.storage.buffer, b_shape, dense_strides(b_shape))
        right = Source(view, data, True)
    else:
        right = matrix_view(right, (*batch, *b_shape), vector_axis=1 if not cols else None)
    operands.add(left)
    operands.add(right)
    expr = accumulated(branch, operands, bias=None)
    names = [f"o{n}" for n in range(len(shape))]
    kept = [
        *range(len(batch)),
        *([len(batch)] if rows else []),
        *([len(batch) + 1] if cols else []),
    ]
    rename = {old: Var(f"o{new}") for old, new in zip(names, kept, strict=True)}
    expr = replace_vars(expr, {k: v for k, v in rename.items()})
    target = _matrix_target(target, full, bool(rows), bool(cols))
    outputs, exprs = _merge_rows(operands, target, expr, len(batch), flat)
    return finish("matmul", operands, outputs, exprs, 2, ())


def matmul_siblings(branches: list[Branch], place: Place) -> Contraction:
    """Products of one left operand with constant matrices, as one convolution of 1×1 kernels.

    Rows are pixels and columns are channels, so the results are slices of the output channels.
    """
    first = branches[0].layer.anchor
    x = input_of(first, 0)
    operands = Operands(place)
    operands.add(Source(_as_pixels(place(x).storage), place(x).data))
    weights = [np.asarray(input_of(b.layer.anchor, 1).data).T for b in branches]
    data = np.concatenate(weights, axis=0)
    name = " || ".join(input_of(b.layer.anchor, 1).name for b in branches)
    dtype = _common([input_of(b.layer.anchor, 1) for b in branches], place)
    buffer = Buffer("weight", dtype, int(data.size), name)
    operands.add(Source(Storage(buffer, data.shape, dense_strides(data.shape)), data, True))
    rank = len(x.shape)
    axes = [2, 1] if rank == 2 else [0, *range(2, rank), 1]
    rename: dict[str, Expr] = {f"o{n}": Var(f"o{axis}") for n, axis in enumerate(axes)}
    exprs = [replace_vars(accumulated(b, operands, bias=None), rename) for b in branches]
    outputs = [_as_pixels(b.target) for b in branches]
    outputs, exprs, windows = _by_pixel(operands, outputs, exprs, max(rank, 3))
    attrs = tuple(sorted({"group": 1, **windows}.items()))
    return finish("conv", operands, outputs, exprs, 2, attrs)


def _as_pixels(view: Storage) -> Storage:
    """A matrix, with batch axes or without, as [N, columns, rows]."""
    shape, strides = view.shape, view.strides
    if len(shape) == 2:
        shape, strides = (1, *shape), (0, *strides)

    def turned(dims: Shape) -> Shape:
        return (dims[0], dims[-1], *dims[1:-1])

    return Storage(view.buffer, turned(shape), turned(strides), view.offset)


# ---- shared --------------------------------------------------------------------------------------


def _kernel(w: Value) -> tuple[int, ...]:
    """The spatial extents of a filter."""
    if not is_static(w.shape):
        raise VerifyError(f"filter {w.name!r} has the symbolic shape {w.type}")
    return tuple(e for e in w.shape[2:] if isinstance(e, int))


def input_of(node: Node, position: int) -> Value:
    """An operand that must be there."""
    value = node.input(position)
    if value is None:
        raise VerifyError(f"{node!r} lacks its input {position}")
    return value


def _as(source: Source, const: bool) -> Source:
    return Source(source.storage, source.data, const)


def _weights(weights: list[Value], place: Place) -> Source:
    """The weights of siblings, one behind the other along the output channels."""
    if len(weights) == 1:
        return _as(place(weights[0]), weights[0].is_const)
    data = np.concatenate([np.asarray(w.data) for w in weights], axis=0)
    dtype = _common(weights, place)
    buffer = Buffer("weight", dtype, int(data.size), " || ".join(w.name for w in weights))
    return Source(Storage(buffer, data.shape, dense_strides(data.shape)), data, True)


def _common(weights: list[Value], place: Place) -> DType:
    """The type that siblings' weights are stored in together: their own where not all narrowed."""
    stored = {place(w).storage.dtype for w in weights}
    return stored.pop() if len(stored) == 1 else weights[0].dtype


def accumulated(branch: Branch, operands: Operands, bias: int | None) -> Expr:
    """What is stored, given the accumulator: bias, then the epilogue."""
    layer, value = branch.layer, branch.value
    result = layer.anchor.output
    expr: Expr = Temp(0, (), result.dtype)
    at: tuple[Expr, ...] = tuple(Var(f"o{axis}") for axis in range(len(result.shape)))
    addend = layer.anchor.input(bias) if bias is not None else None
    if addend is not None:
        expr = call("add", expr, operands.load(addend, (Var("o1"),)))
    if value is result:
        return expr

    def leaf(read: Value, where: tuple[Expr, ...]) -> Expr:
        return expr if read is result else operands.load(read, where)

    expressions = LayerExpressions(layer, leaf)
    expressions.stop_at(result)
    return expressions.at(value, at)


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
        need = (result - 1) * s + (k - 1) * d + 1 - extent
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


def _by_pixel(
    operands: Operands, outputs: list[Storage], exprs: list[Expr], rank: int
) -> tuple[list[Storage], list[Expr], dict[str, Attr]]:
    """A 1×1 convolution over as few pixel axes as strides allow, and its attributes."""
    merged = _merge_pixels(operands, outputs, exprs, rank)
    outputs, exprs = merged or (outputs, exprs)
    spatial = rank - 2 if merged is None else 1
    old = operands.sources[1]
    shape = (*old.storage.shape[:2], *(1,) * spatial)
    view = Storage(old.storage.buffer, shape, dense_strides(shape), old.storage.offset)
    operands.sources[1] = Source(view, _reshape(old.data, shape), old.const)
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
    extras = _extra_walks(operands, exprs, pixel_axes, rank)
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


def _extra_walks(
    operands: Operands, exprs: list[Expr], axes: list[int], rank: int
) -> dict[Load, tuple[Dim, ...]] | None:
    """Strides of the epilogues' operands along some output axes; None if one is not simple."""
    all_loops = [Loop(f"o{n}", 0) for n in range(rank)]
    walks: dict[Load, tuple[Dim, ...]] = {}
    for expr in exprs:
        for load in loads_of(expr):
            walk = walk_strides(load, operands.sources[load.tensor], all_loops)
            if walk is None:
                return None
            walks[load] = tuple(walk[a] for a in axes)
        if _reads_position(expr):
            return None
    return walks


def _reads_position(expr: Expr) -> bool:
    """True when the expression uses a loop variable as a number, not only in operand indices."""
    return any(isinstance(e, Var) for e in _outside_loads(expr))


def _outside_loads(expr: Expr) -> list[Expr]:
    found: list[Expr] = [expr]
    args = getattr(expr, "args", ())
    for arg in args:
        found += _outside_loads(arg)
    return found


def _channel_walk(load: Load, source: Storage, outputs: list[Storage]) -> tuple[Dim, Dim]:
    """Stride and extent along the output channels; broadcast operands repeat."""
    for where, stride, extent in zip(load.index, source.strides, source.shape, strict=True):
        if where == Var("o1") and extent != 1:
            return stride, extent
    return 0, outputs[0].shape[1]


def matrix_view(source: Source, shape: Shape, vector_axis: int | None) -> Source:
    """An operand with its batch axes broadcast to the output's, as a matrix.

    A batch axis whose size is known at run time only may turn out as 1: its stride is a term that
    is 0 then. The sizes of the matrix itself are equal wherever the graph's facts hold.
    """
    view = source.storage
    if vector_axis is not None:
        at = len(view.shape) if vector_axis == 1 else len(view.shape) - 1
        new_shape, spread = list(view.shape), list(view.strides)
        new_shape.insert(at, 1)
        spread.insert(at, 0)
        view = Storage(view.buffer, tuple(new_shape), tuple(spread), view.offset)
    missing = len(shape) - len(view.shape)
    strides: list[Dim] = [0] * missing
    for axis, (have, stride) in enumerate(zip(view.shape, view.strides, strict=True), missing):
        matrix = axis >= len(shape) - 2
        if have == shape[axis] or matrix or isinstance(have, int):
            strides.append(0 if have == 1 and shape[axis] != 1 else stride)
        else:
            strides.append(stride * dim_min(have - 1, 1))
    wide = Storage(view.buffer, shape, tuple(strides), view.offset)
    return Source(wide, source.data, source.const and wide.strides == dense_strides(wide.shape))


def _matrix_target(target: Storage, full: Shape, rows: bool, cols: bool) -> Storage:
    """The output with the axes that a vector operand dropped put back."""
    strides = list(target.strides)
    batch = len(full) - 2
    if not rows:
        strides.insert(batch, 0)
    if not cols:
        strides.append(0)
    return Storage(target.buffer, full, tuple(strides), target.offset)


def _merge_rows(
    operands: Operands, target: Storage, expr: Expr, batch: int, flat: bool
) -> tuple[list[Storage], list[Expr]]:
    """Batch axes merged with each other, and with the rows when b is the same for all."""
    rank = batch + 2
    extras = _extra_walks(operands, [expr], list(range(rank)), rank)
    if extras is None or batch == 0:
        return [target], [expr]
    a, b = operands.sources[0].storage, operands.sources[1].storage
    axes = list(range(batch + 1)) if flat else list(range(batch))
    walks: list[list[Dim]] = [[a.strides[n] for n in axes], [target.strides[n] for n in axes]]
    if not flat:
        walks.append([b.strides[n] for n in axes])
    walks += [[walk[n] for n in axes] for walk in extras.values()]
    loops = [Loop(f"o{n}", target.shape[n]) for n in axes]
    merged, new = merge_loops(loops, walks)
    extents = tuple(loop.extent for loop in merged)
    if flat and not merged:
        extents, new = (1,), [[0]] * len(new)

    def view(old: Storage, walk: list[Dim], tail: int) -> Storage:
        shape = (*extents, *old.shape[len(old.shape) - tail :])
        strides = (*walk, *old.strides[len(old.strides) - tail :])
        return Storage(old.buffer, shape, strides, old.offset)

    tail = 1 if flat else 2
    operands.sources[0] = Source(view(a, new[0], tail), operands.sources[0].data)
    out = view(target, new[1], tail)
    old = operands.sources[1]
    if flat:
        still = [0] * (len(extents) - 1)
        wide = Storage(b.buffer, (*extents[:-1], *b.shape), (*still, *b.strides), b.offset)
        operands.sources[1] = Source(wide, old.data, old.const)
    else:
        wide = view(b, new[2], 2)
        operands.sources[1] = Source(
            wide, old.data, old.const and wide.strides == dense_strides(wide.shape)
        )
    numbers: dict[Load, Load] = {}
    index = tuple(Var(f"o{n}") for n in range(len(out.shape)))
    first = 2 if flat else 3
    for (load, walk), row in zip(extras.items(), new[first:], strict=True):
        strides = (*row, *walk[rank - tail :])
        number = operands.view(load.tensor, out.shape, strides)
        numbers[load] = Load(number, index, load.dtype)
    return [out], [replace_loads(expr, lambda x: numbers[x])]


def _reshape(data: np.ndarray | None, shape: Shape) -> np.ndarray | None:
    """A constant under another shape; constants have static shapes."""
    return None if data is None else np.asarray(data).reshape([evaluate(e, {}) for e in shape])


def finish(
    op: str,
    operands: Operands,
    outputs: list[Storage],
    exprs: list[Expr],
    own: int,
    attrs: Attrs,
    mask: Expr | None = None,
) -> Contraction:
    """Drop operands that nothing reads; an epilogue that stores the accumulator is none."""
    plain = all(
        isinstance(e, Temp) and e.dtype is o.dtype for e, o in zip(exprs, outputs, strict=True)
    )
    masks = [] if mask is None else [mask]
    used, numbers = used_sources([*exprs, *masks], operands.sources, own)
    epilogue = () if plain else tuple(renumber(e, numbers) for e in exprs)
    masks = [renumber(e, numbers) for e in masks]
    return Contraction(op, used, outputs, attrs, epilogue, *masks)
