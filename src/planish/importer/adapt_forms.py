"""Changes of form that are more than an attribute moved; the rows are in `adapt_table`."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from planish.base.errors import ModelError
from planish.graph.graph import Value
from planish.importer.adapters import Draft, attr_to_input


def slice_inputs(draft: Draft) -> None:
    """Slice-1 has starts, ends, axes as attributes."""
    for position, name in enumerate(("starts", "ends", "axes"), start=1):
        attr_to_input(name, position)(draft)


def clip_inputs(draft: Draft) -> None:
    """Clip-6 has min and max as attributes of the input's dtype."""
    dtype = draft.first().dtype.numpy
    for position, name in enumerate(("min", "max"), start=1):
        if name in draft.attrs:
            bound = np.asarray(draft.attrs.pop(name), dtype=dtype)
            draft.set_input(position, draft.constant(bound))


def pad_inputs(draft: Draft) -> None:
    """Pad-2 has pads and value as attributes; Pad-1 calls the first paddings."""
    pads = draft.attrs.pop("paddings", None)
    pads = draft.attrs.pop("pads", pads)
    if pads is None:
        raise ModelError("attribute 'pads' is missing")
    value = draft.attrs.pop("value", 0.0)
    draft.set_input(1, draft.constant(np.asarray(pads, dtype=np.int64)))
    draft.set_input(2, draft.constant(np.asarray(value, dtype=draft.first().dtype.numpy)))


def split_count(draft: Draft) -> None:
    """Split before 18 without sizes makes equal parts, as many as it has outputs."""
    if draft.input(1) is None:
        draft.attrs.setdefault("num_outputs", draft.outputs)


def flattened_softmax(draft: Draft) -> None:
    """Softmax, LogSoftmax and Hardmax before 13 see a matrix: all axes from `axis` on are one.

    x ─ Softmax-11(axis=1)   becomes   x ─ Flatten(axis=1) ─ Softmax(axis=1) ─ Reshape(to x's shape)
    """
    axis = int(draft.attrs.get("axis", 1))
    rank = draft.rank(0)
    if rank is not None and axis in (-1, rank - 1):
        draft.attrs["axis"] = -1
        return
    x = draft.first()
    flat = draft.emit("Flatten", [x], {"axis": axis})
    made = draft.emit(draft.op, [flat], {"axis": 1})
    shape = draft.emit("Shape", [x], {})
    draft.op, draft.inputs, draft.attrs = "Reshape", [made, shape], {}


_MODES = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}


def upsample(draft: Draft) -> None:
    """Upsample became a Resize whose coordinates are scaled plainly and rounded down."""
    scales: Value | None = draft.input(1)
    if "scales" in draft.attrs:
        given = draft.attrs.pop("scales")
        scales = draft.constant(np.asarray(given, dtype=np.float32))
    elif "height_scale" in draft.attrs:
        sizes = (1.0, 1.0, draft.attrs.pop("height_scale"), draft.attrs.pop("width_scale", 1.0))
        scales = draft.constant(np.asarray(sizes, dtype=np.float32))
    draft.op = "Resize"
    draft.inputs = [draft.first(), scales]
    old_resize(draft)


def old_resize(draft: Draft) -> None:
    """Resize-10 has no region and one rule for coordinates."""
    mode = draft.attrs.get("mode", "nearest")
    draft.inputs = [draft.first(), None, draft.input(1)]
    draft.attrs["mode"] = _MODES.get(mode, mode)
    draft.attrs["coordinate_transformation_mode"] = "asymmetric"
    draft.attrs["nearest_mode"] = "floor"


def empty_inputs(draft: Draft) -> None:
    """Resize-11 takes an empty tensor where an input is left out."""
    for position in (1, 2):
        value = draft.input(position)
        if value is not None and value.data is not None and value.data.size == 0:
            draft.inputs[position] = None


def cast_by_name(draft: Draft) -> None:
    """Cast-1 names its dtype."""
    name = draft.attrs.get("to")
    if isinstance(name, str):
        try:
            draft.attrs["to"] = TensorProto.DataType.Value(name.upper())
        except ValueError:
            raise ModelError(f"attribute 'to' is {name!r}, which is no element type") from None


def tile_repeats(draft: Draft) -> None:
    """Tile-1 repeats one axis; repeats for all axes need its rank."""
    tiles, axis, rank = draft.input(1), draft.input(2), draft.rank(0)
    if axis is None:
        return
    if tiles is None or tiles.data is None or axis.data is None or rank is None:
        raise ModelError("Tile of opset 5 and below: expected constant tiles and axis, known rank")
    repeats = np.ones(rank, np.int64)
    repeats[int(axis.data.reshape(-1)[0])] = int(tiles.data.reshape(-1)[0])
    draft.inputs = [draft.first(), draft.constant(repeats)]


def one_way_broadcast(draft: Draft) -> None:
    """Before opset 7 the second operand is broadcast only on request, from `axis` on.

    a[2,3,4] + b[3] (broadcast=1, axis=1)   becomes   a + Unsqueeze(b, axes=[1])
    """
    asked, axis = int(draft.attrs.pop("broadcast", 0)), draft.attrs.pop("axis", None)
    if not asked or axis is None:
        return
    ours, theirs = draft.rank(0), draft.rank(1)
    if ours is None or theirs is None:
        raise ModelError(
            f"attribute 'axis' = {axis} of opset 6 and below: expected operands of known rank"
        )
    behind = ours - (int(axis) % max(ours, 1)) - theirs
    if behind > 0:
        axes = draft.constant(np.arange(theirs, theirs + behind))
        draft.inputs[1] = draft.emit("Unsqueeze", [draft.input(1), axes], {})


def channel_slope(draft: Draft) -> None:
    """PRelu-6 has one slope a channel, which is axis 1."""
    ours, theirs = draft.rank(0), draft.rank(1)
    if theirs == 1 and ours is not None and ours > 2 and draft.input(1) is not None:
        axes = draft.constant(np.arange(1, ours - 1))
        draft.inputs[1] = draft.emit("Unsqueeze", [draft.input(1), axes], {})


def group_parameters(draft: Draft) -> None:
    """GroupNormalization-18 scales and shifts whole groups, the newer one each channel."""
    groups, shape = int(draft.attrs.get("num_groups", 1)), draft.first().type.shape
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int) or groups < 1:
        raise ModelError("GroupNormalization of opset 20 and below: expected a known channel count")
    each = shape[1] // groups
    for position in (1, 2):
        value = draft.input(position)
        if value is None:
            raise ModelError(f"input {position} is missing")
        column = draft.constant(np.array((groups, 1), np.int64))
        wide = draft.constant(np.array((groups, each), np.int64))
        flat = draft.constant(np.array((-1,), np.int64))
        made = draft.emit("Expand", [draft.emit("Reshape", [value, column], {}), wide], {})
        draft.inputs[position] = draft.emit("Reshape", [made, flat], {})


def dft_axis(draft: Draft) -> None:
    """DFT-17 has its axis as an attribute, 1 by default."""
    axis = draft.attrs.pop("axis", 1)
    draft.set_input(2, draft.constant(np.asarray(axis, dtype=np.int64)))


def plain_outputs(draft: Draft) -> None:
    """BatchNormalization before 14 trains where it has more than one output."""
    if not int(draft.attrs.pop("spatial", 1)):
        raise ModelError("BatchNormalization with spatial=0: statistics an element are not read")
    if draft.outputs > 1:
        raise ModelError(
            "BatchNormalization with statistics as outputs trains; export the model for inference"
        )


def is_batched_scan(draft: Draft) -> bool:
    """Scan-8 has a batch axis before the scanned one."""
    return True
