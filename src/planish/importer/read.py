"""Reading model files: protobuf, and weights beside it, memory-mapped and only from its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, numpy_helper

from planish.base.dtypes import DType
from planish.base.errors import ModelError


def read_model(model: str | Path | bytes | ModelProto) -> tuple[ModelProto, Path | None]:
    """The model and the folder that its external data may come from (None: nowhere).

    Raises:
        ModelError: The file is missing or is no ONNX model.
    """
    if isinstance(model, ModelProto):
        return model, None
    folder = None
    if isinstance(model, bytes):
        data, where = model, "the given bytes"
    else:
        path = Path(model)
        where, folder = str(path), path.resolve().parent
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{where} is not an ONNX model: {error}", hint="is the file complete?"
        ) from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(f"{where} is not an ONNX model: it has no graph or no opset")
    return onnx.inliner.inline_local_functions(proto) if proto.functions else proto, folder


def read_tensor(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """The contents of a stored tensor; memory-mapped where they lie in a file of their own.

    Raises:
        ModelError: The data are missing, too short, or outside the model's folder.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"tensor {tensor.name!r} is malformed: {error}") from error
    if folder is None:
        raise ModelError(
            f"tensor {tensor.name!r} lies in another file, but the model came without a path",
            hint="pass the path of the .onnx file",
        )
    info = {entry.key: entry.value for entry in tensor.external_data}
    path = (folder / info.get("location", "")).resolve()
    if not path.is_relative_to(folder):
        raise ModelError(f"tensor {tensor.name!r} points outside the model's folder: {path}")
    dtype = DType.from_onnx(tensor.data_type).numpy
    count = int(np.prod(tensor.dims, dtype=np.int64))
    offset = int(info.get("offset", "0"))
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"tensor {tensor.name!r}: cannot read {path.name}: {error}") from error
    if offset < 0 or offset + count * dtype.itemsize > size:
        raise ModelError(
            f"tensor {tensor.name!r} needs {count * dtype.itemsize} bytes at {offset}, "
            f"but {path.name} has {size}"
        )
    if count == 0:
        return np.zeros(tuple(tensor.dims), dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=tuple(tensor.dims))
