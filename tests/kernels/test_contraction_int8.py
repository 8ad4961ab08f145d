from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from byte_shapes import BYTE_CONVS, BYTE_MATMULS, all_targets, byte_inputs, equal, of_bytes
from contraction_shapes import SIZES, TINY
from contractions import conv_workload, matmul_workload, tile_config
from trial import targets

from planish.base.dtypes import DType
from planish.kernels.check import run_kernel
from planish.kernels.cpu.contraction_kernels import CONV_DOT, MATMUL_DOT
from planish.kernels.kernel import Config, Kernel
from planish.kernels.reference import run_reference
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget, assembly

WORKLOADS = {**BYTE_CONVS, **{f"matmul_{name}": w for name, w in BYTE_MATMULS.items()}}


TARGETS = all_targets()
_LARGER = ("bytes_3_channels_width",)  # its kernel does not fit the smallest sizes


CONFIGS = [
    tile_config(6, 2),
    tile_config(4, 3, strip=2, chunk=1, unroll=1, fetch=0),
    tile_config(3, 1, strip=3, chunk=2, unroll=4, fetch=1),
    tile_config(2, 2, rows=2, chunk=3, fetch=2),
]


def _kernel(w: Workload) -> Kernel:
    return CONV_DOT if w.op == "conv" else MATMUL_DOT


def _hold(w: Workload, target: CpuTarget, config: Config, *, extreme: bool = False) -> None:
    """1 to 3 workers against the reference, to the bit."""
    inputs = byte_inputs(w, SIZES, extreme=extreme)
    want = run_reference(w, inputs, SIZES)
    for threads in (1, 2, 3):
        got = run_kernel(_kernel(w), w, config, target, inputs, SIZES, threads)
        assert equal(got, want), f"{threads} workers"


@pytest.mark.parametrize("name", WORKLOADS)
def test_odd_tiles(name: str) -> None:
    """Tiles and targets take turns; memory is guarded, outputs are poisoned."""
    number, kinds = list(WORKLOADS).index(name), list(TARGETS)
    for turn in range(3):
        target = TARGETS[kinds[(number + turn * 3) % len(kinds)]]
        assert _kernel(WORKLOADS[name]).refuse(WORKLOADS[name], target) is None
        _hold(WORKLOADS[name], target, CONFIGS[(number // 2 + turn) % len(CONFIGS)])


@pytest.mark.parametrize(
    "name", [name for name, w in WORKLOADS.items() if w.params and name not in _LARGER]
)
def test_smallest_sizes(name: str) -> None:
    w = WORKLOADS[name]
    inputs = byte_inputs(w, TINY)
    got = run_kernel(_kernel(w), w, CONFIGS[0], next(iter(TARGETS.values())), inputs, TINY)
    assert equal(got, run_reference(w, inputs, TINY))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("x", [DType.U8, DType.I8])
def test_nothing_saturates(target: str, x: DType) -> None:
    """255 · -128 over a long sum leaves 16 bits at once and never 32."""
    _hold(
        of_bytes(matmul_workload((9, 2050), (2050, 21)), "sums", x),
        TARGETS[target],
        CONFIGS[0],
        extreme=True,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_offered_configs(target: str) -> None:
    layers = [of_bytes(matmul_workload((5, 66), (66, 100)))]
    if TARGETS[target].dot == "bytes":
        layers.append(of_bytes(conv_workload((1, 24, 14, 14), (40, 24, 3, 3), pads=1)))
    for w in layers:
        for config in _kernel(w).configs(w, TARGETS[target]):
            _hold(w, TARGETS[target], config)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 7, 12, 13])
@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
def test_joined_taps_at_borders(kernel: int, width: int) -> None:
    """Rows of taps cut into steps as a whole, with the padding in the midst of a step."""
    for channels, stride in ((1, 1), (2, 2), (3, 1), (5, 2)):
        shape = (channels * 7, channels, 2, kernel)
        pads = (0, kernel - 1, 1, kernel // 2)
        x = (1, channels, 2, width)
        w = of_bytes(conv_workload(x, shape, pads=pads, stride=(1, stride)), "sums")
        _hold(w, next(iter(TARGETS.values())), CONFIGS[width % 3])


def test_uses_the_dot_product() -> None:
    w = of_bytes(conv_workload((1, 64, 14, 56), (64, 64, 3, 3), pads=1))
    expected = {"bytes": "vpdpbusd", "pairs": "pmaddwd"}
    for name, target in TARGETS.items():
        config = next(iter(CONV_DOT.configs(w, target)))
        text = assembly(CONV_DOT.emit(w, config, target).text, target)
        for dot, instruction in expected.items():
            assert instruction in text or target.dot != dot, name
        assert "pmaddubsw" not in text


def test_the_same_text_each_time() -> None:
    w = WORKLOADS["bytes_3_channels"]
    for target in TARGETS.values():
        for config in CONV_DOT.configs(w, target):
            first, second = (CONV_DOT.emit(w, config, target) for _ in range(2))
            assert first == second


def test_few_steps_for_few_channels() -> None:
    """7 × 7 taps of 3 channels: a row of taps is 21 inputs, 6 steps of 4."""
    w = WORKLOADS["bytes_3_channels"]
    weights = np.zeros((20, 3, 7, 7), np.int8)
    target = dataclasses.replace(targets()[0], dot="bytes", vector_bytes=64)
    packed = CONV_DOT.pack(w, CONFIGS[0], target, 1, weights)
    assert 0 <= packed.size - 7 * 6 * 20 * 4 < 64


def test_refusals_say_why() -> None:
    target = targets()[0]
    good = of_bytes(conv_workload((1, 4, 9), (8, 4, 1)))
    assert CONV_DOT.refuse(good, target) is None
    loose = dataclasses.replace(good.inputs[1], const=False)
    workload = dataclasses.replace(good, inputs=(good.inputs[0], loose, *good.inputs[2:]))
    assert "not constant" in (CONV_DOT.refuse(workload, target) or "")
    assert "u8" in (CONV_DOT.refuse(conv_workload((1, 4, 9), (8, 4, 1)), target) or "")
    wide = dataclasses.replace(good.inputs[1], dtype=DType.U8)
    workload = dataclasses.replace(good, inputs=(good.inputs[0], wide, *good.inputs[2:]))
    assert "i8" in (CONV_DOT.refuse(workload, target) or "")
