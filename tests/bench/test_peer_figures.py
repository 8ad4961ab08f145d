"""The arithmetic of the comparison: errors, ratios, summary."""

import math

import numpy as np
import pytest


def _entry(**milliseconds: float) -> dict:
    return {"macs": 1, "peers": {name: {"min_ms": ms} for name, ms in milliseconds.items()}}


def test_error_is_relative_to_the_largest_magnitude() -> None:
    peers = pytest.importorskip("peers")

    right = {"y": np.array([[1.0, -4.0]], "f4")}
    assert peers.relative_error({"y": np.array([1.0, -4.4], "f4")}, right) == pytest.approx(0.1)
    assert peers.relative_error({"y": np.array([1.0], "f4")}, right) == math.inf
    assert peers.relative_error({"z": right["y"]}, right) == math.inf
    assert peers.relative_error({"y": np.array([1.0, np.nan], "f4")}, right) == math.inf


def test_ratio_is_against_the_faster_rival_that_is_right() -> None:
    from peer_report import ratio

    entry = _entry(planish=2.0, onnxruntime=5.0, openvino=4.0)
    assert ratio(entry, "latency") == pytest.approx(2.0)
    entry["peers"]["openvino"]["error"] = 0.5
    assert ratio(entry, "latency") == pytest.approx(2.5)
    assert ratio(_entry(onnxruntime=5.0), "latency") is None


def test_throughput_counts_the_other_way_round() -> None:
    from peer_report import ratio

    peers = {name: {"max_per_s": rate} for name, rate in (("planish", 30.0), ("openvino", 20.0))}
    assert ratio({"peers": peers}, "throughput") == pytest.approx(1.5)


def test_summary_gives_the_geometric_mean_and_the_worst_model() -> None:
    from peer_report import summary

    models = {
        "a": _entry(planish=1.0, onnxruntime=4.0),
        "b": _entry(planish=4.0, openvino=1.0),
        "c": _entry(openvino=1.0),
    }
    figures = summary(models)["latency"]
    assert figures["geometric_mean"] == pytest.approx(1.0)
    assert (figures["worst"], figures["models"], figures["below_1"]) == ("b", 2, ["b"])


def test_an_answer_of_ours_that_is_off_is_reported() -> None:
    from peer_report import wrong

    models = {"a": _entry(planish=1.0), "b": _entry(planish=1.0)}
    models["b"]["peers"]["planish"]["error"] = 0.01
    assert wrong(models) == ["b"]


def test_shares_are_of_the_best_peak_of_the_run() -> None:
    peers = pytest.importorskip("peers")

    models = {"a": _entry(planish=1.0), "b": _entry(planish=1.0)}
    for entry, peak in zip(models.values(), (100.0, 200.0), strict=True):
        entry |= {"macs": 50_000_000, "peak_gflops": peak}  # 0.1 GFLOP in 1 ms: 100 GFLOP/s
    peers.add_shares(models, batch=1)
    assert models["a"]["peers"]["planish"]["peak_share"] == pytest.approx(0.5)
    assert "peak_share_all_cores" not in models["a"]["peers"]["planish"]
