"""Matrix products → workloads; siblings of one left operand become one convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planish.base.expr import Expr, Load, Var, replace_loads, replace_vars
from planish.base.shapes import Dim, Shape, dim_min
from planish.kernels.workload import dense_strides
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
from planish.lower.convolutions import by_pixel
from planish.lower.operands import Loop, Operands, Source, merge_loops
from planish.lower.storage import Buffer, Storage


def matmul_layer(branch: Branch, place: Place) -> Contraction:
    """A matrix product with batch axes broadcast; vectors become matrices of one row or column."""
    node = branch.layer.anchor
    a, b = input_of(node, 0), input_of(node, 1)
    out = node.output
    operands = Operands(place)
    left, right = place(a), replace(place(b), const=b.is_const)
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
        data = reshaped(b.data, b_shape)
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
    dtype = common_dtype([input_of(b.layer.anchor, 1) for b in branches], place)
    buffer = Buffer("weight", dtype, int(data.size), name)
    operands.add(Source(Storage(buffer, data.shape, dense_strides(data.shape)), data, True))
    rank = len(x.shape)
    axes = [2, 1] if rank == 2 else [0, *range(2, rank), 1]
    rename: dict[str, Expr] = {f"o{n}": Var(f"o{axis}") for n, axis in enumerate(axes)}
    exprs = [replace_vars(accumulated(b, operands, bias=None), rename) for b in branches]
    outputs = [_as_pixels(b.target) for b in branches]
    outputs, exprs, windows = by_pixel(operands, outputs, exprs, max(rank, 3))
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
    extras = addend_walks(operands, [expr], list(range(rank)), rank)
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
