"""Padding as part of the convolution or pool behind it, and `auto_pad` as numbers.

    x ─ Pad(0; 1,1,1,1) ─ Conv(pads=0)             becomes   x ─ Conv(pads=1)
    x ─ Pad(0) ─ AveragePool                       becomes   x ─ AveragePool(count_include_pad=1)
    x ─ Pad(-inf) ─ MaxPool                        becomes   x ─ MaxPool(pads)
    x ─ Relu ─ Pad(0) ─ MaxPool                    becomes   x ─ Relu ─ MaxPool(pads): it is ≥ 0
    x ─ Pad ─ Transpose ─ Conv                     becomes   x ─ Transpose ─ Conv(pads)
    x ─ Conv(auto_pad=SAME_UPPER)                  becomes   x ─ Conv(pads=…), where sizes are known

Not handled: padding of the batch or the channels, other modes than constant, pads that cut; pools
whose windows may lie in the padding altogether; pools of Lp norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.shapes import Dim
from planish.graph.graph import Graph, Node, Patch, TensorType, Value
from planish.graph.infer import arg_of, args_of, op_of
from planish.ops.windows import kernel_of, windows_of
from planish.passes.match import first_input, ints, known_rank, make, scalar
from planish.passes.rewrite import Pass

_CONVOLUTIONS = ("Conv", "ConvInteger")
_WINDOWED = frozenset((*_CONVOLUTIONS, "MaxPool", "AveragePool", "LpPool"))
_LOWEST = {DType.F64: -1.79e308, DType.F32: -3.4e38, DType.BF16: -3.38e38, DType.F16: -65500.0}
_NOT_NEGATIVE = frozenset(
    ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs", "Sqrt", "Softplus", "ReduceL2")
)
_KEEPS_SIGN = frozenset(
    ("MaxPool", "AveragePool", "Identity", "Reshape", "Transpose", "Concat", "Slice", "Split")
)
_DEPTH = 8  # nodes looked through to see that a value is not negative


def find(graph: Graph) -> Iterator[Patch]:
    """Windowed nodes with automatic pads, or behind a Pad."""
    for node in graph.nodes:
        if node.op not in _WINDOWED or not graph.holds(node) or not known_rank(*node.inputs):
            continue
        patch = _explicit(graph, node) or _absorbed(graph, node)
        if patch is not None:
            yield patch


def _explicit(graph: Graph, node: Node) -> Patch | None:
    """Numbers in place of `auto_pad`."""
    if node.attrs.get("auto_pad", "NOTSET") == "NOTSET":
        return None
    weight = node.input(1) if node.op in _CONVOLUTIONS else None
    spatial = None if weight is None else weight.shape[2:]
    windows = windows_of(
        first_input(node).shape[2:], kernel_of(node.attrs, spatial, node.op), node.attrs
    )
    pads = (*windows.begin, *windows.end)
    if not all(isinstance(pad, int) for pad in pads):
        return None
    attrs = {k: v for k, v in node.attrs.items() if k != "auto_pad"} | {"pads": pads}
    return _replaced(graph, node, first_input(node), attrs, f"{node.name}: pads are {list(pads)}")


def _absorbed(graph: Graph, node: Node) -> Patch | None:
    before, view = first_input(node).producer, None
    if before is not None and before.op == "Transpose":
        before, view = first_input(before).producer, before
    if before is None or before.op != "Pad" or not known_rank(*before.inputs):
        return None
    perm = None if view is None else view.attrs.get("perm")
    if view is not None and perm is None:
        return None
    pads = spatial_pads(before, perm)
    if pads is None or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    old = tuple(node.attrs.get("pads") or (0,) * len(pads))
    attrs = {**node.attrs, "pads": tuple(a + b for a, b in zip(old, pads, strict=True))}
    value = 0.0 if before.input(2) is None else scalar(before.input(2))
    source = first_input(before)
    if node.op in _CONVOLUTIONS:
        fits = value == 0 and (node.op == "Conv" or node.input(2) is None)
    elif node.op == "AveragePool":
        fits = value == 0 and (not any(old) or bool(node.attrs.get("count_include_pad", 0)))
        fits = fits and not node.attrs.get("ceil_mode", 0)
        attrs["count_include_pad"] = 1
    else:
        fits = node.op == "MaxPool" and _max_ignores(node, source, value, attrs["pads"])
    if not fits:
        return None
    note = f"{before.name} is padding of {node.name}"
    if view is None:
        return _replaced(graph, node, source, attrs, note, before)
    shape = tuple(source.shape[axis] for axis in perm or ())
    turned = Value(graph.fresh(view.output.name), TensorType(source.dtype, shape))
    inner = Node("Transpose", [source], [turned], view.attrs, name=view.name, origin=view.origin)
    patch = _replaced(graph, node, turned, attrs, note, before)
    return None if patch is None else replace(patch, add=(inner, *patch.add))


def spatial_pads(node: Node, perm: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The pads of the spatial axes, begins before ends; None if others are padded, or not so.

    Args:
        node: A Pad.
        perm: The transpose behind it, after which the axes are counted.
    """
    rank = len(first_input(node).shape)
    pads = ints(node.input(1))
    axes = tuple(range(rank)) if node.input(3) is None else ints(node.input(3))
    if pads is None or axes is None or node.attrs.get("mode", "constant") != "constant":
        return None
    begin, end = [0] * rank, [0] * rank
    for n, axis in enumerate(axes):
        place = axis % rank if perm is None else perm.index(axis % rank)
        begin[place], end[place] = pads[n], pads[n + len(axes)]
    if rank < 3 or any((*begin[:2], *end[:2])) or min(*begin, *end) < 0:
        return None
    return (*begin[2:], *end[2:])


def _max_ignores(node: Node, source: Value, value: float | None, pads: tuple[Dim, ...]) -> bool:
    """Whether padding with a value never shows in a maximum."""
    kernel = tuple(node.attrs["kernel_shape"])
    if value is None or any(v is not None for v in node.outputs[1:]):
        return False
    if set(node.attrs.get("dilations") or (1,)) != {1} or node.attrs.get("ceil_mode", 0):
        return False
    if any(not pad < k for pad, k in zip(pads, (*kernel, *kernel), strict=True)):
        return False
    return value <= _LOWEST.get(source.dtype, -np.inf) or (
        value <= 0 and _not_negative(source, _DEPTH)
    )


def _not_negative(value: Value | None, depth: int) -> bool:
    node = None if value is None else value.producer
    if value is not None and value.data is not None:
        return bool(np.all(np.asarray(value.data) >= 0))
    if node is None or depth == 0:
        return False
    if node.op in _NOT_NEGATIVE:
        return True
    if node.op == "Clip":
        low, high = scalar(node.input(1)), node.input(2)
        top = np.inf if high is None else scalar(high)
        return low is not None and top is not None and 0 <= low <= top
    read = node.inputs if node.op == "Concat" else node.inputs[:1]
    return node.op in _KEEPS_SIGN and all(_not_negative(v, depth - 1) for v in read)


def _replaced(
    graph: Graph,
    node: Node,
    source: Value,
    attrs: dict[str, object],
    note: str,
    *before: Node,
) -> Patch | None:
    op = op_of(node)
    assert op is not None
    try:
        (result, *_) = op.infer([arg_of(source), *args_of(node)[1:]], attrs)
    except ModelError:
        return None
    if TensorType(result.dtype, result.shape) != node.output.type or len(node.outputs) != 1:
        return None
    made = make(
        graph, node.op, [source, *node.inputs[1:]], node.output, attrs, sources=[*before, node]
    )
    return Patch(note, (node,), (made,), ((node.output, made.output),))


PASS = Pass("fold_pads", "pads folded into windows", find)
