"""Sizes that must fit each other are checked when they are known, not trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, parser

import planish
from planish.base.errors import PlanFileError, ShapeError
from planish.base.shapes import symbol
from planish.pipeline import build
from planish.plan import Plan, read_plan
from planish.plan.check import check_plan


def _plan(text: str) -> Plan:
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(parser.parse_graph(text), opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model)
    return build(model, level=0, threads=1)


ADD = "g (float[N,3] x, float[M,3] z) => (float[K,3] y) { y = Add (x, z) }"
MASKED = """
g (float[4] x, bool[4] m, float[L] z) => (float[K] y) {
  c = Compress (x, m)
  y = Mul (c, z)
}"""


def _numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("rows", [(2, 2), (1, 4), (4, 1)])
def test_sizes_that_broadcast_run(rows: tuple[int, int]) -> None:
    x, z = _numbers(rows[0], 3), _numbers(rows[1], 3)
    with planish.Engine(_plan(ADD)) as engine:
        np.testing.assert_array_equal(engine(x, z), x + z)


def test_sizes_of_inputs_that_do_not_fit_are_refused() -> None:
    with (
        planish.Engine(_plan(ADD)) as engine,
        pytest.raises(ShapeError, match=r"N and M must .* they are 2 and 3"),
    ):
        engine(_numbers(2, 3), _numbers(3, 3))


def test_sizes_that_data_tells_are_checked_behind_the_step_that_tells_them() -> None:
    mask = np.array([True, False, True, True])
    with planish.Engine(_plan(MASKED)) as engine:
        assert engine(_numbers(4), mask, _numbers(3)).shape == (3,)
        assert engine(_numbers(4), mask, _numbers(1)).shape == (3,)
        with pytest.raises(ShapeError, match="they are 3 and 2"):
            engine(_numbers(4), mask, _numbers(2))


def test_facts_stay_in_the_file(tmp_path: Path) -> None:
    plan = _plan(ADD)
    plan.save(tmp_path / "p.plan")
    assert plan.facts == (("broadcast", symbol("N"), symbol("M")),)
    assert read_plan(tmp_path / "p.plan").facts == plan.facts


def test_a_fact_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(PlanFileError, match="facts"):
        check_plan(replace(_plan(ADD), facts=(("smaller", 1, 2),)))
