"""The embedded network and pictures: whole, small, as documented, and right on unseen pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from planish import demo

MEGABYTE = 1_000_000
SHIPPED = (
    "ATTRIBUTION.md",
    "digits_calibration.npz",
    "digits_inception.onnx",
    "digits_test.npz",
)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(demo.model_path())


def test_files_ship_and_are_small() -> None:
    folder = demo.model_path().parent
    sizes = {name: (folder / name).stat().st_size for name in SHIPPED}
    assert all(sizes.values())
    assert sum(sizes.values()) <= 3 * MEGABYTE
    assert sizes["digits_inception.onnx"] <= 2.7 * MEGABYTE


def test_attribution_names_the_source_and_its_licence() -> None:
    text = (demo.model_path().parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for needed in ("E. Alpaydin", "C. Kaynak", "10.24432/C50P49", "CC BY 4.0", "Changes:"):
        assert needed in text


def test_the_room_imports_only_numpy_and_the_standard_library() -> None:
    source = Path(demo.__file__).read_text(encoding="utf-8")
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert {line.split()[1].split(".")[0] for line in imports} == {
        "__future__",
        "numpy",
        "pathlib",
    }


def test_pictures_are_as_documented() -> None:
    images, labels = demo.test_set()
    assert images.shape == (510, 1, 64, 64)
    assert images.dtype == np.float32
    assert labels.shape == (510,)
    assert labels.dtype == np.int64
    assert images.min() >= -1
    assert images.max() <= 1
    counts = np.bincount(labels, minlength=10)
    assert counts.shape == (10,)
    assert counts.min() >= 40  # every digit is asked for


def test_calibration_pictures_are_none_of_the_test_pictures() -> None:
    calibration, (tested, _) = demo.calibration_set(), demo.test_set()
    assert calibration.shape == (128, 1, 64, 64)
    assert calibration.dtype == np.float32
    assert not {p.tobytes() for p in calibration} & {p.tobytes() for p in tested}


def test_preprocess_keeps_constant_pictures_and_interpolates_between_pixels() -> None:
    for ink, value in ((0, -1.0), (8, 0.0), (16, 1.0)):
        flat = demo.preprocess(np.full((2, 8, 8), ink, np.uint8))
        np.testing.assert_allclose(flat, np.full((2, 1, 64, 64), value), atol=1e-6)

    step = np.zeros((1, 8, 8), np.uint8)
    step[:, :, 4:] = 16
    row = demo.preprocess(step)[0, 0, 30]
    assert (np.diff(row) >= 0).all()
    np.testing.assert_allclose(row, -row[::-1], atol=1e-6)
    # Between the centres of two stored pixels lie 8 enlarged ones, an eighth of the step apart.
    np.testing.assert_allclose(row[28:36], np.arange(-7, 8, 2) / 8, atol=1e-6)


def test_model_is_valid_onnx_with_the_documented_interface(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    (image,), (logits,) = model.graph.input, model.graph.output
    float32 = onnx.TensorProto.FLOAT
    assert (image.name, _shape(image), image.type.tensor_type.elem_type) == (
        "image",
        ["batch", 1, 64, 64],
        float32,
    )
    assert (logits.name, _shape(logits), logits.type.tensor_type.elem_type) == (
        "logits",
        ["batch", 10],
        float32,
    )
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


def test_model_is_inception_with_nothing_folded(model: onnx.ModelProto) -> None:
    assert Counter(node.op_type for node in model.graph.node) == {
        "Conv": 33,
        "BatchNormalization": 33,
        "Relu": 33,
        "MaxPool": 7,
        "Concat": 5,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
    }
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("BatchNormalization", "Relu"):
            before = {"BatchNormalization": "Conv", "Relu": "BatchNormalization"}[node.op_type]
            assert producers[node.input[0]] == before, node.name
        if node.op_type == "Concat":
            assert len(node.input) == 4, node.name


def test_onnxruntime_names_98_percent_and_batches_agree() -> None:
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime, the peer that scores the demo network, is not installed"
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        str(demo.model_path()), options, providers=["CPUExecutionProvider"]
    )
    images, labels = demo.test_set()
    (together,) = session.run(None, {"image": images})
    assert np.mean(together.argmax(axis=1) == labels) >= 0.98

    alone = np.concatenate([session.run(None, {"image": images[i : i + 1]})[0] for i in range(32)])
    np.testing.assert_allclose(alone, together[:32], rtol=1e-3, atol=1e-3)


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
