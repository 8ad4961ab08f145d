from __future__ import annotations

import dataclasses

import pytest
from contraction_shapes import MATMULS, SIZES, TINY
from contractions import ISAS, isa_target, matmul_workload, require_right, tile_config

from planish.kernels.cpu.contraction_kernels import MATMUL_PACKED as KERNEL
from planish.targets.cpu import host_target

CONFIGS = [
    tile_config(6, 2),
    tile_config(4, 3, strip=2, chunk=1, unroll=1, fetch=0),
    tile_config(1, 4, unroll=4, fetch=1),
    tile_config(2, 2, rows=3, chunk=3, fetch=2),
]


@pytest.mark.parametrize("name", MATMULS)
def test_odd_tiles(name: str) -> None:
    """Tiles that the kernel would not offer; the ISAs take turns."""
    number = list(MATMULS).index(name)
    config, isa = CONFIGS[number % len(CONFIGS)], ISAS[number % len(ISAS)]
    require_right(KERNEL, MATMULS[name], isa_target(isa), [config], SIZES)


@pytest.mark.parametrize("name", [name for name in MATMULS if MATMULS[name].params])
def test_smallest_sizes(name: str) -> None:
    require_right(KERNEL, MATMULS[name], isa_target(""), [CONFIGS[0]], TINY)


@pytest.mark.parametrize("rows", range(1, 14))
def test_every_number_of_rows(rows: int) -> None:
    require_right(KERNEL, matmul_workload((rows, 19), (19, 40)), isa_target(""), CONFIGS[:2])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 8, 12, 16, 17, 31, 64, 65])
def test_every_width_of_the_last_vector(columns: int, isa: str) -> None:
    workload = matmul_workload((5, 9), (9, columns), epilogue="residual")
    require_right(KERNEL, workload, isa_target(isa), CONFIGS[:1])


def test_refusals_say_why() -> None:
    target = host_target()
    good = matmul_workload((2, 4, 9), (9, 8))
    assert KERNEL.refuse(good, target) is None
    loose = dataclasses.replace(good.inputs[1], const=False)
    workload = dataclasses.replace(good, inputs=(good.inputs[0], loose, good.inputs[2]))
    assert "not constant" in (KERNEL.refuse(workload, target) or "")
    varying = matmul_workload((2, 4, 9), (2, 9, 8))
    assert "batch" in (KERNEL.refuse(varying, target) or "")
    for empty in (((0, 5), (5, 4)), ((3, 0), (0, 4)), ((3, 5), (5, 0))):
        assert "extent is 0" in (KERNEL.refuse(matmul_workload(*empty), target) or "")
