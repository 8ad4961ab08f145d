"""Plans of level 0 stay near the size of their models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planish.base.dtypes import DType
from planish.kernels.cpu.conv_winograd import BYTES, FLOATS
from planish.kernels.workload import Operand, Workload, dense_strides
from planish.targets.cpu import host_target
from planish.tune.candidates import candidates
from planish.tune.compile import Tactic
from planish.tune.weights import price, weight_bytes, within_weights

_FILTER = (64, 64, 3, 3)


def _conv() -> Workload:
    shape, strides = (1, 64, 56, 56), (64 * 56 * 56, 1, 64 * 56, 64)
    image = Operand(DType.F32, shape, strides)
    weights = Operand(DType.F32, _FILTER, dense_strides(_FILTER), const=True)
    attrs = (("dilations", (1, 1)), ("group", 1), ("pads", (1,) * 4), ("strides", (1, 1)))
    return Workload("conv", (image, weights), (image,), attrs)


def test_weights_as_stored() -> None:
    assert weight_bytes(_conv()) == 64 * 64 * 9 * 4


def test_a_limit_bounds_the_growth() -> None:
    target, workload = host_target("", 1), _conv()
    every = candidates(workload, target, 0)
    found = {workload: (*every.tactics, *every.skipped)}
    for percent in (100, 250, 450, 10_000):
        tactic = within_weights(found, {workload: 3}, target, percent)[workload]
        growth = (
            1.0 if tactic.kernel.growth is None else tactic.kernel.growth(workload, tactic.config)
        )
        assert growth * 100 <= percent
    assert tactic == found[workload][0]


def test_larger_weights_of_bytes_have_a_price(monkeypatch) -> None:
    floats, target = _conv(), host_target("", 1)
    image, weights = floats.inputs
    bytes_ = Workload(
        "conv",
        (replace(image, dtype=DType.U8), replace(weights, dtype=DType.I8)),
        (replace(image, dtype=DType.I32),),
        tuple(sorted((*floats.attrs, ("sum_bits", 25)))),
    )
    config = (("m", 4), ("form", "fused"), ("tiles", 14), ("mr", 7), ("nv", 3))
    winograd = Tactic(BYTES, config)
    others = [t for t in candidates(bytes_, target, 5).tactics if t.kernel is not BYTES]
    monkeypatch.setenv("PLANISH_WEIGHT_PRICE", "100")
    assert price(bytes_, winograd) == pytest.approx(64 * 64 * 9 * 7 * 100e-6)
    assert others and all(price(bytes_, tactic) == 0 for tactic in others)
    assert price(floats, Tactic(FLOATS, config)) == 0
