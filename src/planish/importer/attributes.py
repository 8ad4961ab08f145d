"""Attributes as the graph holds them: numbers, text, tuples and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto

from planish.base.errors import ModelError
from planish.importer.read import read_sparse, read_tensor


def read_attribute(attr: AttributeProto, folder: Path | None) -> Any:
    """The value of an attribute that is no graph.

    Raises:
        ModelError: Its type is unknown, or its contents are malformed.
    """
    match attr.type:
        case AttributeProto.TENSOR:
            return read_tensor(attr.t, folder)
        case AttributeProto.SPARSE_TENSOR:
            return read_sparse(attr.sparse_tensor, folder)
        case AttributeProto.FLOAT:
            return float(attr.f)
        case AttributeProto.INT:
            return int(attr.i)
        case AttributeProto.STRING:
            return attr.s.decode("utf-8", "replace")
        case AttributeProto.FLOATS:
            return tuple(float(v) for v in attr.floats)
        case AttributeProto.INTS:
            return tuple(int(v) for v in attr.ints)
        case AttributeProto.STRINGS:
            return tuple(s.decode("utf-8", "replace") for s in attr.strings)
        case AttributeProto.TENSORS:
            return tuple(read_tensor(t, folder) for t in attr.tensors)
        case AttributeProto.TYPE_PROTO:
            return attr.tp
    raise ModelError(f"attribute {attr.name!r} is of type {attr.type}, which is not read")


_WHOLE = ("value_int", "value_ints")
_REAL = ("value_float", "value_floats")
_TEXT = ("value_string", "value_strings")


def constant_data(attrs: dict[str, Any]) -> np.ndarray:
    """The contents of a Constant node, whichever attribute holds them.

    Raises:
        ModelError: None does, or several do.
    """
    if len(attrs) != 1:
        raise ModelError(f"expected one attribute with its value, found {sorted(attrs) or 'none'}")
    ((name, value),) = attrs.items()
    if name in _WHOLE:
        return np.asarray(value, dtype=np.int64)
    if name in _REAL:
        return np.asarray(value, dtype=np.float32)
    if name in _TEXT:
        return np.asarray(value, dtype=object)
    if name in ("value", "sparse_value"):
        return np.asarray(value)
    raise ModelError(f"attribute {name!r} is no value of a constant")
