from __future__ import annotations

import dataclasses

import pytest
from contractions import EPILOGUES, matmul_workload, require_right

from planish.base.shapes import symbol
from planish.kernels.cpu.matmul_packed import KERNEL
from planish.targets.cpu import CpuTarget, host_target

M, B = symbol("M"), symbol("B")
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
CASES = {
    "vector": (matmul_workload((1, 70), (70, 50)), {}),
    "square": (matmul_workload((48, 48), (48, 48)), {}),
    "odd": (matmul_workload((13, 31), (31, 37)), {}),
    "narrow": (matmul_workload((13, 31), (31, 1)), {}),
    "no_steps_to_spare": (matmul_workload((7, 1), (1, 18)), {}),
    "batches": (matmul_workload((3, 5, 20), (20, 33)), {}),
    "more_batches": (matmul_workload((2, 3, 5, 20), (20, 33), epilogue="residual"), {}),
    "transposed_a": (matmul_workload((11, 20), (20, 33), a_strides=(1, 11)), {}),
    "gap_in_a": (matmul_workload((3, 5, 20), (20, 33), a_strides=(200, 32, 1)), {}),
    "symbolic_rows": (matmul_workload((M, 20), (20, 33)), {"M": 17}),
    "symbolic_batch": (matmul_workload((B, 5, 20), (20, 33), epilogue="residual"), {"B": 3}),
    "symbolic_product": (matmul_workload((B * 8, 20), (20, 33)), {"B": 3}),
    "symbolic_both": (matmul_workload((B, M, 20), (20, 33)), {"B": 2, "M": 9}),
    **{
        f"epilogue_{name}": (matmul_workload((9, 12), (12, 37), epilogue=name), {})
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
