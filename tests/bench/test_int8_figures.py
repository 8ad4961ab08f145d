"""The arithmetic of the comparison at int8: signal to noise, ratios, speed-up, scores."""

import math

import numpy as np
import pytest

from peer_errors import EXACT, signal_to_noise


def _runs(*values: list[float]) -> list[dict[str, np.ndarray]]:
    return [{"y": np.array(row, "f4")} for row in values]


def test_signal_to_noise_is_of_the_power_of_all_runs() -> None:
    right = _runs([3.0, 4.0], [0.0, 5.0])
    assert signal_to_noise(right, right) == EXACT
    assert signal_to_noise(_runs([3.0, 4.5], [0.0, 5.0]), right) == pytest.approx(
        10 * math.log10(50 / 0.25)
    )


def test_signal_to_noise_is_that_of_the_worst_output() -> None:
    right = [{"a": np.ones(4, "f4"), "b": np.ones(4, "f4")}]
    found = [{"a": np.ones(4, "f4"), "b": np.full(4, 1.1, "f4")}]
    assert signal_to_noise(found, right) == pytest.approx(20.0, abs=0.01)


@pytest.mark.parametrize("wrong", [[1.0], [np.nan, 1.0]])
def test_signal_to_noise_of_what_cannot_be_compared(wrong: list[float]) -> None:
    assert signal_to_noise(_runs(wrong), _runs([1.0, 1.0])) == -math.inf
    assert signal_to_noise([{}], _runs([1.0, 1.0])) == -math.inf


def _entry(**milliseconds: float) -> dict:
    return {
        "macs": 1,
        "peers": {name.replace("_", "-"): {"min_ms": ms} for name, ms in milliseconds.items()},
    }


def test_the_quantised_file_has_a_mean_of_its_own() -> None:
    from peer_report import summary

    models = {"a": _entry(planish=2.0, planish_qdq=1.0, onnxruntime=4.0, openvino=8.0)}
    figures = summary(models)
    assert figures["latency"]["geometric_mean"] == pytest.approx(2.0)
    assert figures["latency, planish-qdq"]["geometric_mean"] == pytest.approx(4.0)


def test_speed_up_is_of_planish_by_its_own_calibration() -> None:
    from peer_report import speed_up

    entry = _entry(planish=2.0, planish_qdq=1.0, planish_fp32=6.0)
    assert speed_up(entry, "latency") == pytest.approx(3.0)
    del entry["peers"]["planish"]
    assert speed_up(entry, "latency") == pytest.approx(6.0)
    assert speed_up(_entry(planish=2.0), "latency") is None


def test_an_int8_result_may_be_about_as_far_off_as_the_reference() -> None:
    from peer_report import is_wrong, wrong

    assert not is_wrong({"lost_db": 2.0})
    assert is_wrong({"lost_db": 4.0})
    assert is_wrong({"lost_db": None})
    entry = _entry(planish=1.0, planish_qdq=1.0)
    entry["peers"]["planish-qdq"]["lost_db"] = 10.0
    assert wrong({"a": entry}) == ["a"]


def test_scores_count_right_and_changed_answers() -> None:
    from accuracy import score

    floats = np.array([[1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [3, 1, 2, 4, 5], [4, 1, 2, 3, 5]])
    other = floats.copy()
    other[0, :2] = 2, 1
    labels = np.array([1, 2, 3, 9])
    one = score(other, labels, floats)
    assert (one.count, one.changed) == (4, 1)
    assert (one.top1, one.top5, one.drop) == pytest.approx((50.0, 75.0, 25.0))


def test_complaints_name_what_falls_short() -> None:
    from accuracy import Score, complaints

    fine = {"auto": Score(10, 80.0, drop=0.2), "onnxruntime": Score(10, 80.1, drop=0.1)}
    assert complaints("m", fine) == []
    assert len(complaints("m", {"auto": Score(10, 79.0, drop=0.5)})) == 1
    assert "below onnxruntime" in complaints("m", fine | {"auto": Score(10, 79.8, drop=0.2)})[0]
    coarse = {"auto-tensor": Score(10, 74.0, drop=6.0)}
    assert complaints("m", coarse) == []
    assert "less than 75" in complaints("mobilenetv2_1.0_224", coarse)[0]
    assert complaints("m", {"mse": Score(failure="no kernel")}) == ["m: mse: no kernel"]


def test_sizes_over_the_bounds_are_told() -> None:
    from size import Size, complaints

    floats = Size(100_000_000, 99_000_000, 10_000_000)
    assert (
        complaints("light_resnet50", {"fp32": floats, "int8": Size(26_000_000, 0, 2_900_000)}) == []
    )
    told = complaints("light_resnet50", {"fp32": floats, "int8": Size(28_000_000, 0, 4_000_000)})
    assert len(told) == 2
    assert complaints("another", {"fp32": floats, "int8": floats}) == []
