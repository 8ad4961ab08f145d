"""How tools spell quantised networks: each spelling ends in integer contractions of u8 by s8."""

from __future__ import annotations

import numpy as np
import pytest
from graph_runs import outputs_of, random_feeds

from planish.base.dtypes import DType
from planish.graph.graph import Graph
from planish.graph.parse import parse_graph
from planish.graph.verify import verify
from planish.passes.rewrite import PassRun
from planish.passes.table import INTEGER_PASSES, PASSES

_SIGNED = """graph signed_and_symmetric_with_weights_quantised_in_the_graph
  input %x: f32[N,4,6,6]
  const %s: f32[] = 0.0625
  const %z: i8[] = 0
  const %w: f32[4,4,3,3] = random(1)
  const %ws: f32[4] = [0.03125, 0.0625, 0.03125, 0.0625]
  const %wz: i8[4] = [0, 0, 0, 0]
  const %b: f32[4] = [1.0, -2.0, 0.5, 0.0]
  %q = QuantizeLinear(%x, %s, %z)
  %d = DequantizeLinear(%q, %s, %z)
  %wq = QuantizeLinear(%w, %ws, %wz) axis=0
  %wd = DequantizeLinear(%wq, %ws, %wz) axis=0
  %c = Conv(%d, %wd, %b) pads=[1, 1, 1, 1]
  %r = Relu(%c)
  %q2 = QuantizeLinear(%r, %s, %z)
  %d2 = DequantizeLinear(%q2, %s, %z)
  %y = Conv(%d2, %wd) pads=[1, 1, 1, 1]
  output %y
"""
_GEMM = """graph gemm_with_turned_weights_and_a_factor
  input %x: f32[N,6]
  const %s: f32[] = 0.0625
  const %z: u8[] = 120
  const %w: i8[4,6] = random(1)
  const %ws: f32[4] = [0.03125, 0.0625, 0.03125, 0.0625]
  const %b: i32[4] = [100, -200, 50, 0]
  const %bs: f32[4] = [0.001953125, 0.00390625, 0.001953125, 0.00390625]
  %q = QuantizeLinear(%x, %s, %z)
  %d = DequantizeLinear(%q, %s, %z)
  %wd = DequantizeLinear(%w, %ws) axis=0
  %bd = DequantizeLinear(%b, %bs) axis=0
  %y = Gemm(%d, %wd, %bd) transB=1 alpha=0.5
  output %y
"""
_PARTLY = """graph only_one_of_two_layers
  input %x: f32[N,4,6,6]
  const %s: f32[] = 0.0625
  const %z: u8[] = 120
  const %w: i8[4,4,1,1] = random(1)
  const %ws: f32[] = 0.03125
  const %v: f32[4,4,3,3] = random(2)
  %q = QuantizeLinear(%x, %s, %z)
  %d = DequantizeLinear(%q, %s, %z)
  %wd = DequantizeLinear(%w, %ws)
  %c = Conv(%d, %wd)
  %y = Conv(%c, %v) pads=[1, 1, 1, 1]
  output %y
"""
_MOVED = """graph views_between_quantising_and_product
  input %x: f32[N,2,3,4]
  const %s: f32[] = 0.0625
  const %z: u8[] = 120
  const %w: i8[6,5] = random(1)
  const %ws: f32[5] = [0.03125, 0.0625, 0.03125, 0.0625, 0.125]
  const %shape: i64[3] = [0, 4, 6]
  %q = QuantizeLinear(%x, %s, %z)
  %d = DequantizeLinear(%q, %s, %z)
  %t = Transpose(%d) perm=[0, 3, 1, 2]
  %r = Reshape(%t, %shape)
  %wd = DequantizeLinear(%w, %ws) axis=1
  %y = MatMul(%r, %wd)
  output %y
"""
STYLES = {"signed": (_SIGNED, 2), "gemm": (_GEMM, 1), "partly": (_PARTLY, 1), "moved": (_MOVED, 1)}


def integers(text: str) -> Graph:
    graph = parse_graph(text)
    run = PassRun(graph)
    for work in (*PASSES, *INTEGER_PASSES):
        run.run(work)
    verify(graph)
    return graph


@pytest.mark.parametrize("style", STYLES)
def test_products_are_of_bytes(style: str) -> None:
    text, count = STYLES[style]
    found = [n for n in integers(text).nodes if n.op in ("ConvInteger", "MatMulInteger")]
    assert len(found) == count
    for node in found:
        x, w = node.inputs
        assert x is not None and x.dtype is DType.U8
        assert w is not None and w.dtype is DType.I8 and w.is_const


@pytest.mark.parametrize("style", STYLES)
def test_numbers(style: str) -> None:
    text, _ = STYLES[style]
    feeds = random_feeds(parse_graph(text))
    (wanted,) = outputs_of(parse_graph(text), feeds).values()
    (found,) = outputs_of(integers(text), feeds).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
