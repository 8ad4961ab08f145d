"""Every native operator against onnx.reference and onnxruntime on small cases."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
from all_cases import CASES
from case import Case
from native import args_of, run_op

from planish.base.dtypes import DType
from planish.base.shapes import Dim, evaluate, symbol
from planish.ops.op import Arg
from planish.ops.table import OPS

NAMED = pytest.mark.parametrize("case", CASES, ids=[f"{n}-{c}" for n, c in enumerate(CASES)])


def compare(case: Case, found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        theirs = np.asarray(theirs)
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if not DType.from_numpy(ours.dtype).is_float:
            np.testing.assert_array_equal(ours, theirs)
            continue
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        scale = np.max(np.abs(b[np.isfinite(b)]), initial=1e-3)
        half = ours.dtype.itemsize == 2
        np.testing.assert_allclose(a, b, rtol=0, atol=scale * (0.01 if half else case.tolerance))


def truth(case: Case) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(ReferenceEvaluator(case.model()).run(None, case.feeds()))


@NAMED
def test_against_onnx_reference(case: Case) -> None:
    if case.truth == "ort":
        pytest.skip("onnx.reference has this one wrong; onnxruntime decides")
    args = args_of(case.inputs, case.const)
    found = run_op(case.op, case.inputs, case.attrs, args, case.outputs)
    compare(case, found, truth(case))


@NAMED
def test_against_onnxruntime(case: Case) -> None:
    ort = pytest.importorskip("onnxruntime")
    if case.truth == "onnx":
        pytest.skip("onnxruntime cannot run this one, or has it wrong")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            case.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or "invalid" in str(error):
            pytest.skip("onnxruntime has no kernel for these types")
        raise
    if any(a is not None and a.dtype.kind == "V" for a in case.inputs):
        pytest.skip("onnxruntime takes no bfloat16 arrays from NumPy")
    args = args_of(case.inputs, case.const)
    found = run_op(case.op, case.inputs, case.attrs, args, case.outputs)
    compare(replace(case, tolerance=max(case.tolerance, 1e-5)), found,
            session.run(None, case.feeds()))  # fmt: skip


@NAMED
def test_inferred_like_onnx(case: Case) -> None:
    inferred = onnx.shape_inference.infer_shapes(case.model(), data_prop=True)
    results = OPS[case.op].infer(args_of(case.inputs, case.const), case.attrs)
    for output, result in zip(inferred.graph.output, results, strict=False):
        tensor = output.type.tensor_type
        assert tensor.elem_type in (0, result.dtype.onnx)
        if tensor.HasField("shape") and result.shape is not None:
            dims = [d.dim_value for d in tensor.shape.dim if d.HasField("dim_value")]
            if len(dims) == len(tensor.shape.dim):
                assert tuple(dims) == result.shape


def symbolic_args(case: Case) -> tuple[list[Arg | None], dict[str, int]]:
    """Every size above 1 of the inputs that are no constants, as a symbol of its value."""
    args: list[Arg | None] = []
    env: dict[str, int] = {}
    for number, arg in enumerate(args_of(case.inputs, case.const)):
        if arg is not None and arg.data is None:
            dims: list[Dim] = []
            for axis, dim in enumerate(arg.shape or ()):
                assert isinstance(dim, int)
                known = dim <= 1 or (number, axis) in case.fixed
                dims.append(dim if known else symbol(f"d{dim}"))
                env[f"d{dim}"] = dim
            arg = replace(arg, shape=tuple(dims))
        args.append(arg)
    return args, env


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.symbolic], ids=[str(c) for c in CASES if c.symbolic]
)
def test_symbolic_sizes(case: Case) -> None:
    args, env = symbolic_args(case)
    fixed = OPS[case.op].infer(args_of(case.inputs, case.const), case.attrs)
    for known, result in zip(fixed, OPS[case.op].infer(args, case.attrs), strict=True):
        assert result.shape is not None
        assert known.shape == tuple(evaluate(dim, env) for dim in result.shape)
        for fact in result.facts:
            a, b = evaluate(fact.a, env), evaluate(fact.b, env)
            assert a == b or (fact.kind == "broadcast" and 1 in (a, b))
    exact = run_op(case.op, case.inputs, case.attrs, args_of(case.inputs, case.const), case.outputs)
    found = run_op(case.op, case.inputs, case.attrs, args, case.outputs, env)
    for ours, theirs in zip(found, exact, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_native_operator_has_a_case() -> None:
    native = {n for n, op in OPS.items() if op.element or op.reduce or op.nest or op.expand}
    assert native - {case.op for case in CASES} == set()
