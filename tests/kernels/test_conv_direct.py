from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from contraction_shapes import CONVS, SIZES, TINY, N, W
from contractions import ISAS, conv_workload, isa_target, require_right, tile_config

from planish.base.dtypes import DType
from planish.kernels.cpu.contraction_kernels import CONV_DIRECT as KERNEL
from planish.targets.cpu import assembly, host_target

CONFIGS = [
    tile_config(6, 2),
    tile_config(4, 3, strip=2, chunk=1, unroll=1, fetch=0),
    tile_config(3, 1, strip=3, chunk=2, unroll=4, fetch=1),
    tile_config(2, 2, rows=2, chunk=3, fetch=2),
]


@pytest.mark.parametrize("name", CONVS)
def test_odd_tiles(name: str) -> None:
    """Tiles that the kernel would not offer; the ISAs take turns."""
    number = list(CONVS).index(name)
    config, isa = CONFIGS[number % len(CONFIGS)], ISAS[number % len(ISAS)]
    require_right(KERNEL, CONVS[name], isa_target(isa), [config], SIZES)


@pytest.mark.parametrize("name", [name for name in CONVS if CONVS[name].params])
def test_smallest_sizes(name: str) -> None:
    require_right(KERNEL, CONVS[name], isa_target(""), [CONFIGS[0]], TINY)


@pytest.mark.parametrize("stride", [1, 2])
def test_every_run_time_width(stride: int) -> None:
    """Borders, whole, half and single tiles in every mixture."""
    workload = conv_workload((N, 5, W), (20, 5, 3), stride=stride, pads=(2, 1))
    for width in range(1, 20):
        require_right(KERNEL, workload, isa_target(""), CONFIGS[:2], {"N": 2, "W": width})


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("width", [1, 5, 6, 7, 12, 13])
def test_every_remainder_of_the_tile(width: int, config: tuple[tuple[str, int], ...]) -> None:
    workload = conv_workload((1, 4, 5, width), (4 + 8 * width, 4, 3, 3), pads=1)
    require_right(KERNEL, workload, isa_target(""), [config])


@pytest.mark.parametrize("isa", ISAS)
def test_all_configs_of_a_layer(isa: str) -> None:
    target = isa_target(isa)
    workload = conv_workload((1, 24, 14, 14), (40, 24, 3, 3), pads=1)
    require_right(KERNEL, workload, target, list(KERNEL.configs(workload, target)))


def test_infinities_stay_out_of_other_pixels() -> None:
    """Padding is left out, not multiplied by zero."""
    from planish.kernels.check import run_kernel

    workload = conv_workload((1, 3, 4, 9), (16, 3, 3, 3), pads=1, epilogue="none")
    x = np.zeros((1, 3, 4, 9), np.float32)
    weights = np.full((16, 3, 3, 3), np.inf, np.float32)
    weights[:, :, 1:, 1:] = 1
    x[:, :, 0, 0] = 1
    (got,) = run_kernel(KERNEL, workload, CONFIGS[0], isa_target(""), [x, weights])
    assert np.isfinite(got[0, :, 0, 0]).all()


def test_refusals_say_why() -> None:
    target = host_target()
    good = conv_workload((1, 4, 9), (8, 4, 1))
    assert KERNEL.refuse(good, target) is None
    loose = dataclasses.replace(good.inputs[1], const=False)
    workload = dataclasses.replace(good, inputs=(good.inputs[0], loose, good.inputs[2]))
    assert "not constant" in (KERNEL.refuse(workload, target) or "")
    half = dataclasses.replace(good.inputs[0], dtype=DType.F16)
    workload = dataclasses.replace(good, inputs=(half, *good.inputs[1:]))
    assert "f32" in (KERNEL.refuse(workload, target) or "")


def test_inner_loops_do_not_spill() -> None:
    """The tiles that are offered fit the registers."""
    workload = conv_workload((1, 64, 14, 56), (64, 64, 3, 3), pads=1)
    for isa in ("avx512", "avx2"):
        target = isa_target(isa)
        config = next(iter(KERNEL.configs(workload, target)))
        text = assembly(KERNEL.emit(workload, config, target).text, target)
        assert text.count("vfmadd") > 50
        assert "Spill" not in "".join(line for line in text.splitlines() if "mm" in line)


def test_the_same_text_each_time() -> None:
    workload = CONVS["3x3"]
    target = host_target()
    for config in KERNEL.configs(workload, target):
        first, second = (KERNEL.emit(workload, config, target) for _ in range(2))
        assert first == second


def test_estimates_are_positive() -> None:
    target = host_target()
    for workload in CONVS.values():
        for config in KERNEL.configs(workload, target):
            assert KERNEL.cost is not None
            assert KERNEL.cost(workload, config, target) > 0
