from __future__ import annotations

import dataclasses

import pytest
from contraction_shapes import MATMULS, SIZES, TINY
from contractions import matmul_workload, require_right

from planish.kernels.cpu.matmul_packed import KERNEL
from planish.targets.cpu import CpuTarget, host_target

ISAS = ("avx512", "avx2", "generic")


def _config(mr: int, nr: int, **others: int) -> tuple[tuple[str, int], ...]:
    values = {"mr": mr, "rows": 1, "nr": nr, "strip": 1, "chunk": 0, "unroll": 2, "fetch": 7}
    return tuple((values | others).items())


CONFIGS = [
    _config(6, 2),
    _config(4, 3, strip=2, chunk=1, unroll=1, fetch=0),
    _config(1, 4, unroll=4, fetch=1),
    _config(2, 2, rows=3, chunk=3, fetch=2),
]


def _target(isa: str) -> CpuTarget:
    try:
        return host_target(isa=isa, threads=2)
    except Exception as error:  # the host may lack the instructions
        pytest.skip(str(error))


@pytest.mark.parametrize("name", MATMULS)
def test_odd_tiles(name: str) -> None:
    """Tiles that the kernel would not offer; the ISAs take turns."""
    number = list(MATMULS).index(name)
    config, isa = CONFIGS[number % len(CONFIGS)], ISAS[number % len(ISAS)]
    require_right(KERNEL, MATMULS[name], _target(isa), [config], SIZES)


@pytest.mark.parametrize("name", [name for name in MATMULS if MATMULS[name].params])
def test_smallest_sizes(name: str) -> None:
    require_right(KERNEL, MATMULS[name], _target(""), [CONFIGS[0]], TINY)


@pytest.mark.parametrize("rows", range(1, 14))
def test_every_number_of_rows(rows: int) -> None:
    require_right(KERNEL, matmul_workload((rows, 19), (19, 40)), _target(""), CONFIGS[:2])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 8, 12, 16, 17, 31, 64, 65])
def test_every_width_of_the_last_vector(columns: int, isa: str) -> None:
    workload = matmul_workload((5, 9), (9, columns), epilogue="residual")
    require_right(KERNEL, workload, _target(isa), CONFIGS[:1])


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
