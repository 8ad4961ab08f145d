"""Types as ONNX states them → types of values; ONNX's own inference as a further source of them."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, TypeProto, helper

from planish.base.dtypes import DType
from planish.base.shapes import Dim, symbol
from planish.graph.graph import TensorType, Value
from planish.graph.infer import MOST_ELEMENTS
from planish.ops.op import is_unknown

UNTYPED = TensorType(DType.OBJECT, None)  # no tensor, or nothing tells its type
_SMALL = 4096  # bytes of a stored tensor that may hold sizes


def type_of(proto: TypeProto, name: str, named: Collection[str] = ()) -> TensorType:
    """The type of a value; unnamed sizes are called after the value.

    Args:
        proto: What the model states.
        name: Of the value.
        named: Sizes that the model names somewhere, see `dim_names`.

    Raises:
        ValueError: The element type is unknown, or a size is impossible.
    """
    if proto.WhichOneof("value") != "tensor_type":
        return UNTYPED
    tensor = proto.tensor_type
    if tensor.elem_type == TensorProto.UNDEFINED:
        return UNTYPED
    try:
        dtype = DType.from_onnx(tensor.elem_type)
    except KeyError:
        raise ValueError(f"element type {tensor.elem_type} is not known") from None
    if not tensor.HasField("shape"):
        return TensorType(dtype, None)
    dims: list[Dim] = []
    for number, dim in enumerate(tensor.shape.dim):
        if dim.dim_value > MOST_ELEMENTS:
            raise ValueError(f"size {dim.dim_value}, expected {MOST_ELEMENTS} at most")
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            dims.append(int(dim.dim_value))
        else:  # exporters write -1, too, where a size is not known
            dims.append(symbol(_own(dim.dim_param) or _made_up(f"{name}_dim{number}", named)))
    if math.prod(dim for dim in dims if isinstance(dim, int)) > MOST_ELEMENTS:
        raise ValueError(f"shape {dims}, expected {MOST_ELEMENTS} elements at most")
    return TensorType(dtype, tuple(dims))


def _own(name: str) -> str:
    """A size as the model calls it, apart from what planish calls sizes that depend on data."""
    return f"model {name}" if is_unknown(name) else name


def _made_up(name: str, named: Collection[str]) -> str:
    while name in named:
        name += "_"
    return name


def dim_names(graph: GraphProto) -> set[str]:
    """The names that a graph and the bodies in it give to sizes."""
    found: set[str] = set()
    for info in (*graph.input, *graph.output, *graph.value_info):
        found |= {dim.dim_param for dim in info.type.tensor_type.shape.dim}
    for node in graph.node:
        for attr in node.attribute:
            if attr.type == AttributeProto.GRAPH:
                found |= dim_names(attr.g)
    return found


def proto_of(value: Value | None) -> TypeProto:
    """The ONNX type of a value, as far as it is known."""
    if value is None or value.dtype is DType.OBJECT:
        return TypeProto()
    shape = value.type.shape
    dims = None if shape is None else [d if isinstance(d, int) else str(d) for d in shape]
    return helper.make_tensor_type_proto(value.dtype.onnx, dims)


def infer_onnx_types(model: ModelProto, kept: Collection[str] = ()) -> dict[str, TypeProto]:
    """What ONNX's own type inference finds, by name; {} where it gives up.

    It gets a copy without the large weights, whose contents it never needs.

    Args:
        model: The model.
        kept: Inputs whose stored values count for nothing.
    """
    light = ModelProto()
    light.ir_version = max(model.ir_version, 4)  # weights need not be listed as inputs
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if tensor.name in kept:
            continue
        if tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() <= _SMALL:
            graph.initializer.append(tensor)
        else:
            stated = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(stated)
    try:
        made = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except Exception:  # it throws what it likes; its findings are only a supplement
        return {}
    return {v.name: v.type for v in (*made.graph.value_info, *made.graph.output)}
