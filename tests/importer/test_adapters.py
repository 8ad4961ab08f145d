"""Older operator versions mean the same at the canonical opset; every change of form is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from models import check_against_reference, imported_outputs, model_of, node

from planish.base.errors import ModelError
from planish.importer import import_model
from planish.importer.adapt_table import ADAPTERS

X = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)

# (opset, operator, attributes, further inputs): attributes that are inputs now, and the like
OLD_FORMS: list[tuple[int, str, dict[str, Any], dict[str, np.ndarray]]] = [
    (12, "ReduceSum", {"axes": [1], "keepdims": 0}, {}),
    (12, "ReduceMax", {"axes": [1], "keepdims": 1}, {}),
    (17, "ReduceL2", {"axes": [-1]}, {}),
    (17, "ReduceMean", {}, {}),
    (12, "Unsqueeze", {"axes": [0, 2]}, {}),
    (9, "Slice", {"starts": [0, 1], "ends": [2, 3], "axes": [0, 2]}, {}),
    (9, "Slice", {"starts": [0, 1], "ends": [2, 3]}, {}),
    (10, "Clip", {"min": -0.5, "max": 0.5}, {}),
    (10, "Clip", {"max": 0.25}, {}),
    (10, "Pad", {"pads": [0, 1, 0, 0, 1, 2], "value": 2.5}, {}),
    (10, "Pad", {"pads": [0, 1, 0, 0, 1, 2], "mode": "reflect"}, {}),
    (11, "Dropout", {"ratio": 0.3}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "op", "attrs", "more"), OLD_FORMS)
def test_old_forms(opset: int, op: str, attrs: dict[str, Any], more: dict[str, np.ndarray]) -> None:
    inputs = " ".join(["x", *more])
    model = model_of([node(op, inputs, "y", **attrs)], {"x": X.shape}, ["y"], more, opset)
    check_against_reference(model, {"x": X})


@pytest.mark.parametrize("opset", [7, 11, 12])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -2])
@pytest.mark.parametrize("shape", [X.shape, None])
def test_softmax_of_a_matrix(opset: int, op: str, axis: int | None, shape: Any) -> None:
    attrs = {} if axis is None else {"axis": axis}
    model = model_of([node(op, "x", "y", **attrs)], {"x": shape}, ["y"], opset=opset)
    (y,) = imported_outputs(model, {"x": X})
    at = (1 if axis is None else axis) % 3
    rows = X.reshape(int(np.prod(X.shape[:at])), -1).astype(np.float64)
    odds = np.exp(rows - rows.max(axis=1, keepdims=True))
    soft = odds / odds.sum(axis=1, keepdims=True)
    hard = np.eye(rows.shape[1])[rows.argmax(axis=1)]
    expected = {"Softmax": soft, "LogSoftmax": np.log(soft), "Hardmax": hard}[op]
    np.testing.assert_allclose(y, expected.reshape(X.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [None, [1, 3]])
def test_split_attribute(sizes: list[int] | None) -> None:
    attrs = {} if sizes is None else {"split": sizes}
    model = model_of([node("Split", "x", "a b", axis=1, **attrs)], {"x": X.shape}, ["a", "b"],
                     opset=11)  # fmt: skip
    cut = 2 if sizes is None else 1
    a, b = imported_outputs(model, {"x": X})
    np.testing.assert_array_equal(a, X[:, :cut])
    np.testing.assert_array_equal(b, X[:, cut:])


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_upsample_is_a_plain_resize(opset: int) -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    scales = np.array([1, 1, 2, 3], np.float32)
    if opset == 7:
        made = model_of([node("Upsample", "x", "y", scales=scales.tolist())], {"x": x.shape},
                        ["y"], opset=7)  # fmt: skip
    else:
        op = "Upsample" if opset == 9 else "Resize"
        made = model_of([node(op, "x s", "y")], {"x": x.shape}, ["y"], {"s": scales}, opset)
    (y,) = imported_outputs(made, {"x": x})
    np.testing.assert_array_equal(y, x.repeat(2, axis=2).repeat(3, axis=3))


def test_top_k_attribute() -> None:
    model = model_of([node("TopK", "x", "v i", k=2)], {"x": X.shape}, ["v", "i"], opset=9)
    values, _ = imported_outputs(model, {"x": X})
    np.testing.assert_array_equal(values, np.sort(X, axis=-1)[..., ::-1][..., :2])


def test_group_parameters_become_channel_parameters() -> None:
    scale, bias = np.array([2.0, 3.0], np.float32), np.array([0.5, -0.5], np.float32)
    model = model_of([node("GroupNormalization", "x s b", "y", num_groups=2)], {"x": X.shape},
                     ["y"], {"s": scale, "b": bias}, opset=18)  # fmt: skip
    (y,) = imported_outputs(model, {"x": X})
    groups = X.reshape(2, 2, -1).astype(np.float64)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(
        groups.var(-1, keepdims=True) + 1e-5
    )
    expected = normal * scale[:, None] + bias[:, None]
    np.testing.assert_allclose(y, expected.reshape(X.shape), rtol=1e-4, atol=1e-4)


def test_one_way_broadcast() -> None:
    b = np.arange(4, dtype=np.float32)
    model = model_of([node("Add", "x b", "y", broadcast=1, axis=1)], {"x": X.shape}, ["y"],
                     {"b": b}, opset=6)  # fmt: skip
    (y,) = imported_outputs(model, {"x": X})
    np.testing.assert_array_equal(y, X + b[:, None])


@pytest.mark.parametrize(
    ("opset", "made", "message"),
    [
        (8, node("Scan", "- x", "y", num_scan_inputs=1,
                 body=onnx.helper.make_graph([], "b", [], [])), "batch axis"),
        (7, node("BatchNormalization", "x x x x x", "y", spatial=0), "spatial=0"),
        (9, node("BatchNormalization", "x x x x x", "y m v"), "inference"),
    ],
)  # fmt: skip
def test_forms_without_an_equivalent(opset: int, made: onnx.NodeProto, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        import_model(model_of([made], {"x": [4]}, ["y"], opset=opset))
    assert "n_y" in str(caught.value)


# Changes since opset 7 that need no adapter, each with the reason.
NEW_WITH_OLD_DEFAULT = "attributes or inputs came whose default is the old meaning"
NOT_READ = "constants are read whichever attribute holds them"
JUSTIFIED = {
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "Attention", "AveragePool", "Cast", "CastLike", "DepthToSpace",
         "DequantizeLinear", "GRU", "GatherND", "LSTM", "LpPool", "MaxPool", "Pad",
         "QuantizeLinear", "Resize", "TopK",
         "RNN", "Range", "Reshape", "ScatterElements", "ScatterND", "Shape", "SpaceToDepth"),
        NEW_WITH_OLD_DEFAULT,
    ),
    "Constant": NOT_READ,
}  # fmt: skip


def _form(schema: Any) -> tuple[Any, ...]:
    """What a node of this version looks like: attributes, defaults, numbers of operands."""
    attrs = {
        name: (attr.required, attr.default_value.SerializeToString())
        for name, attr in schema.attributes.items()
    }
    return attrs, len(schema.inputs), len(schema.outputs), schema.deprecated


def test_every_change_of_form_is_known() -> None:
    versions: dict[str, list[Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            versions.setdefault(schema.name, []).append(schema)
    unknown = []
    for op, schemas in versions.items():
        schemas.sort(key=lambda schema: schema.since_version)
        oldest = max((s.since_version for s in schemas if s.since_version <= 7), default=0)
        forms = [s for s in schemas if s.since_version >= oldest]
        for before, after in pairwise(forms):
            adapted = any(row.until >= after.since_version for row in ADAPTERS.get(op, ()))
            if _form(before) != _form(after) and not adapted and op not in JUSTIFIED:
                unknown.append(f"{op} {before.since_version} -> {after.since_version}")
    assert not unknown, f"changes of form without an adapter or a reason: {unknown}"
