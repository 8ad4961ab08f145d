"""The rows of `adapters`: every operator whose form changed between opset 7 and the canonical one."""

from __future__ import annotations

import numpy as np

from planish.importer.adapters import Adapter, Draft, attr_to_input, drop_attrs

_AXES_18 = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2",
            "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip


def _slice_inputs(draft: Draft) -> None:
    """Slice-1 has starts, ends, axes as attributes."""
    for position, name in enumerate(("starts", "ends", "axes"), start=1):
        attr_to_input(name, position)(draft)


def _clip_inputs(draft: Draft) -> None:
    """Clip-6 has min and max as attributes of the input's dtype."""
    first = draft.inputs[0]
    dtype = first.dtype.numpy if first is not None else np.dtype(np.float32)
    attr_to_input("min", 1, dtype)(draft)
    attr_to_input("max", 2, dtype)(draft)


def _rows() -> list[Adapter]:
    rows = [Adapter(op, 18, attr_to_input("axes", 1)) for op in _AXES_18]
    rows += [
        Adapter("ReduceSum", 13, attr_to_input("axes", 1)),
        Adapter("Squeeze", 13, attr_to_input("axes", 1)),
        Adapter("Unsqueeze", 13, attr_to_input("axes", 1)),
        Adapter("Slice", 10, _slice_inputs),
        Adapter("Clip", 11, _clip_inputs),
        Adapter("Dropout", 12, drop_attrs("ratio", "is_test")),
        Adapter("BatchNormalization", 9, drop_attrs("spatial")),
    ]
    return rows


ADAPTERS: dict[str, list[Adapter]] = {}
for _row in _rows():
    ADAPTERS.setdefault(_row.op, []).append(_row)
