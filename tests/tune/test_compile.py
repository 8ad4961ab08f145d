"""Compiling in processes, and the check that catches a wrong kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from test_search import FOUND, TARGET, WORKLOAD

from planish.base.errors import CompileError
from planish.tune.check import plainest, tactic_error
from planish.tune.compile import CompilePool, Tactic, compile_here, compile_tactic


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    with CompilePool(1) as made:
        yield made


def test_a_process_compiles_to_the_same_code(pool: CompilePool) -> None:
    tactic = FOUND.tactics[0]
    (made,) = pool.map([(tactic, WORKLOAD)], TARGET)
    assert made == compile_tactic(tactic, WORKLOAD, TARGET)


def test_a_process_that_dies_fails_its_tactic_only(pool: CompilePool) -> None:
    tactic = FOUND.tactics[0]
    pool.map([(tactic, WORKLOAD)], TARGET)
    (process,) = pool._started
    process.kill()
    process.wait()
    lost, made = pool.map([(tactic, WORKLOAD)] * 2, TARGET)
    assert isinstance(lost, CompileError) and tactic.text in str(lost)
    assert not isinstance(made, CompileError)


def test_a_config_that_makes_no_code_is_told_with_its_tactic(pool: CompilePool) -> None:
    broken = Tactic(FOUND.tactics[0].kernel, ())
    for (result,) in (pool.map([(broken, WORKLOAD)], TARGET),
                      compile_here([(broken, WORKLOAD)], TARGET)):  # fmt: skip
        assert isinstance(result, CompileError) and broken.kernel.name in str(result)


def test_a_right_kernel_is_right() -> None:
    tactic, plain = FOUND.tactics[0], plainest(FOUND.tactics)
    made = [compile_tactic(t, WORKLOAD, TARGET) for t in (tactic, plain)]
    assert tactic_error(tactic, made[0], plain, made[1], WORKLOAD, TARGET, {}) < 1e-4


def test_a_wrong_kernel_is_caught() -> None:
    tactic, plain = FOUND.tactics[0], plainest(FOUND.tactics)
    made = [compile_tactic(t, WORKLOAD, TARGET) for t in (tactic, plain)]
    phases = tuple(replace(phase, units=0) for phase in made[0].source.phases)
    idle = replace(made[0], source=replace(made[0].source, phases=phases))
    error = tactic_error(tactic, idle, plain, made[1], WORKLOAD, TARGET, {})
    assert not error < tactic.kernel.tolerance
