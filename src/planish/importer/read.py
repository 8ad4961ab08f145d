"""Reading model files: protobuf, and weights beside it, memory-mapped and only from its folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, SparseTensorProto, TensorProto, numpy_helper

from planish.base.dtypes import DType
from planish.base.errors import ModelError

_MOST_BYTES = 1 << 36  # of one dense tensor that is stored sparse


def read_model(model: str | Path | bytes | ModelProto) -> tuple[ModelProto, Path | None]:
    """The model and the folder that its external data may come from (None: nowhere).

    Raises:
        ModelError: The file is missing or is no ONNX model.
    """
    if isinstance(model, ModelProto):
        _check_parts(model, "the given model")
        return model, None
    folder = None
    if isinstance(model, bytes):
        data, where = model, "the given bytes"
    else:
        path = Path(model)
        where, folder = str(path), path.resolve().parent
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ModelError(f"cannot read {path}: {reason}") from error
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelError(
            f"{where} is not an ONNX model: {error}", hint="is the file complete?"
        ) from error
    _check_parts(proto, where)
    return proto, folder


def _check_parts(proto: ModelProto, where: str) -> None:
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(f"{where} is not an ONNX model: it has no graph or no opset")
    if not _is_text(proto):
        raise ModelError(f"{where} is not an ONNX model: it has names that are no UTF-8 text")


def _is_text(message: Message) -> bool:
    """True when every name of a message is text; protobuf gives bytes where it is not."""
    for found, value in message.ListFields():
        if found.type == FieldDescriptor.TYPE_STRING:
            values = [value] if isinstance(value, str | bytes) else value
            if any(isinstance(text, bytes) for text in values):
                return False
        elif found.type == FieldDescriptor.TYPE_MESSAGE:
            parts = [value] if isinstance(value, Message) else value
            if not all(map(_is_text, parts)):
                return False
    return True


def read_tensor(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """The contents of a stored tensor; memory-mapped where they lie in a file of their own.

    Raises:
        ModelError: The data are missing, too short, or outside the model's folder.
    """
    if min(tensor.dims, default=0) < 0:
        raise ModelError(f"tensor {tensor.name!r} has a negative size: {list(tensor.dims)}")
    try:
        dtype = DType.from_onnx(tensor.data_type)
    except KeyError:
        raise ModelError(
            f"tensor {tensor.name!r} has element type {tensor.data_type}, which is not known"
        ) from None
    if tensor.data_location == TensorProto.EXTERNAL:
        return _read_external(tensor, dtype, folder)
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # malformed tensors make it fail in many ways
        raise ModelError(f"tensor {tensor.name!r} is malformed: {error}") from error


def _read_external(tensor: TensorProto, dtype: DType, folder: Path | None) -> np.ndarray:
    name = tensor.name
    if folder is None:
        raise ModelError(
            f"tensor {name!r} lies in another file, but the model came without a path",
            hint="pass the path of the .onnx file",
        )
    if dtype is DType.STRING:
        raise ModelError(f"tensor {name!r} holds text, which ONNX keeps in the model file only")
    info = {entry.key: entry.value for entry in tensor.external_data}
    path = _contained(name, info.get("location", ""), folder)
    offset = _whole(name, "offset", info.get("offset", "0"))
    shape = tuple(int(dim) for dim in tensor.dims)
    needed = -(-math.prod(shape) * dtype.bits // 8)
    length = _whole(name, "length", info.get("length", str(needed)))
    size = path.stat().st_size
    if length < needed or offset + needed > size:
        found = f"{length} bytes are listed" if length < needed else f"{path.name} has {size}"
        raise ModelError(f"tensor {name!r} needs {needed} bytes at {offset}, but {found}")
    if needed == 0:
        return np.zeros(shape, dtype.numpy)
    if dtype.bits >= 8:
        return np.memmap(path, dtype=dtype.numpy, mode="r", offset=offset, shape=shape)
    raw = np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=(needed,))
    packed = TensorProto(
        name=name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw.tobytes()
    )
    return np.asarray(numpy_helper.to_array(packed))


def _contained(name: str, location: str, folder: Path) -> Path:
    """The file of a tensor; links are followed before it is held against the folder.

    Raises:
        ModelError: It lies elsewhere, or is no plain file.
    """
    try:
        path = (folder / location).resolve()
        if not path.is_relative_to(folder):
            raise ModelError(
                f"tensor {name!r} points outside the model's folder: {location!r}",
                hint="external data are read from beside the model only",
            )
        if not path.is_file():
            raise ModelError(f"tensor {name!r}: {location!r} is no file beside the model")
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"tensor {name!r}: cannot read {location!r}: {error}") from error
    return path


def _whole(name: str, key: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise ModelError(f"tensor {name!r}: {key} is {text!r}, expected a number of bytes")
    return int(text)


def read_sparse(sparse: SparseTensorProto, folder: Path | None) -> np.ndarray:
    """A sparse tensor as a dense one.

    Raises:
        ModelError: Its indices do not fit its shape, or it is too large to be dense.
    """
    name = sparse.values.name
    values, indices = read_tensor(sparse.values, folder), read_tensor(sparse.indices, folder)
    shape = tuple(int(dim) for dim in sparse.dims)
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * values.itemsize > _MOST_BYTES:
        raise ModelError(f"sparse tensor {name!r} of shape {list(shape)} cannot be made dense")
    if indices.ndim == 2 and indices.shape[1] == len(shape):
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        inside = bool(((indices >= 0) & (indices < np.array(shape))).all())
        places = indices @ np.array(strides, np.int64)
    else:
        places = indices.reshape(-1)
        inside = bool(((places >= 0) & (places < count)).all())
    if not inside or values.ndim != 1 or len(places) != len(values):
        raise ModelError(f"sparse tensor {name!r}: indices do not fit its values and shape")
    try:
        dense = np.zeros(count, values.dtype)
    except MemoryError as error:
        raise ModelError(f"sparse tensor {name!r} cannot be made dense: {error}") from error
    dense[places] = values
    return dense.reshape(shape)
