"""Figures, comparisons, inputs, energy: pure parts."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planish.base.dtypes import DType
from planish.base.errors import InputError, ShapeError, UnsupportedError
from planish.base.shapes import symbol
from planish.measure import compare_outputs, dims_of, parse_shapes, random_feeds, summarise
from planish.measure.energy import EnergyMeter
from planish.measure.reference import pick_runtime, run_reference, with_inner_outputs
from planish.plan import Plan, Profile, TensorInfo


def plan_of(*inputs: TensorInfo, profiles: tuple[Profile, ...] = ()) -> Plan:
    return Plan("p", inputs, (), profiles, (), (), (), 0, 0, (), 1, {})


DYNAMIC = plan_of(
    TensorInfo("x", DType.F32, (symbol("n"), 3)),
    TensorInfo("ids", DType.I64, (symbol("n"),)),
    profiles=(Profile((("n", 1, 4, 8),)),),
)


def test_summary_of_known_times() -> None:
    times = summarise([0.001 * n for n in range(1, 101)])
    assert (times.runs, times.min, times.max) == (100, 1.0, 100.0)
    assert times.mean == pytest.approx(50.5) and times.median == pytest.approx(50.5)
    assert times.p90 < times.p95 < times.p99 and not times.is_stable
    assert summarise([0.002] * 50).is_stable
    with pytest.raises(ValueError):
        summarise([])


@pytest.mark.parametrize(
    ("found", "expected", "rtol", "atol", "passed"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0, 0.0, True),
        ([1.0, 2.001], [1.0, 2.0], 1e-3, 0.0, True),
        ([1.0, 2.01], [1.0, 2.0], 1e-3, 0.0, False),
        ([1.0, 2.01], [1.0, 2.0], 1e-3, 0.1, True),
        ([1.0, np.nan], [1.0, 2.0], 1e-3, 9.0, False),
        ([1.0, np.nan], [1.0, np.nan], 1e-3, 0.0, True),
        ([1.0, np.inf], [1.0, np.inf], 1e-3, 0.0, True),
        ([1.0, -np.inf], [1.0, np.inf], 1e-3, 0.0, False),
        ([0.0, 0.0], [0.0, 0.0], 1e-3, 0.0, True),
        ([1e-9, 0.0], [0.0, 0.0], 1e-3, 0.0, False),
    ],
)
def test_comparison(
    found: list[float], expected: list[float], rtol: float, atol: float, passed: bool
) -> None:
    a, b = (np.array(v, np.float32) for v in (found, expected))
    (row,) = compare_outputs({"y": a}, {"y": b}, rtol, atol)
    assert row.passed is passed and bool(row.why) is not passed


def test_integers_must_be_equal_and_kinds_the_same() -> None:
    a = np.array([1, 2], np.int64)
    assert compare_outputs({"y": a}, {"y": a.copy()})[0].passed
    assert not compare_outputs({"y": a}, {"y": a + np.array([0, 1])}, 1.0)[0].passed
    for other in (a.astype(np.int32), a[None], a.astype(np.float32)):
        assert not compare_outputs({"y": a}, {"y": other})[0].passed
    texts = np.array(["a"], object)
    assert compare_outputs({"y": texts}, {"y": texts})[0].passed
    empty = np.zeros((0, 3), np.float32)
    assert compare_outputs({"y": empty}, {"y": empty})[0].passed
    with pytest.raises(InputError, match="one side only"):
        compare_outputs({"y": a}, {"z": a})


def test_shapes_as_people_write_them() -> None:
    assert parse_shapes(["x=8x3", "n=4,m=5"]) == {"x": (8, 3), "n": (4,), "m": (5,)}
    for text in ("x", "x=", "=3", "x=3xa", "x=-1"):
        with pytest.raises(ShapeError, match="expected NAME=SIZES"):
            parse_shapes([text])


def test_dims_of_shapes() -> None:
    assert dims_of(DYNAMIC, {"x": (5, 3)}) == {"n": 5}
    assert dims_of(DYNAMIC, {"n": (2,)}) == {"n": 2}
    with pytest.raises(ShapeError, match="said to be"):
        dims_of(DYNAMIC, {"x": (5, 3), "ids": (4,)})
    for bad in ({"x": (5, 4)}, {"x": (5,)}, {"q": (1,)}):
        with pytest.raises(ShapeError):
            dims_of(DYNAMIC, bad)


def test_random_feeds_repeat_and_follow_the_dims() -> None:
    first, again = random_feeds(DYNAMIC), random_feeds(DYNAMIC)
    assert first["x"].shape == (4, 3) and first["ids"].dtype == np.int64
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert random_feeds(DYNAMIC, {"n": 7})["ids"].shape == (7,)
    assert not np.array_equal(first["x"], random_feeds(DYNAMIC, seed=1)["x"])
    with pytest.raises(ShapeError, match="not dims of the plan"):
        random_feeds(DYNAMIC, {"q": 1})


def _zone(root: Path, name: str, energy: str, most: str = "1000") -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "energy_uj").write_text(energy)
    (folder / "max_energy_range_uj").write_text(most)
    return folder


def test_energy_counts_packages_and_survives_a_counter_that_starts_over(tmp_path: Path) -> None:
    first = _zone(tmp_path, "intel-rapl:0", "900")
    second = _zone(tmp_path, "intel-rapl:1", "100")
    _zone(tmp_path, "intel-rapl:0:0", "5")  # a part of the first: not counted again
    meter = EnergyMeter(tmp_path)
    assert meter.why_not == "" and meter.joules() == 0.0
    meter.start()
    (first / "energy_uj").write_text("100")
    (second / "energy_uj").write_text("150")
    assert meter.joules() == pytest.approx((200 + 50) / 1e6)


def test_energy_says_why_it_is_not_read(tmp_path: Path) -> None:
    assert "lists no CPU package" in EnergyMeter(tmp_path).why_not
    _zone(tmp_path, "intel-rapl:0", "secret")
    meter = EnergyMeter(tmp_path)
    assert "cannot be read" in meter.why_not
    meter.start()
    assert meter.joules() == 0.0


def _model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_inner_tensors_become_outputs() -> None:
    model, added = with_inner_outputs(_model())
    assert added == ["a"]
    made = run_reference(model, {"x": np.array([1, -2], np.float32)}, "reference")
    assert made["a"].tolist() == [-1, 2] and made["y"].tolist() == [1, 2]


def test_the_runtime_to_compare_with() -> None:
    assert pick_runtime("reference") == "reference"
    assert pick_runtime() in ("onnxruntime", "reference")
    with pytest.raises(UnsupportedError, match="not one of"):
        pick_runtime("nobody")
    with pytest.raises(InputError, match="cannot run"):
        run_reference(_model(), {}, "reference")
