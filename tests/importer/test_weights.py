"""Weights: beside the model, inside its folder only, mapped, sparse, listed as inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import imported_outputs, model_of, node
from onnx import TensorProto, helper, numpy_helper

from planish.base.errors import ModelError
from planish.importer import import_model

X = np.ones((2, 3), np.float32)


def external(folder: Path, **info: str) -> Path:
    """A model whose weight w[2,3] lies in another file."""
    model = model_of([node("Add", "x w", "y")], {"x": [2, 3]}, ["y"])
    stored = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3])
    stored.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", **info}.items():
        stored.external_data.add(key=key, value=value)
    model.graph.initializer.append(stored)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_mapped_at_an_offset(tmp_path: Path) -> None:
    data = np.arange(10, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(data.tobytes())
    graph = import_model(external(tmp_path, offset="16", length="24"))
    weight = graph.nodes[0].inputs[1]
    assert weight is not None and isinstance(weight.data, np.memmap)
    np.testing.assert_array_equal(weight.data, data[4:].reshape(2, 3))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"location": "../w.bin"}, "outside"),
        ({"location": "/etc/passwd"}, "outside"),
        ({"location": "link.bin"}, "outside"),
        ({"location": ""}, "no file"),
        ({"location": "none.bin"}, "no file"),
        ({"location": "w\0.bin"}, "cannot read"),
        ({"offset": "4"}, "needs 24 bytes at 4"),
        ({"offset": "-4"}, "expected a number of bytes"),
        ({"offset": "9" * 40}, "expected a number of bytes"),
        ({"length": "8"}, "8 bytes are listed"),
    ],
)
def test_refused(tmp_path: Path, info: dict[str, str], message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "w.bin").write_bytes(bytes(24))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match=message):
        import_model(external(folder, **info))


def test_bytes_have_no_folder(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(24))
    with pytest.raises(ModelError, match="without a path"):
        import_model(external(tmp_path).read_bytes())


def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    """A sparse file: three weights of 1 GiB each; only what is asked for is read."""
    size = 1 << 30
    nodes = [node("Gather", f"w{n} i", f"y{n}") for n in range(3)]
    model = model_of(nodes, {}, ["y0", "y1", "y2"], {"i": np.array([size // 4 - 1])})
    for n in range(3):
        stored = TensorProto(name=f"w{n}", data_type=TensorProto.FLOAT, dims=[size // 4])
        stored.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", "offset": str(n * size)}.items():
            stored.external_data.add(key=key, value=value)
        model.graph.initializer.append(stored)
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(3 * size)
        for n in range(3):
            file.seek((n + 1) * size - 4)
            file.write(np.float32(n + 1).tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    graph = import_model(path)
    last = [n.inputs[0].data[-1] for n in graph.nodes if n.inputs[0] is not None]
    assert last == [1.0, 2.0, 3.0]


def test_sparse_weights() -> None:
    model = model_of([node("Add", "x w", "y")], {"x": [2, 3]}, ["y"])
    values = numpy_helper.from_array(np.array([5.0, 7.0], np.float32), "w")
    places = numpy_helper.from_array(np.array([1, 5], np.int64), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2, 3]))
    (y,) = imported_outputs(model, {"x": X})
    np.testing.assert_array_equal(y, X + np.array([[0, 5, 0], [0, 0, 7]], np.float32))


def test_weights_listed_as_inputs_are_defaults() -> None:
    model = model_of([node("Add", "x w", "y")], {"x": [2, 3], "w": [2, 3]}, ["y"], {"w": 2 * X})
    assert [value.name for value in import_model(model).inputs] == ["x"]


def test_malformed_weight_is_named() -> None:
    model = model_of([node("Relu", "w", "y")], {}, ["y"], {"w": X})
    model.graph.initializer[0].dims[0] = 99
    with pytest.raises(ModelError, match="'w' is malformed"):
        import_model(model)


def test_packed_four_bit_weights_beside_the_model(tmp_path: Path) -> None:
    model = model_of([node("DequantizeLinear", "w s", "y")], {}, ["y"], {"s": np.float32(2.0)})
    stored = TensorProto(name="w", data_type=TensorProto.INT4, dims=[3])
    stored.data_location = TensorProto.EXTERNAL
    stored.external_data.add(key="location", value="w.bin")
    model.graph.initializer.append(stored)
    (tmp_path / "w.bin").write_bytes(bytes([0x21, 0x0F]))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    (weight,) = (v for v in import_model(path).values() if v.name == "w")
    np.testing.assert_array_equal(np.asarray(weight.data).astype(int), [1, 2, -1])
