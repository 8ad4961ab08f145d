"""Shape arithmetic and symbolic inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.shapes import Dim, evaluate, symbol
from planish.ops.op import Arg, Fact, Result, is_unknown, name_unknowns, unknown
from planish.ops.sizes import at_least, known_sizes
from planish.ops.table import OPS, refusal

B, S = symbol("batch"), symbol("tokens")


def tensor(*shape: Dim, dtype: DType = DType.F32) -> Arg:
    return Arg(dtype, shape)


def const(*values: Any, dtype: Any = np.int64) -> Arg:
    data = np.array(values[0] if len(values) == 1 else values, dtype)
    return Arg(DType.from_numpy(data.dtype), data.shape, data)


def ints(*values: int) -> Arg:
    data = np.array(values, np.int64)
    return Arg(DType.I64, data.shape, data)


def infer(op: str, *args: Arg | Result | None, **attrs: Any) -> Result:
    return OPS[op].infer([as_arg(arg) for arg in args], attrs)[0]


def as_arg(arg: Arg | Result | None) -> Arg | None:
    if isinstance(arg, Result):
        return Arg(arg.dtype, arg.shape, dims=arg.dims)
    return arg


def test_reshape_target_from_shape_arithmetic() -> None:
    """The attention heads of a BERT export: [batch, tokens, 768] to [batch, tokens, 12, 64]."""
    x = tensor(B, S, 768)
    shape = infer("Shape", x)
    assert shape.dims == (B, S, 768)
    batch = infer("Unsqueeze", infer("Gather", shape, const(0), axis=0), ints(0))
    tokens = infer("Unsqueeze", infer("Gather", shape, const(1), axis=0), ints(0))
    target = infer("Concat", batch, tokens, ints(12), ints(64), axis=0)
    assert target.dims == (B, S, 12, 64)
    y = infer("Reshape", x, target)
    assert y.shape == (B, S, 12, 64) and y.facts == ()
    assert infer("Transpose", y, perm=(0, 2, 1, 3)).shape == (B, 12, S, 64)


def test_sizes_through_arithmetic() -> None:
    shape = infer("Shape", tensor(B, S))
    doubled = infer("Mul", shape, ints(2, 2))
    assert doubled.dims == (2 * B, 2 * S)
    assert infer("Div", doubled, const(2)).dims == (B, S)
    assert infer("Add", shape, ints(1, -1)).dims == (B + 1, S - 1)
    assert infer("ReduceProd", shape, keepdims=0).dims == (B * S,)
    assert infer("Slice", shape, ints(1), ints(9)).dims == (S,)
    floats = infer("Cast", shape, to=1)
    scaled = infer("Floor", infer("Mul", floats, const(2.0, dtype=np.float32)))
    assert infer("Cast", scaled, to=7).dims == (2 * B, 2 * S)
    kept = infer("Where", infer("Equal", shape, ints(-1, -1)), ints(1, 1), shape)
    assert kept.dims == (B, S)
    assert infer("Max", shape, ints(1, 1)).dims == (B, S)


def test_two_symbols_broadcast_to_their_maximum_and_leave_a_fact() -> None:
    result = infer("Add", tensor(B, 4), tensor(S, 1))
    assert result.shape is not None
    assert result.facts == (Fact("broadcast", B, S),)
    assert evaluate(result.shape[0], {"batch": 1, "tokens": 7}) == 7
    assert infer("Add", tensor(B, 4), tensor(3, 4)).shape == (3, 4)


def test_convolution_and_pool_sizes() -> None:
    height = symbol("h")
    same = infer("Conv", tensor(B, 3, height, height), tensor(8, 3, 3, 3), pads=(1, 1, 1, 1))
    assert same.shape == (B, 8, height, height)
    attrs = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
    pooled = infer("MaxPool", same, **attrs)
    assert pooled.shape is not None
    assert evaluate(pooled.shape[2], {"h": 7}) == 4
    assert infer("GlobalAveragePool", pooled).shape == (B, 8, 1, 1)
    assert infer("Flatten", infer("GlobalAveragePool", pooled)).shape == (B, 8)


def test_slices_of_symbolic_axes_add_up() -> None:
    first = infer("Slice", tensor(B, S), ints(0), ints(1), ints(1))
    rest = infer("Slice", tensor(B, S), ints(1), ints(2**63 - 1), ints(1))
    assert rest.shape == (B, S - 1)
    assert infer("Concat", first, rest, axis=1).shape == (B, S)


def test_data_dependent_sizes_get_names_of_their_own() -> None:
    (result,) = OPS["NonZero"].infer([tensor(B, S)], {})
    assert result.shape == (2, unknown(0))
    (named,) = name_unknowns([result], "mask")
    assert named.shape is not None and named.shape[1] != unknown(0)
    assert is_unknown(str(named.shape[1]))
    assert name_unknowns([named], "again") == [named]
    assert not at_least(named.shape[1], 1) and at_least(B, 1)


def test_constants_are_read_as_sizes() -> None:
    assert known_sizes(ints(3, 4)) == (3, 4)
    assert known_sizes(const(2.0, dtype=np.float32)) == (2,)
    assert known_sizes(const(2.5, dtype=np.float32)) is None
    assert known_sizes(tensor(2, dtype=DType.I64)) is None


@pytest.mark.parametrize(
    ("op", "args", "attrs", "words"),
    [
        ("Add", [tensor(2, 3), tensor(4)], {}, "do not broadcast"),
        ("Add", [tensor(2), tensor(2, dtype=DType.I64)], {}, "one dtype"),
        ("MatMul", [tensor(2, 3), tensor(4, 5)], {}, "3 and 4"),
        ("Conv", [tensor(1, 3, 8, 8), tensor(4, 5, 3, 3)], {}, "3 and 5"),
        ("Conv", [tensor(1, 3, 2, 8), tensor(4, 3, 3, 3)], {}, "does not fit"),
        ("Reshape", [tensor(2, 3), ints(4, 2)], {}, "6 elements"),
        ("Concat", [tensor(2, 3), tensor(3, 3)], {"axis": 1}, "2 and 3"),
        ("Gather", [tensor(3, 2), ints(5)], {}, "expected -3 to 2"),
        ("Softmax", [tensor(3, 2)], {"axis": 2}, "axis is 2"),
        ("Transpose", [tensor(3, 2)], {"perm": (0, 0)}, "twice"),
        ("Squeeze", [tensor(3, 2), ints(0)], {}, "expected size 1"),
        ("Relu", [tensor(3, dtype=DType.BOOL)], {}, "is bool"),
        ("Resize", [tensor(3), None, ints(1)], {"mode": "area"}, "nearest, linear, cubic"),
        ("Slice", [tensor(3), ints(0), ints(1), ints(0), ints(0)], {}, "step is 0"),
    ],
)
def test_errors_say_what_was_expected(
    op: str, args: Sequence[Arg | None], attrs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        OPS[op].infer(args, attrs)


def test_refusals() -> None:
    def why(op: str, *args: Arg | None, **attrs: Any) -> str | None:
        return refusal(OPS[op], args, attrs, OPS[op].infer(args, attrs))

    assert why("Add", tensor(2), tensor(2)) is None
    assert "no native form" in str(why("NonZero", tensor(2)))
    assert "str" in str(why("Identity", tensor(2, dtype=DType.STRING)))
    assert "rank of input 0" in str(why("Relu", Arg(DType.F32, None)))
    assert "computed at run time" in str(why("Reshape", tensor(6), tensor(2, dtype=DType.I64)))


def test_flops() -> None:
    conv = OPS["Conv"]
    assert conv.flops is not None
    args = [tensor(B, 3, 8, 8), tensor(4, 3, 3, 3)]
    assert conv.flops(args, {"pads": (1, 1, 1, 1)}) == B * 4 * 64 * 27 * 2
