from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from contractions import EPILOGUES, conv_workload, require_right

from planish.base.dtypes import DType
from planish.base.shapes import symbol
from planish.kernels.cpu.conv_direct import KERNEL
from planish.targets.cpu import CpuTarget, assembly, host_target

N, H, W = symbol("N"), symbol("H"), symbol("W")
ISAS = ("avx512", "avx2", "generic")


def _config(mr: int, nr: int, **others: int) -> tuple[tuple[str, int], ...]:
    values = {"mr": mr, "rows": 1, "nr": nr, "strip": 1, "chunk": 0, "unroll": 2, "fetch": 7}
    return tuple((values | others).items())


CONFIGS = [
    _config(6, 2),
    _config(4, 3, strip=2, chunk=1, unroll=1, fetch=0),
    _config(3, 1, strip=3, chunk=2, unroll=4, fetch=1),
    _config(2, 2, rows=2, chunk=3, fetch=2),
]

# name -> (workload, values of its symbolic sizes)
CASES = {
    "1x1": (conv_workload((1, 7, 50), (33, 7, 1)), {}),
    "one_channel_one_pixel": (conv_workload((1, 1, 1), (1, 1, 1)), {}),
    "3x3": (conv_workload((2, 5, 9, 13), (17, 5, 3, 3), pads=1), {}),
    "3x3_odd_pads": (conv_workload((1, 4, 8, 7), (16, 4, 3, 3), pads=(0, 2, 1, 0)), {}),
    "3x3_stride": (conv_workload((1, 6, 11, 15), (48, 6, 3, 3), stride=2, pads=1), {}),
    "3x3_dilated": (conv_workload((1, 3, 9, 14), (8, 3, 3, 3), dilation=(2, 3), pads=3), {}),
    "stride_over_kernel": (conv_workload((1, 6, 9, 9), (16, 6, 1, 1), stride=(3, 2)), {}),
    "kernel_over_input": (conv_workload((1, 4, 3, 2), (9, 4, 5, 5), pads=2), {}),
    "padding_alone": (conv_workload((1, 4, 3, 3), (9, 4, 1, 1), pads=2), {}),
    "7x7_nchw": (
        conv_workload((2, 3, 14, 20), (20, 3, 7, 7), stride=2, pads=3, nchw_in=True),
        {},
    ),
    "1d": (conv_workload((2, 6, 31), (10, 6, 5), pads=(4, 0), dilation=2), {}),
    "3d": (conv_workload((1, 3, 4, 5, 6), (18, 3, 2, 3, 3), pads=(0, 1, 1, 1, 1, 1)), {}),
    "groups": (conv_workload((1, 12, 6, 7), (40, 3, 3, 3), group=4, pads=1), {}),
    "groups_of_one": (conv_workload((1, 6, 5, 9), (6, 1, 3, 3), group=6, pads=1), {}),
    "split": (
        conv_workload((1, 9, 5, 7), (53, 9, 1, 1), split=(20, 16, 1, 16), epilogue="residual"),
        {},
    ),
    "split_groups": (conv_workload((1, 8, 30), (36, 4, 1), group=2, split=(10, 26)), {}),
    "split_without_epilogue": (
        conv_workload((1, 8, 30), (36, 8, 1), split=(18, 18), epilogue="none"),
        {},
    ),
    "slices": (
        conv_workload((2, 6, 7, 8), (19, 6, 3, 3), pads=1, wide_in=11, wide_out=40),
        {},
    ),
    "nchw_out": (
        conv_workload((2, 6, 7, 8), (19, 6, 3, 3), pads=1, nchw_out=True, epilogue="residual"),
        {},
    ),
    "batch": (conv_workload((N, 6, 5, 9), (19, 6, 3, 3), pads=1, epilogue="residual"), {"N": 3}),
    "width": (conv_workload((N, 6, W), (19, 6, 1), epilogue="residual"), {"N": 2, "W": 23}),
    "height_width": (conv_workload((1, 6, H, W), (19, 6, 3, 3), pads=1), {"H": 5, "W": 20}),
    "height_width_small": (conv_workload((1, 6, H, W), (19, 6, 3, 3), pads=1), {"H": 1, "W": 2}),
    "height_width_stride": (
        conv_workload((N, 3, H, W), (18, 3, 5, 5), stride=2, pads=2, nchw_in=True),
        {"N": 2, "H": 9, "W": 33},
    ),
    "height_alone": (
        conv_workload((1, 6, H, 12), (19, 6, 3, 3), pads=1, dilation=(2, 1)),
        {"H": 7},
    ),
    **{
        f"epilogue_{name}": (conv_workload((1, 5, 4, 9), (21, 5, 1, 1), epilogue=name), {})
        for name in EPILOGUES
    },
}


def _target(isa: str) -> CpuTarget:
    try:
        return host_target(isa=isa, threads=2)
    except Exception as error:  # the host may lack the instructions
        pytest.skip(str(error))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_against_the_reference(name: str, isa: str) -> None:
    workload, env = CASES[name]
    target = _target(isa)
    number = list(CASES).index(name)
    configs = [CONFIGS[number % len(CONFIGS)], next(iter(KERNEL.configs(workload, target)))]
    require_right(KERNEL, workload, target, configs, env)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("width", [1, 5, 6, 7, 12, 13])
def test_every_remainder_of_the_tile(width: int, config: tuple[tuple[str, int], ...]) -> None:
    workload = conv_workload((1, 4, 5, width), (4 + 8 * width, 4, 3, 3), pads=1)
    require_right(KERNEL, workload, _target(""), [config])


@pytest.mark.parametrize("isa", ISAS)
def test_all_configs_of_a_layer(isa: str) -> None:
    target = _target(isa)
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
    (got,) = run_kernel(KERNEL, workload, CONFIGS[0], _target(""), [x, weights])
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
        target = _target(isa)
        config = next(iter(KERNEL.configs(workload, target)))
        text = assembly(KERNEL.emit(workload, config, target).text, target)
        assert text.count("vfmadd") > 50
        assert "Spill" not in "".join(line for line in text.splitlines() if "mm" in line)


def test_the_same_text_each_time() -> None:
    workload, _ = CASES["3x3"]
    target = host_target()
    for config in KERNEL.configs(workload, target):
        first, second = (KERNEL.emit(workload, config, target) for _ in range(2))
        assert first == second


def test_estimates_are_positive() -> None:
    target = host_target()
    for workload, _ in CASES.values():
        for config in KERNEL.configs(workload, target):
            assert KERNEL.cost is not None
            assert KERNEL.cost(workload, config, target) > 0
