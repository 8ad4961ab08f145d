"""The verifier: it accepts sound graphs and names every problem of a malformed one."""

from __future__ import annotations

import numpy as np
import pytest

from planish.base.dtypes import DType
from planish.base.errors import VerifyError
from planish.graph.graph import Graph, Node, TensorType, Value, constant
from planish.graph.parse import parse_graph
from planish.graph.verify import verify

TEXT = """
graph g
  input %x: f32[N,4]
  const %c: f32[4] = [1.0, 2.0, 3.0, 4.0]
  sizes %to: i64[2] = [4, N]
  %a = Mul(%x, %c)
  %b = Reshape(%a, %to)
  %y = Relu(%b)
  output %y
"""


def sound() -> Graph:
    graph = parse_graph(TEXT)
    verify(graph)
    return graph


def expect(graph: Graph, *messages: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(graph)
    for message in messages:
        assert message in str(caught.value)


def test_order() -> None:
    graph = sound()
    graph.nodes.reverse()
    expect(graph, "Relu(y) reads 'b', which is made by Reshape(b) behind it", "reads 'a'")


def test_types() -> None:
    graph = sound()
    graph.nodes[0].output.type = TensorType(DType.F32, (4, 4))
    expect(graph, "'a' has type f32[4,4], Mul(a) gives f32[N,4]")


def test_carried_sizes() -> None:
    graph = parse_graph("graph g\n  input %x: f32[N,4]\n  %s = Shape(%x)\n  output %s\n")
    verify(graph)
    graph.nodes[0].output.dims = (1, 4)
    expect(graph, "'s' has the contents (1, 4), Shape(s) gives (N, 4)")


def test_operator_that_refuses_its_inputs() -> None:
    graph = sound()
    x = graph.inputs[0]
    x.type = TensorType(DType.F32, (3, 5))
    expect(graph, "Mul(a): shapes")


def test_producers() -> None:
    graph = sound()
    graph.nodes[1].output.producer = None
    expect(graph, "Reshape(b) makes 'b', whose producer is None")


def test_made_twice() -> None:
    graph = sound()
    mul = graph.nodes[0]
    twin = Node("Mul", mul.inputs, mul.outputs, name="twin")
    expect(Graph("g", graph.inputs, graph.outputs, [mul, twin, *graph.nodes[1:]]), "exists already")


def test_names() -> None:
    graph = sound()
    graph.nodes[0].output.name = "x"
    graph.nodes[2].name = graph.nodes[1].name
    expect(graph, "two values are called 'x'", "two nodes are called 'b'")


def test_outputs() -> None:
    graph = sound()
    graph.outputs.append(Value("lost", TensorType(DType.F32, ())))
    expect(graph, "graph output 'lost' is made by no node")


def test_values_from_nowhere() -> None:
    graph = sound()
    graph.nodes[2].inputs[0] = Value("lost", TensorType(DType.F32, (4, 4)))
    expect(graph, "Relu(y) reads 'lost', which is made by nothing")


def test_constants() -> None:
    graph = sound()
    wrong = constant("c2", np.zeros(4, np.float32))
    wrong.type = TensorType(DType.F32, (4, 1))
    graph.nodes[0].inputs[1] = wrong
    expect(graph, "constant 'c2' has type f32[4,1], its contents are f32[4]", "readers of 'c2'")


def test_bodies() -> None:
    graph = parse_graph(
        """
        graph g
          input %c: bool[]
          input %x: f32[2]
          %y: f32[2] = If(%c)
            then_branch =
              graph yes
                %p = Neg(%x)
                output %p
            else_branch =
              graph no
                output %x
          output %y
        """
    )
    verify(graph)
    body = graph.nodes[0].attrs["then_branch"]
    body.nodes[0].output.producer = None
    expect(graph, "then_branch of If(y): Neg(p) makes 'p', whose producer is None")
