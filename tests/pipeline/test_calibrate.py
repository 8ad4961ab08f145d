"""Calibration and int8 builds of small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish
from planish.base.errors import BuildError, InputError
from planish.pipeline.calibrate import calibrate_model
from planish.plan import Plan
from planish.quantize.record import Calibration, parse_calibration, read_calibration
from planish.quantize.settings import make_settings

_RANDOM = np.random.default_rng(7)
_CHEAP = make_settings("max", correct_biases=False, equalise=False)


def network(batch: str | int = "N") -> onnx.ModelProto:
    """Conv, depthwise Conv, residual Add, pool, Gemm."""
    random = np.random.default_rng(1)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        fan = int(np.prod(shape[1:]))
        data = random.standard_normal(shape) * np.sqrt(2 / fan)
        return numpy_helper.from_array(data.astype(np.float32), name)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], "c0", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"], "r0"),
        node("Conv", ["r0", "w1", "b1"], ["c1"], "c1", pads=[1, 1, 1, 1], group=8),
        node("Relu", ["c1"], ["r1"], "r1"),
        node("Conv", ["r1", "w2"], ["c2"], "c2"),
        node("Add", ["c2", "r0"], ["a"], "a"),
        node("GlobalAveragePool", ["a"], ["g"], "g"),
        node("Flatten", ["g"], ["f"], "f"),
        node("Gemm", ["f", "w3", "b3"], ["y"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [
            weights("w0", 8, 3, 3, 3),
            weights("b0", 8),
            weights("w1", 8, 1, 3, 3),
            weights("b1", 8),
            weights("w2", 8, 8, 1, 1),
            weights("w3", 8, 5),
            weights("b3", 5),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SAMPLES = [_RANDOM.standard_normal((3, 6, 6)).astype(np.float32) for _ in range(9)]
TEST = _RANDOM.standard_normal((1, 3, 6, 6)).astype(np.float32)


def run(plan: Plan, x: np.ndarray = TEST) -> np.ndarray:
    with planish.Engine(plan) as engine:
        return engine.run({"x": x})["y"]


def build(calibration: object, batch: str | int = 1, **options: object) -> Plan:
    return planish.build(
        network(batch), precision="int8", calibration=calibration, level=0, **options
    )


@pytest.fixture(scope="module")
def calibrated() -> Calibration:
    return calibrate_model(network(1), SAMPLES)


def test_an_int8_plan_is_near_the_float_plan(calibrated: Calibration) -> None:
    exact = run(planish.build(network(1), level=0))
    plan = build(calibrated)
    assert np.abs(run(plan) - exact).max() < 0.05 * np.abs(exact).max()
    assert any("u8" in getattr(step, "workload", "") for step in plan.steps)


def test_order_and_batches_do_not_matter(calibrated: Calibration) -> None:
    backwards = calibrate_model(network("N"), SAMPLES[::-1])
    batches = [np.stack(SAMPLES[:4]), np.stack(SAMPLES[4:])]
    batched = calibrate_model(network("N"), batches)
    assert backwards.text() == batched.text()
    assert batched.rows == calibrated.rows


def test_a_fixed_batch_sees_the_same_ranges() -> None:
    single = calibrate_model(network(1), SAMPLES, _CHEAP)
    filled = calibrate_model(network(4), SAMPLES, _CHEAP)  # the last batch is filled up
    assert [row.value for row in single.rows] == [row.value for row in filled.rows]
    for one, many in zip(single.rows, filled.rows, strict=True):
        assert many.high == pytest.approx(one.high, rel=1e-5)
    assert (single.samples, filled.samples) == (9, 9)


def test_weights_are_rounded_by_what_results_lose(calibrated: Calibration) -> None:
    exact, plain = (calibrate_model(network(1), SAMPLES, make_settings(round_weights=name))
                    for name in ("hessian", "nearest"))  # fmt: skip
    assert exact.text() == calibrated.text()
    assert not plain.roundings
    assert "c2" in calibrated.roundings
    floats = planish.build(network(1), level=0)
    errors = []
    for made in (exact, plain):
        plan = build(made)
        errors.append(sum(float(np.sum((run(plan, x[None]) - run(floats, x[None])) ** 2))
                          for x in SAMPLES))  # fmt: skip
    assert errors[0] < errors[1]


def test_roundings_that_a_file_does_not_have(calibrated: Calibration) -> None:
    lines = calibrated.text().splitlines()
    none = [line for line in lines if "\t" not in line or len(line.split("\t")[1]) < 17]
    assert parse_calibration("\n".join(none)).roundings == {}
    mixed = replace(calibrated, roundings={"c0": calibrated.roundings["c2"]})
    with pytest.raises(BuildError, match="rounds other weights of 'c0' than these"):
        build(mixed)


def test_a_saved_calibration_gives_the_same_plan(calibrated: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "small.calibration"
    calibrated.save(path)
    assert np.array_equal(run(build(path)), run(build(calibrated)))
    assert np.array_equal(run(build(str(path))), run(build(SAMPLES)))


def test_inputs_are_spread_as_the_file_says(calibrated: Calibration, tmp_path: Path) -> None:
    low, high = calibrated.inputs["x"]
    data = np.stack(SAMPLES)
    assert np.array_equal(low, np.minimum(data.min(axis=(0, 2, 3)), 0.0))
    assert np.array_equal(high, data.max(axis=(0, 2, 3)))
    again = parse_calibration(calibrated.text())
    assert again.text() == calibrated.text()
    plain = calibrate_model(network(1), SAMPLES, make_settings(spread_inputs=False))
    assert not plain.inputs
    assert not np.array_equal(run(build(plain)), run(build(calibrated)))


def test_an_edited_range_is_used(calibrated: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "small.calibration"
    calibrated.save(path)
    row = read_calibration(path).row("r0")
    assert row is not None
    text = path.read_text().replace(repr(row.high), repr(row.high / 8))
    path.write_text(text)
    assert not np.array_equal(run(build(path)), run(build(calibrated)))


def test_a_calibration_of_another_network(calibrated: Calibration) -> None:
    text = calibrated.text().replace(calibrated.model, "0" * 64)
    with pytest.raises(BuildError, match="made for the network 0000"):
        build(parse_calibration(text))


def test_nothing_to_calibrate_with() -> None:
    with pytest.raises(BuildError, match="there is no calibration"):
        build(None)
    with pytest.raises(BuildError, match="precision is 'fp32'"):
        planish.build(network(1), calibration=SAMPLES, level=0)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_odd_data_are_named(odd: float) -> None:
    broken = SAMPLES[2].copy()
    broken[0, 0, 0] = odd
    with pytest.raises(InputError, match="value 'x' of sample 2: expected finite numbers"):
        calibrate_model(network(1), [*SAMPLES[:2], broken], _CHEAP)


def test_layers_that_stay_in_floats(calibrated: Calibration) -> None:
    plan = build(calibrated, layer_precisions={"c*": "fp32"})
    layers = {name: (precision, why) for name, _, precision, why, _ in _layers(plan)}
    assert layers["c1"] == ("fp32", "the user wants it so")
    assert all(precision == "fp32" for name, (precision, _) in layers.items() if name[0] == "c")
    mixed = build(calibrated, layer_precisions={"*": "fp32", "c2": "int8"})
    assert [row[0] for row in _layers(mixed) if row[2] == "int8"] == ["c2"]


def test_the_plan_tells_what_was_done(calibrated: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "small.plan"
    build(calibrated).save(path)
    with planish.load(path) as engine:
        record = engine.plan.provenance["quantization"]
    assert record["samples"] == 9
    assert record["data"] == calibrated.data
    assert "observer:*=auto" in record["settings"]
    assert {row[0] for row in record["layers"]} >= {"c0", "c1", "c2"}


@pytest.mark.parametrize("observer", ["max", "percentile", "mse", "entropy"])
def test_observers_are_chosen_by_pattern(observer: str) -> None:
    settings = make_settings({"*": "max", "r0": observer}, correct_biases=False)
    made = calibrate_model(network(1), SAMPLES, settings)
    rows = {row.value: row.observer for row in made.rows}
    assert rows["r0"] == observer
    assert rows["x.spread"] == "max"


def _layers(plan: Plan) -> list[list[str]]:
    rows: list[list[str]] = plan.provenance["quantization"]["layers"]
    return rows
