"""Small networks for the tests of this room, as text, with what fusion makes of them."""

from __future__ import annotations

import numpy as np

from planish.graph.graph import Graph
from planish.graph.layer import Layer
from planish.graph.parse import parse_graph
from planish.passes.fuse_layers import fuse_layers, native_reason

RESIDUAL = """
graph residual
  input %x: f32[1,3,8,8]
  const %w0: f32[8,3,3,3] = random(1)
  const %b0: f32[8] = random(2)
  const %w1: f32[8,8,3,3] = random(3)
  const %b1: f32[8] = random(4)
  const %w2: f32[4,8,1,1] = random(5)
  const %fc: f32[4,5] = random(6)
  const %bias: f32[5] = random(7)
  const %small: f32[] = 0.01
  %c0: f32[1,8,8,8] = Conv(%x, %w0, %b0) pads=[1, 1, 1, 1]
  %r0: f32[1,8,8,8] = Relu(%c0)
  %c1: f32[1,8,8,8] = Conv(%r0, %w1, %b1) pads=[1, 1, 1, 1]
  %a: f32[1,8,8,8] = Add(%c1, %r0)
  %r1: f32[1,8,8,8] = Relu(%a)
  %p: f32[1,8,4,4] = MaxPool(%r1) kernel_shape=[2, 2] strides=[2, 2]
  %c2: f32[1,4,4,4] = Conv(%p, %w2)
  %g: f32[1,4,1,1] = GlobalAveragePool(%c2)
  %f: f32[1,4] = Flatten(%g)
  %m: f32[1,5] = MatMul(%f, %fc)
  %y: f32[1,5] = Add(%m, %bias)
  %t: f32[1,5] = Mul(%y, %small)
  %s: f32[1,5] = Softmax(%t) axis=1
  output %s
"""

BRANCHES = """
graph branches
  input %x: f32[1,4,6,6]
  const %w0: f32[4,4,1,1] = random(1)
  const %w1: f32[6,4,1,1] = random(2)
  const %w2: f32[3,10,1,1] = random(3)
  %c0: f32[1,4,6,6] = Conv(%x, %w0)
  %r0: f32[1,4,6,6] = Relu(%c0)
  %c1: f32[1,6,6,6] = Conv(%x, %w1)
  %r1: f32[1,6,6,6] = Relu(%c1)
  %j: f32[1,10,6,6] = Concat(%r0, %r1) axis=1
  %c2: f32[1,3,6,6] = Conv(%j, %w2)
  output %c2
"""

DEPTHWISE = """
graph depthwise
  input %x: f32[1,3,8,8]
  const %zero: f32[] = 0.0
  const %six: f32[] = 6.0
  const %w0: f32[6,3,1,1] = random(1)
  const %b0: f32[6] = random(2)
  const %w1: f32[6,1,3,3] = random(3)
  const %b1: f32[6] = random(4)
  const %w2: f32[4,6,1,1] = random(5)
  %c0: f32[1,6,8,8] = Conv(%x, %w0, %b0)
  %r0: f32[1,6,8,8] = Clip(%c0, %zero, %six)
  %c1: f32[1,6,8,8] = Conv(%r0, %w1, %b1) group=6 pads=[1, 1, 1, 1]
  %r1: f32[1,6,8,8] = Clip(%c1, %zero, %six)
  %c2: f32[1,4,8,8] = Conv(%r1, %w2)
  output %c2
"""

NORMED = """
graph normed
  input %x: f32[2,5,8]
  const %g: f32[8] = random(1)
  const %w0: f32[8,8] = random(2)
  const %w1: f32[8,8] = random(3)
  %n: f32[2,5,8] = LayerNormalization(%x, %g) axis=-1
  %h: f32[2,5,8] = MatMul(%n, %w0)
  %r: f32[2,5,8] = Relu(%h)
  %k: f32[2,5,8] = MatMul(%r, %w1)
  %y: f32[2,5,8] = Add(%k, %n)
  output %y
"""


def graph_of(text: str) -> Graph:
    """The graph of a text."""
    return parse_graph(text)


def layers_of(graph: Graph) -> list[Layer]:
    """What fusion makes of a graph."""
    return fuse_layers(graph, native_reason, lambda kind, node: True)


def feed(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs."""
    random = np.random.default_rng(seed)
    return {v.name: random.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
