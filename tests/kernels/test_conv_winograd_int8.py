"""Winograd's convolution of bytes: exact to the bit wherever it does not refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from byte_shapes import all_targets, byte_inputs, equal, of_bytes
from contraction_shapes import SIZES, H, N
from contractions import conv_workload

from planish.base.dtypes import DType
from planish.kernels.check import run_kernel
from planish.kernels.cpu.conv_winograd import BYTES
from planish.kernels.cpu.winograd_math import transforms
from planish.kernels.cpu.winograd_numbers import whole_filter, whole_output
from planish.kernels.kernel import Config
from planish.kernels.reference import run_reference
from planish.kernels.workload import NARROW_SUMS, Workload
from planish.targets.cpu import CpuTarget, assembly

TARGETS = {name: t for name, t in all_targets().items() if t.dot}
FIRST = next(iter(TARGETS.values()))


def _layer(
    x: tuple, filters: tuple, finish: str = "requantize", dtype: DType = DType.U8, pads: object = 1
) -> Workload:
    w = of_bytes(conv_workload(x, filters, pads=pads), finish, dtype)
    return replace(w, attrs=tuple(sorted((*w.attrs, ("sum_bits", NARROW_SUMS)))))


LAYERS = {
    "sums": _layer((2, 16, 9, 11), (32, 16, 3, 3), "sums"),
    "requantised": _layer((1, 64, 8, 8), (48, 64, 3, 3)),
    "signed": _layer((1, 40, 7, 9), (33, 40, 3, 3), dtype=DType.I8),
    "residual": _layer((2, 33, 6, 5), (35, 33, 3, 3), "residual"),
    "floats": _layer((1, 19, 14, 13), (20, 19, 3, 3), "floats", pads=0),
    "odd_pads": _layer((1, 8, 3, 5), (8, 8, 3, 3), "sums", pads=(2, 0, 1, 3)),
    "symbolic": _layer((N, 24, H, H), (24, 24, 3, 3)),
}


def _inputs(w: Workload) -> list[np.ndarray]:
    """As of a layer whose sums are narrow: weights far from their largest."""
    inputs = byte_inputs(w, SIZES)
    inputs[1] = (inputs[1] // 4).astype(np.int8)
    return inputs


def _hold(w: Workload, target: CpuTarget, config: Config, inputs: list[np.ndarray]) -> None:
    want = run_reference(w, inputs, SIZES)
    for threads in (1, 2, 3):
        got = run_kernel(BYTES, w, config, target, inputs, SIZES, threads)
        assert equal(got, want), f"{config}, {threads} workers"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LAYERS)
def test_exact(name: str, target: str) -> None:
    w = LAYERS[name]
    assert BYTES.refuse(w, TARGETS[target]) is None
    configs = list(BYTES.configs(w, TARGETS[target]))
    forms = {dict(config)["form"]: config for config in reversed(configs)}
    assert set(forms) == {"fused", "split"}
    for config in forms.values():
        _hold(w, TARGETS[target], config, _inputs(w))


@pytest.mark.parametrize("config", list(BYTES.configs(LAYERS["sums"], FIRST)))
def test_every_config(config: Config) -> None:
    _hold(LAYERS["sums"], FIRST, config, _inputs(LAYERS["sums"]))


@pytest.mark.parametrize(
    ("dtype", "x", "weight", "channels"),
    [
        (DType.U8, 255, 127, 115),
        (DType.U8, 255, -128, 114),
        (DType.I8, -128, -128, 227),
        (DType.I8, 127, -128, 227),
    ],
)
def test_sums_at_their_bound(dtype: DType, x: int, weight: int, channels: int) -> None:
    """The largest and the smallest sums of 25 bits that these channels can make."""
    assert 2**NARROW_SUMS * 0.98 < abs(x * weight) * 9 * channels <= 2**NARROW_SUMS
    w = _layer((1, channels, 6, 7), (9, channels, 3, 3), "sums", dtype)
    inputs = [np.full((1, channels, 6, 7), x), np.full((9, channels, 3, 3), weight)]
    inputs = [a.astype(o.dtype.numpy) for a, o in zip(inputs, w.inputs, strict=True)]
    for target in TARGETS.values():
        _hold(w, target, next(iter(BYTES.configs(w, target))), inputs)


def test_transforms_are_whole_and_exact() -> None:
    t, g = transforms(4), np.array(whole_filter())
    rows, factors = whole_output()
    output = np.array(rows, np.int64)
    data = np.array([[int(v) for v in row] for row in t.data])
    rng = np.random.default_rng(0)
    d, taps = rng.integers(-128, 128, 6), rng.integers(-128, 128, 3)
    want = [d[k : k + 3] @ taps for k in range(4)]
    assert (output @ ((g @ taps) * (data @ d)) == np.array(factors) * want).all()
    # Both sides of a product fit 16 bits, and a sum its 32 when it is not yet divided.
    assert (np.abs(data).sum(axis=1).max() ** 2) * 255 // 2 < 1 << 15
    assert (np.abs(g).sum(axis=1).max() ** 2) * 128 < 1 << 15
    spare = max(factors) ** 2 & -(max(factors) ** 2)
    assert (1 << NARROW_SUMS) * spare <= 1 << 31


def test_refusals() -> None:
    target, w = FIRST, LAYERS["requantised"]
    wide = replace(w, attrs=tuple(a for a in w.attrs if a[0] != "sum_bits"))
    assert wide.sum_bits == 31 and "beyond 2" in str(BYTES.refuse(wide, target))
    assert "16-bit pairs" in str(BYTES.refuse(w, replace(target, dot="")))
    assert "3×3" in str(BYTES.refuse(_layer((1, 16, 8, 8), (16, 16, 1, 3)), target))
    floats = conv_workload((1, 16, 8, 8), (16, 16, 3, 3), pads=1)
    assert "u8 or i8" in str(BYTES.refuse(floats, target))


def test_one_instruction_a_step() -> None:
    """LLVM joins pmaddwd and the addition where the target has vpdpwssd."""
    w = LAYERS["requantised"]
    for name, target in TARGETS.items():
        text = assembly(BYTES.emit(w, next(iter(BYTES.configs(w, target))), target).text, target)
        assert ("vpdpwssd" if target.dot == "bytes" else "pmaddwd") in text, name
