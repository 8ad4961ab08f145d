"""Patches: names, order, readers and history after a rewrite."""

from __future__ import annotations

import numpy as np
import pytest

from planish.base.dtypes import DType
from planish.graph.graph import Node, Patch, TensorType, Value, constant
from planish.graph.infer import infer_types
from planish.graph.parse import parse_graph
from planish.graph.verify import verify

CHAIN = """
graph g
  input %x: f32[4]
  %a = Relu(%x)
  %b = Neg(%a)
  %c = Exp(%a)
  %d = Add(%b, %c)
  output %d
"""


def fresh(name: str) -> Value:
    return Value(name, TensorType(DType.F32, None))


def test_what_replaces_a_value_takes_its_name_and_place() -> None:
    graph = parse_graph(CHAIN)
    neg = graph.nodes[1]
    made = fresh(graph.fresh("b"))
    assert made.name == "b.1"
    node = Node("Abs", neg.inputs, [made], name="b", origin=("b",))
    graph.apply(Patch("abs for neg", (neg,), (node,), ((neg.output, made),)), "test")
    infer_types(graph)
    verify(graph)
    assert [n.op for n in graph.nodes] == ["Relu", "Abs", "Exp", "Add"]
    assert (made.name, node.name) == ("b", "b")
    assert not graph.holds(neg) and graph.holds(node)
    assert graph.history[-1] == graph.history[0]
    assert (graph.history[0].step, graph.history[0].origin) == ("test", ("b",))


def test_a_node_moves_behind_what_it_reads() -> None:
    graph = parse_graph(CHAIN)
    neg, exp = graph.nodes[1:3]
    made = fresh("b2")
    node = Node("Neg", [exp.output], [made])
    graph.apply(Patch("neg of exp", (neg,), (node,), ((neg.output, made),)), "test")
    infer_types(graph)
    verify(graph)
    assert [n.op for n in graph.nodes] == ["Relu", "Exp", "Neg", "Add"]


def test_patches_on_patches_before_the_order_is_asked_for() -> None:
    graph = parse_graph(CHAIN)
    neg = graph.nodes[1]
    source = neg.inputs
    for op in ("Abs", "Sqrt", "Floor"):
        made = fresh(graph.fresh("b"))
        node = Node(op, source, [made], name=neg.name)
        graph.apply(Patch(op, (neg,), (node,), ((neg.output, made),)), "test")
        neg = node
    infer_types(graph)
    verify(graph)
    assert [n.op for n in graph.nodes] == ["Relu", "Floor", "Exp", "Add"]
    assert neg.output.name == "b"


def test_graph_outputs_keep_their_names() -> None:
    graph = parse_graph(CHAIN)
    add = graph.nodes[3]
    graph.apply(
        Patch("", (add,), (), ((add.output, constant("k", np.zeros(4, np.float32))),)), "test"
    )
    assert graph.outputs[0].name == "d" and graph.outputs[0].is_const


def test_an_output_cannot_become_an_input_or_another_output() -> None:
    graph = parse_graph("graph g\n  input %x: f32[4]\n  %y = Relu(%x)\n  output %y\n")
    relu = graph.nodes[0]
    with pytest.raises(ValueError, match="graph output 'y' cannot become 'x'"):
        graph.apply(Patch("", (relu,), (), ((relu.output, graph.inputs[0]),)), "test")


def test_bodies_follow_a_replacement() -> None:
    graph = parse_graph(
        """
        graph g
          input %c: bool[]
          input %x: f32[2]
          %a = Identity(%x)
          %y: f32[2] = If(%c)
            then_branch =
              graph yes
                %p: f32[2] = Neg(%a)
                output %p
            else_branch =
              graph no
                output %a
          output %y
        """
    )
    identity, branch = graph.nodes
    graph.apply(Patch("", (identity,), (), ((identity.output, graph.inputs[1]),)), "test")
    verify(graph)
    assert branch.attrs["then_branch"].nodes[0].inputs == [graph.inputs[1]]
    assert branch.attrs["else_branch"].outputs == [graph.inputs[1]]


def test_what_nobody_reads_any_more_goes_too() -> None:
    graph = parse_graph(CHAIN)
    _, neg, exp, add = graph.nodes
    graph.apply(Patch("", (add,), (), ((add.output, exp.output),)), "test")
    verify(graph)
    assert [n.op for n in graph.nodes] == ["Relu", "Exp"]
    assert not graph.holds(neg)
    assert graph.history[0].origin == ("d", "b")
    assert graph.outputs[0].name == "d"
