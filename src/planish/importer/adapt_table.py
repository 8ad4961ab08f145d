"""The rows of `adapters`: every operator whose form changed on the way to the canonical opset."""

from __future__ import annotations

from planish.importer.adapt_forms import (
    cast_by_name,
    channel_slope,
    clip_inputs,
    dft_axis,
    empty_inputs,
    flattened_softmax,
    group_parameters,
    is_batched_scan,
    old_resize,
    one_way_broadcast,
    pad_inputs,
    plain_outputs,
    slice_inputs,
    split_count,
    tile_repeats,
    upsample,
)
from planish.importer.adapters import (
    Adapter,
    attr_to_input,
    drop_attrs,
    refuse,
    rename_op,
    rename_values,
    set_default,
)

_AXES_18 = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2",
            "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip
_ONE_WAY = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater",
            "Less")  # fmt: skip
_SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax")
_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}

ROWS: tuple[Adapter, ...] = (
    *(Adapter(op, 7, one_way_broadcast) for op in _ONE_WAY),
    *(Adapter(op, 18, attr_to_input("axes", 1)) for op in _AXES_18),
    *(Adapter(op, 13, flattened_softmax) for op in _SOFTMAX),
    Adapter("ReduceSum", 13, attr_to_input("axes", 1)),
    Adapter("Squeeze", 13, attr_to_input("axes", 1)),
    Adapter("Unsqueeze", 13, attr_to_input("axes", 1)),
    Adapter("Split", 13, attr_to_input("split", 1)),
    Adapter("Split", 18, split_count),
    Adapter("PRelu", 7, channel_slope),
    Adapter("Reshape", 5, attr_to_input("shape", 1)),
    Adapter("Tile", 6, tile_repeats),
    Adapter("Cast", 6, cast_by_name),
    Adapter("Gemm", 7, drop_attrs("broadcast")),
    Adapter("Slice", 10, slice_inputs),
    Adapter("TopK", 10, attr_to_input("k", 1)),
    Adapter("Clip", 11, clip_inputs),
    Adapter("Pad", 11, pad_inputs),
    Adapter("Dropout", 12, drop_attrs("ratio", "is_test")),
    Adapter("BatchNormalization", 14, plain_outputs),
    Adapter("BatchNormalization", 7, drop_attrs("is_test")),
    Adapter("Upsample", 10, upsample),
    Adapter("Resize", 11, old_resize),
    Adapter("Resize", 13, empty_inputs),
    Adapter("Scatter", 11, rename_op("ScatterElements")),
    Adapter("Scan", 9, refuse("Scan of opset 8 has a batch axis, which later ones lack; "
                              "convert the model to opset 9 or later", is_batched_scan)),
    Adapter("RoiAlign", 16, set_default("coordinate_transformation_mode", "output_half_pixel")),
    Adapter("GridSample", 20, rename_values("mode", _GRID_MODES)),
    Adapter("DFT", 20, dft_axis),
    Adapter("GroupNormalization", 21, group_parameters),
    Adapter("RNN", 7, drop_attrs("output_sequence")),
    Adapter("GRU", 7, drop_attrs("output_sequence")),
    Adapter("LSTM", 7, drop_attrs("output_sequence")),
)  # fmt: skip

ADAPTERS: dict[str, list[Adapter]] = {}
for _row in ROWS:
    ADAPTERS.setdefault(_row.op, []).append(_row)
