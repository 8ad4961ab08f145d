"""What constant folding leaves for run time, lest constants fill the memory."""

from __future__ import annotations

import pytest

from planish.graph.parse import parse_graph
from planish.passes import fold_constants
from planish.passes.rewrite import PassRun

WIDENED = """graph g
  input %x: f32[1]
  const %one: f32[1] = [2.0]
  const %size: i64[1] = [{size}]
  %a = Expand(%one, %size)
  %b = Neg(%a)
  %y = Concat(%a, %b, %x) axis=0
  output %y
"""


def folded(text: str) -> list[str]:
    graph = parse_graph(text)
    PassRun(graph).run(fold_constants.PASS)
    return [node.op for node in graph.nodes]


def test_small_results_are_folded() -> None:
    assert folded(WIDENED.format(size=100)) == ["Concat"]


def test_a_result_of_gigabytes_is_not() -> None:
    assert folded(WIDENED.format(size=1 << 29)) == ["Expand", "Neg", "Concat"]


def test_many_results_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_constants, "_SMALL", 100)
    monkeypatch.setattr(fold_constants, "_ROOM", 12_000)
    text = """graph g
  input %x: f32[1]
  const %one: f32[1] = [2.0]
  const %two: f32[1] = [3.0]
  const %size: i64[1] = [2000]
  %a = Expand(%one, %size)
  %b = Expand(%two, %size)
  %y = Concat(%a, %b, %x) axis=0
  output %y
"""
    assert folded(text) == ["Expand", "Concat"]


def test_a_constant_joined_to_itself_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_constants, "_SMALL", 100)
    monkeypatch.setattr(fold_constants, "_LARGE", 100)
    text = """graph g
  const %c: f32[10] = random(1)
  %a = Concat(%c, %c, %c) axis=0
  output %a
"""
    assert folded(text) == ["Concat"]


def test_random_bodies_are_not_folded() -> None:
    text = """graph g
  const %n: i64[] = 3
  const %go: bool[] = true
  const %start: f32[2] = [0.0, 0.0]
  %y: f32[2] = Loop(%n, %go, %start)
    body =
      graph body
        input %i: i64[]
        input %c: bool[]
        input %s: f32[2]
        %k: bool[] = Identity(%c)
        %r: f32[2] = RandomNormalLike(%s)
        %t: f32[2] = Add(%s, %r)
        output %k
        output %t
  output %y
"""
    assert folded(text) == ["Loop"]
