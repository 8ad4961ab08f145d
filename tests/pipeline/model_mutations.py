"""Small valid models to start from, and ways to spoil or bend them; all from a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import small_models
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx import numpy_helper as arrays

import onnx_suite

# What onnx's helpers, its schemas and NumPy raise where a mutation makes no sense.
_IMPOSSIBLE = (
    IndexError, ValueError, TypeError, KeyError, OverflowError, NotImplementedError,
    onnx.defs.SchemaError,
)  # fmt: skip
_LARGEST = 20_000  # bytes of a model that is taken from the suite
_SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 17, -1, 1000, 2**31, 2**62)
_INTS = (-(2**63), -(2**31), -3, -2, -1, 0, 1, 2, 3, 4, 7, 100, 2**31, 2**63 - 1)
_REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-9, 1e30, float("inf"), float("nan"))
_WORDS = (
    "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "constant", "reflect", "edge", "wrap", "linear",
    "cubic", "nearest", "floor", "align_corners", "half_pixel", "asymmetric", "add", "mul", "none",
    "forward", "reverse", "bidirectional", "tanh", "DCR", "CRD", "", "ij,jk->ik", "...i->i", "?",
)  # fmt: skip
_UNARY = (
    "Abs", "Neg", "Relu", "Sigmoid", "Tanh", "Exp", "Sqrt", "Erf", "Softmax", "Transpose", "Shape",
    "Identity", "Flatten", "GlobalAveragePool", "HardSwish", "Gelu", "Not", "Floor", "ArgMax",
    "ReduceMean", "ReduceMax", "LogSoftmax", "Size", "NonZero", "Squeeze", "Det", "IsNaN", "Round",
)  # fmt: skip
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "MatMul", "Gather", "Equal", "Expand",
           "Less", "Mod", "Concat", "Reshape", "And", "Tile", "PRelu", "Gemm")  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """A valid model, and inputs that suit it, where it came with some."""

    name: str
    model: bytes
    feeds: dict[str, np.ndarray] = field(default_factory=dict)


def seeds() -> list[Seed]:
    """Small networks, and the node cases of ONNX's own suite."""
    made = [
        Seed(name, small_models.model(text).SerializeToString())
        for name, text in sorted(small_models.MODELS.items())
    ]
    for name, case in onnx_suite.cases("node").items():
        model = case.model
        if model is None or model.ByteSize() > _LARGEST:
            continue
        feeds = {}
        for inputs, _ in case.data_sets or ():
            for info, value in zip(model.graph.input, inputs, strict=False):
                array = arrays.to_array(value) if isinstance(value, TensorProto) else value
                if isinstance(array, np.ndarray):
                    feeds[info.name] = array
        made.append(Seed(name, model.SerializeToString(), feeds))
    return made


def mutant(number: int, known: list[Seed]) -> tuple[str, bytes, dict[str, np.ndarray]]:
    """The case of a number: what was done to which model, the model's bytes, suitable inputs."""
    dice = random.Random(number)
    seed = dice.choice(known if dice.random() < 0.7 else known[: len(small_models.MODELS)])
    model = onnx.load_from_string(seed.model)
    done = [seed.name]
    for _ in range(dice.choice((1, 1, 2, 3))):
        change = dice.choices([c for c, _ in _CHANGES], [w for _, w in _CHANGES])[0]
        try:
            change(model, dice, known)
        except _IMPOSSIBLE:
            continue  # nothing of that kind is in the model, or protobuf itself refuses
        done.append(change.__name__.strip("_"))
    data = model.SerializeToString()
    if dice.random() < 0.1:
        data = _spoiled(data, dice)
        done.append("bytes")
    return " ".join(done), data, seed.feeds


def _spoiled(data: bytes, dice: random.Random) -> bytes:
    spoiled = bytearray(data)
    if dice.random() < 0.3:
        return bytes(spoiled[: dice.randrange(len(spoiled))])
    for _ in range(dice.randint(1, 4)):
        spoiled[dice.randrange(len(spoiled))] = dice.randrange(256)
    return bytes(spoiled)


# ---- attributes ---------------------------------------------------------------------------------


def _change_attribute(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    attr = dice.choice([a for node in _nodes(model.graph) for a in node.attribute])
    if attr.type == AttributeProto.INT:
        attr.i = dice.choice((*_INTS, attr.i + 1, attr.i - 1, -attr.i))
    elif attr.type == AttributeProto.FLOAT:
        attr.f = dice.choice((*_REALS, -attr.f, attr.f * 2))
    elif attr.type == AttributeProto.STRING:
        attr.s = dice.choice(_WORDS).encode()
    elif attr.type == AttributeProto.INTS:
        _change_list(attr.ints, dice, _INTS)
    elif attr.type == AttributeProto.FLOATS:
        _change_list(attr.floats, dice, _REALS)
    elif attr.type == AttributeProto.TENSOR:
        _spoil_tensor(attr.t, dice)
    else:
        attr.type = dice.randint(0, 14)


def _change_list(values: list[int] | list[float], dice: random.Random, pool: tuple) -> None:
    what = dice.random()
    if what < 0.2:
        values.append(dice.choice(pool))
    elif what < 0.4:
        del values[dice.randrange(len(values))]
    elif what < 0.6:
        left, right = dice.randrange(len(values)), dice.randrange(len(values))
        values[left], values[right] = values[right], values[left]
    elif what < 0.8:
        values[dice.randrange(len(values))] += dice.choice((-1, 1))
    else:
        values[dice.randrange(len(values))] = dice.choice(pool)


def _drop_attribute(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    node = dice.choice([node for node in _nodes(model.graph) if node.attribute])
    del node.attribute[dice.randrange(len(node.attribute))]


def _add_attribute(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    node = dice.choice(list(_nodes(model.graph)))
    schema = onnx.defs.get_schema(node.op_type, node.domain)
    present = {attr.name for attr in node.attribute}
    row = schema.attributes[dice.choice([n for n in schema.attributes if n not in present])]
    kinds = onnx.defs.OpSchema.AttrType
    value: object = {
        kinds.INT: dice.choice((-1, 0, 1, 2, 3)),
        kinds.FLOAT: dice.choice(_REALS),
        kinds.STRING: dice.choice(_WORDS),
        kinds.INTS: [dice.choice((0, 1, 2, -1)) for _ in range(dice.randint(1, 4))],
        kinds.FLOATS: [dice.choice(_REALS) for _ in range(dice.randint(1, 4))],
    }[row.type]
    node.attribute.append(helper.make_attribute(row.name, value))


# ---- types and data -----------------------------------------------------------------------------


def _tensor_types(model: ModelProto, dice: random.Random) -> onnx.TypeProto.Tensor:
    pool = list(model.graph.input) * 3 + list(model.graph.output) + list(model.graph.value_info)
    return dice.choice([v.type.tensor_type for v in pool if v.type.HasField("tensor_type")])


def _change_dim(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    dims = _tensor_types(model, dice).shape.dim
    what = dice.random()
    if what < 0.1:
        dims.add().dim_value = dice.choice(_SIZES)
    elif what < 0.2:
        del dims[dice.randrange(len(dims))]
    elif what < 0.4:
        dice.choice(dims).dim_param = dice.choice(("N", "M", "a-b", "class", ""))
    else:
        dice.choice(dims).dim_value = dice.choice(_SIZES)


def _change_dtype(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    _tensor_types(model, dice).elem_type = dice.randint(0, 24)


def _forget_shape(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    _tensor_types(model, dice).ClearField("shape")


def _name_sizes(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    """Sizes become symbols, equal ones the same; nothing is stated of the outputs."""
    chosen = {size for size in range(1, 20) if dice.random() < 0.5}
    for info in model.graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_value in chosen:
                dim.dim_param = f"s{dim.dim_value}"
    for info in (*model.graph.output, *model.graph.value_info):
        info.type.tensor_type.ClearField("shape")


def _spoil_weight(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    _spoil_tensor(dice.choice(model.graph.initializer), dice)


def _spoil_tensor(tensor: TensorProto, dice: random.Random) -> None:
    what = dice.randrange(4)
    if what == 0:
        tensor.data_type = dice.randint(0, 24)
    elif what == 1:
        tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(_SIZES)
    elif what == 2:
        tensor.raw_data = tensor.raw_data[: dice.randrange(len(tensor.raw_data))]
    else:
        array = np.array(arrays.to_array(tensor))
        pool = _REALS if array.dtype.kind == "f" else _INTS
        flat = array.reshape(-1)
        flat[dice.randrange(flat.size)] = dice.choice(pool)
        tensor.CopyFrom(arrays.from_array(array, tensor.name))


def _weight_of_input(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    """A constant in place of an input, which may stay listed as one."""
    number = dice.randrange(len(model.graph.input))
    info = model.graph.input[number]
    kind = info.type.tensor_type
    shape = [d.dim_value or 2 for d in kind.shape.dim]
    if np.prod(shape) > 1e6:
        return
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    data = np.random.default_rng(dice.randrange(99)).integers(0, 3, shape).astype(dtype)
    model.graph.initializer.append(arrays.from_array(data, info.name))
    if dice.random() < 0.7:
        del model.graph.input[number]


def _input_of_weight(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    number = dice.randrange(len(model.graph.initializer))
    stored = model.graph.initializer[number]
    info = helper.make_tensor_value_info(stored.name, stored.data_type, stored.dims)
    model.graph.input.append(info)
    if dice.random() < 0.8:
        del model.graph.initializer[number]


# ---- nodes --------------------------------------------------------------------------------------


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the bodies in it."""
    for node in graph.node:
        yield node
        for attr in node.attribute:
            if attr.type == AttributeProto.GRAPH:
                yield from _nodes(attr.g)


def _values(graph: GraphProto) -> list[str]:
    names = [info.name for info in graph.input]
    names += [tensor.name for tensor in graph.initializer]
    return names + [name for node in graph.node for name in node.output if name]


def _rewire(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    node = dice.choice(list(_nodes(model.graph)))
    what = dice.random()
    if what < 0.5:
        node.input[dice.randrange(len(node.input))] = dice.choice(_values(model.graph))
    elif what < 0.6:
        node.input[dice.randrange(len(node.input))] = dice.choice(("", "nobody"))
    elif what < 0.7:
        node.input.append(dice.choice(_values(model.graph)))
    elif what < 0.8:
        del node.input[dice.randrange(len(node.input))]
    elif what < 0.9:
        left, right = dice.randrange(len(node.input)), dice.randrange(len(node.input))
        node.input[left], node.input[right] = node.input[right], node.input[left]
    else:
        node.output[dice.randrange(len(node.output))] = dice.choice([*_values(model.graph), ""])


def _replace_operator(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    node = dice.choice(list(_nodes(model.graph)))
    pool = _UNARY if len(node.input) == 1 else _BINARY
    if dice.random() < 0.3:
        pool = tuple(schema.name for schema in onnx.defs.get_all_schemas())
    node.op_type = dice.choice(pool)
    if dice.random() < 0.7:
        del node.attribute[:]


def _append_operator(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    """A node behind some values, its result one more output."""
    graph = model.graph
    pool, count = (_UNARY, 1) if dice.random() < 0.5 else (_BINARY, 2)
    made = f"made{len(graph.node)}"
    inputs = [dice.choice(_values(graph)) for _ in range(count)]
    op = dice.choice(pool)
    attrs = {"axis": dice.choice((0, 1, -1))} if op == "Concat" else {}
    graph.node.append(helper.make_node(op, inputs, [made], **attrs))
    if dice.random() < 0.3:
        del graph.output[:]
    graph.output.append(onnx.ValueInfoProto(name=made))


def _drop_node(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    del model.graph.node[dice.randrange(len(model.graph.node))]


def _copy_node(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    copy = NodeProto()
    copy.CopyFrom(dice.choice(model.graph.node))
    if dice.random() < 0.8:
        for number, name in enumerate(copy.output):
            copy.output[number] = f"{name}.copy" if name else ""
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in copy.output if name)
    model.graph.node.append(copy)


def _shuffle_nodes(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    nodes = list(model.graph.node)
    dice.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _chain(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    """Another network whose first input is an output of this one."""
    other = onnx.load_from_string(dice.choice(known).model)
    for node in _nodes(other.graph):
        node.input[:] = [name and f"b.{name}" for name in node.input]
        node.output[:] = [name and f"b.{name}" for name in node.output]
        for attr in node.attribute:
            for info in (*attr.g.input, *attr.g.output, *attr.g.initializer):
                info.name = f"b.{info.name}"
    for info in (*other.graph.input, *other.graph.output, *other.graph.initializer):
        info.name = f"b.{info.name}"
    joint = other.graph.input[0].name
    model.graph.node.add(
        op_type="Identity", input=[dice.choice(model.graph.output).name], output=[joint]
    )
    model.graph.node.extend(other.graph.node)
    model.graph.initializer.extend(other.graph.initializer)
    model.graph.input.extend(other.graph.input[1:])
    model.graph.output.extend(other.graph.output)


# ---- the file -----------------------------------------------------------------------------------


def _change_opset(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    entry = dice.choice(model.opset_import)
    entry.version = dice.choice((0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 16, 18, 21, 99))
    if dice.random() < 0.1:
        entry.domain = dice.choice(("", "ai.onnx.ml", "com.microsoft", "x"))


def _change_outputs(model: ModelProto, dice: random.Random, known: list[Seed]) -> None:
    outputs = model.graph.output
    what = dice.random()
    if what < 0.3:
        del outputs[dice.randrange(len(outputs))]
    elif what < 0.8:
        outputs.append(onnx.ValueInfoProto(name=dice.choice(_values(model.graph))))
    else:
        dice.choice(outputs).name = "nobody"


Change = Callable[[ModelProto, random.Random, list[Seed]], None]

_CHANGES: tuple[tuple[Change, int], ...] = (
    (_change_attribute, 6),
    (_drop_attribute, 2),
    (_add_attribute, 3),
    (_change_dim, 4),
    (_change_dtype, 2),
    (_forget_shape, 1),
    (_name_sizes, 4),
    (_spoil_weight, 2),
    (_weight_of_input, 4),
    (_input_of_weight, 2),
    (_rewire, 4),
    (_replace_operator, 4),
    (_append_operator, 6),
    (_drop_node, 1),
    (_copy_node, 1),
    (_shuffle_nodes, 1),
    (_chain, 4),
    (_change_opset, 2),
    (_change_outputs, 2),
)
