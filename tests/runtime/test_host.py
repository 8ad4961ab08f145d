"""Steps on the host: values, shapes that depend on data, tensors of unknown rank, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import tiny_plans as tiny
from onnx import TensorProto, helper

from planish.base.dtypes import DType
from planish.base.errors import PlanFileError, PlanishError
from planish.base.shapes import symbol
from planish.plan import HeapBuffer, HostStep, HostTensor, Plan, Ref
from planish.runtime import Engine

N, M = tiny.N, symbol("M")
X, Y = tiny.X, tiny.Y


def host(
    op: str,
    inputs: list[HostTensor | None],
    outputs: list[HostTensor | None],
    **attributes: Any,
) -> HostStep:
    """A host step of one ai.onnx operator."""
    names_in = [f"i{n}" if operand else "" for n, operand in enumerate(inputs)]
    names_out = [f"o{n}" if operand else "" for n, operand in enumerate(outputs)]
    node = helper.make_node(op, names_in, names_out, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [_info(n, o) for n, o in zip(names_in, inputs, strict=True) if o],
        [_info(n, o) for n, o in zip(names_out, outputs, strict=True) if o],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return HostStep(
        name=f"{op}_0",
        origin=(f"my/{op}",),
        op=op,
        model=model.SerializeToString(),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        reason="a test",
    )


def _info(name: str, operand: HostTensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, operand.dtype.onnx, None)


def f32(ref: Ref, *shape: Any) -> HostTensor:
    return HostTensor(ref, DType.F32, shape)


def test_between_native_steps() -> None:
    a, b = Ref("arena", 0, 0), Ref("arena", 0, 400)
    steps = [
        tiny.step("add1", [X, a], N),
        host("Neg", [f32(a, N)], [f32(b, N)]),
        tiny.step("add1", [b, Y], N, group=1),
    ]
    with Engine(tiny.plan(steps, arena=800), threads=2) as engine:
        for size in (3, 100, 3):
            x = tiny.ramp(size)
            assert np.array_equal(engine(x), 1 - (x + 1))
            out = np.empty(size, np.float32)
            assert engine.run({"x": x}, {"y": out})["y"] is out
            assert np.array_equal(out, -x)


def test_optional_operands_and_weights() -> None:
    low = HostTensor(Ref("weight", 0), DType.F32, ())
    step = host("Clip", [f32(X, N), low, None], [f32(Y, N)])
    with Engine(tiny.plan([step], weights=(np.array(2, np.float32),))) as engine:
        assert engine(tiny.ramp(4)).tolist() == [2, 2, 2, 3]


def data_dependent(**fields: Any) -> Plan:
    """y[M] = x[x != 0] + 1 by NonZero, GatherND on the host and a native step on what they gave."""
    places, values = Ref("heap", 0), Ref("heap", 1)
    row = HostTensor(places, DType.I64, (1, M))
    column = HostTensor(places, DType.I64, (M, 1))
    steps = [
        host("NonZero", [f32(X, N)], [row]),
        host("Transpose", [row], [column], perm=[1, 0]),
        host("GatherND", [f32(X, N), column], [f32(values, M)]),
        tiny.step("add1", [values, Y], M),
    ]
    heap = (HeapBuffer(8 * M), HeapBuffer(4 * M))
    return tiny.plan(steps, outputs=[("y", (M,))], heap=heap, **fields)


def test_shapes_from_data() -> None:
    with Engine(data_dependent(), threads=2) as engine:
        for x in ([0, 5, 0, 7], [1, 2, 3, 4], [0, 0, 0, 0], [0, 0, 3, 0]):
            given = np.array(x, np.float32)
            assert np.array_equal(engine(given), given[given != 0] + 1)
        out = np.empty(2, np.float32)
        assert engine.run({"x": np.array([0, 5, 0, 7], np.float32)}, {"y": out})["y"] is out
        assert out.tolist() == [6, 8]
        with pytest.raises(PlanishError, match=r"expected a buffer of shape \[1\], found \[2\]"):
            engine.run({"x": np.array([0, 5, 0, 0], np.float32)}, {"y": out})
        assert engine.memory()["heap_peak"] >= 4 * 12


def test_unknown_rank() -> None:
    loose = HostTensor(Ref("heap", 0), DType.F32, None)
    steps = [
        host("Squeeze", [HostTensor(X, DType.F32, (N, M))], [loose]),
        host("ReduceSum", [loose], [f32(Y)], keepdims=0),
    ]
    plan = tiny.plan(steps, inputs=[("x", (N, M))], outputs=[("y", ())], heap=(HeapBuffer(0),))
    with Engine(plan) as engine:
        for shape in ((1, 3), (2, 3), (1, 1)):
            assert engine(np.ones(shape, np.float32)) == shape[0] * shape[1]


def test_errors_name_the_node() -> None:
    step = host("Reshape", [f32(X, N), HostTensor(Ref("weight", 0), DType.I64, (1,))], [f32(Y, N)])
    with Engine(tiny.plan([step], weights=(np.array([7]),))) as engine:
        assert np.array_equal(engine(tiny.ramp(7)), tiny.ramp(7))
        with pytest.raises(PlanishError, match=r"host step 'Reshape_0' \(Reshape; ONNX my/Reshape"):
            engine(tiny.ramp(6))
        assert np.array_equal(engine(tiny.ramp(7)), tiny.ramp(7))


def test_a_shape_that_the_plan_does_not_expect() -> None:
    with (
        Engine(
            tiny.plan([host("Neg", [f32(X, N)], [f32(Y, N + 1)])], outputs=[("y", (N + 1,))])
        ) as e,
        pytest.raises(PlanishError, match=r"gave shape \[3\], the plan expects \[N\+1\]"),
    ):
        e(tiny.ramp(3))
    step = host("Shape", [f32(X, N)], [f32(Y, 1)])
    with Engine(tiny.plan([step], outputs=[("y", (1,))])) as engine:
        assert engine(tiny.ramp(3)).tolist() == [3]  # i64 to f32 is a same-kind cast for NumPy
    step = host("IsNaN", [f32(X, N)], [HostTensor(Ref("arena", 0), DType.I8, (N,))])
    with Engine(tiny.plan([step], arena=100)) as engine:
        assert engine(tiny.ramp(3)) is not None


def test_operands_outside_their_memory() -> None:
    step = host("Neg", [f32(X, N)], [f32(Ref("arena", 0, 8), N)])
    with (
        Engine(tiny.plan([step], arena=100)) as engine,
        pytest.raises(PlanFileError, match="do not fit the 92 of arena 0"),
    ):
        engine(tiny.ramp(24))


def test_models_that_are_no_models() -> None:
    good = host("Neg", [f32(X, N)], [f32(Y, N)])
    for model in (b"", b"\xff\xff", b"junk"):
        broken = HostStep(
            good.name, good.origin, good.op, model, good.inputs, good.outputs, good.reason
        )
        with Engine(tiny.plan([broken])) as engine, pytest.raises(PlanishError, match="Neg_0"):
            engine(tiny.ramp(3))


def test_inputs_and_weights_are_read_only() -> None:
    """An operator of the reference that writes to its operand must not change the caller's data."""
    x = tiny.ramp(4)
    with Engine(tiny.plan([host("Relu", [f32(X, N)], [f32(Y, N)])])) as engine:
        engine(x)
    assert np.array_equal(x, tiny.ramp(4))


def test_tensor_types_beyond_the_kernels() -> None:
    """Complex and 8-bit floats live in host steps only."""
    assert DType.F8E4M3FN.onnx == TensorProto.FLOAT8E4M3FN
    ref = Ref("arena", 0)
    cast = host("Cast", [f32(X, N)], [HostTensor(ref, DType.F8E4M3FN, (N,))], to=17)
    back = host("Cast", [HostTensor(ref, DType.F8E4M3FN, (N,))], [f32(Y, N)], to=1)
    with Engine(tiny.plan([cast, back], arena=100)) as engine:
        assert engine(np.array([1.05, 300], np.float32)).tolist() == [1.0, 288.0]
