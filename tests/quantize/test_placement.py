"""Placement: what is stored in 8 bits in small networks, and which values share a scale."""

from __future__ import annotations

import pytest
from small_networks import BRANCHES, DEPTHWISE, NORMED, RESIDUAL, graph_of, layers_of

from planish.quantize.placement import Placement, place
from planish.quantize.settings import make_settings


def placed(text: str, **layers: str) -> Placement:
    graph = graph_of(text)
    return place(graph, layers_of(graph), make_settings(layer_precisions=layers))


def eight(found: Placement) -> set[str]:
    return {value.name for group in found.groups for value in group.values}


def readers(found: Placement, name: str) -> set[str]:
    (nodes,) = [nodes for value, nodes in found.readers.items() if value.name == name]
    return {node.name for node in nodes}


def test_what_goes_from_layer_to_layer_is_in_8_bits() -> None:
    found = placed(RESIDUAL)
    assert eight(found) == {"x", "r0", "r1", "p", "c2", "g", "f"}
    assert readers(found, "r0") == {"c1", "a"}  # the skip is read in 8 bits, too
    assert [node.name for node in found.contractions] == ["c0", "c1", "c2", "m"]


def test_a_pool_and_a_view_share_the_scale_of_what_they_read() -> None:
    groups = [[v.name for v in group.values] for group in placed(RESIDUAL).groups]
    assert ["r1", "p"] in groups
    assert ["g", "f"] in groups


def test_a_concat_shares_one_scale_with_all_its_inputs() -> None:
    found = placed(BRANCHES)
    (group,) = [g for g in found.groups if len(g.values) > 1]
    assert {v.name for v in group.values} == {"r0", "r1", "j"}
    assert {v.name for v in group.roots} == {"r0", "r1"}
    assert group.name == "r0"


def test_results_of_the_network_and_softmax_stay_floats() -> None:
    found = placed(RESIDUAL)
    assert not eight(found) & {"y", "s", "m"}
    precisions = {p.op: p for p in found.precisions}
    assert precisions["Softmax"].precision == "fp32"
    assert "stays in floats" in precisions["Softmax"].why


def test_the_skip_of_a_layer_that_writes_floats_stays_a_float() -> None:
    text = """
graph stream
  input %x: f32[2,5,8]
  const %w0: f32[8,8] = random(1)
  const %w1: f32[8,8] = random(2)
  const %w2: f32[8,8] = random(5)
  const %p: f32[5,8] = random(3)
  const %g: f32[8] = random(4)
  %e: f32[2,5,8] = MatMul(%x, %w0)
  %t: f32[2,5,8] = Add(%e, %p)
  %h: f32[2,5,8] = MatMul(%t, %w1)
  %r: f32[2,5,8] = Relu(%h)
  %k: f32[2,5,8] = MatMul(%r, %w2)
  %a: f32[2,5,8] = Add(%k, %t)
  %n: f32[2,5,8] = LayerNormalization(%a, %g) axis=-1
  output %n
"""
    found = placed(text)
    assert eight(found) == {"x", "t", "r"}
    assert readers(found, "t") == {"h"}


def test_a_norm_writes_floats_for_its_float_readers() -> None:
    found = placed(NORMED)
    assert eight(found) == {"n", "r"}
    assert readers(found, "n") == {"h"}  # not the residual add, whose result is a float


def test_a_layer_that_the_user_wants_in_floats() -> None:
    found = placed(RESIDUAL, c1="fp32")
    assert [node.name for node in found.contractions] == ["c0", "c2", "m"]
    assert "r0" not in eight(found)
    assert {"r1", "p"} <= eight(found)  # still read by c2
    (reason,) = [p.why for p in found.precisions if p.name == "c1"]
    assert reason == "the user wants it so"


@pytest.mark.parametrize("text", [RESIDUAL, BRANCHES, DEPTHWISE, NORMED])
def test_all_in_floats(text: str) -> None:
    found = placed(text, **{"*": "fp32"})
    assert not found.groups
    assert not found.contractions
    assert {p.precision for p in found.precisions} == {"fp32"}


def test_groups_go_by_the_names_of_layers_too() -> None:
    found = placed(RESIDUAL)
    (group,) = [g for g in found.groups if g.name == "r0"]
    assert {"r0", "c0"} <= set(group.names)
