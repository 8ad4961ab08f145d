"""The reference interpreter: sizes that no node computes, bodies, planish's own operators."""

from __future__ import annotations

import numpy as np
import pytest

from planish.base.errors import UnsupportedError
from planish.graph.parse import parse_graph
from planish.graph.reference import evaluate_node, interpret


def test_sizes_are_filled_in() -> None:
    graph = parse_graph(
        """
        graph g
          input %x: f32[N,6]
          input %t: f32[1,3]
          sizes %to: i64[2] = [2*N, 3]
          sizes %count: i64[] = [N]
          const %zero: i64[] = 0
          const %one: i64[] = 1
          %a = Reshape(%x, %to)
          %b = Expand(%t, %to)
          %r = Range(%zero, %count, %one)
          output %a
          output %b
          output %r
        """
    )
    values = interpret(graph, {"x": np.zeros((4, 6), np.float32), "t": np.ones((1, 3), np.float32)})
    assert values["a"].shape == (8, 3) and values["b"].shape == (8, 3)
    assert values["r"].tolist() == [0, 1, 2, 3]


def test_data_dependent_sizes_are_learnt_on_the_way() -> None:
    graph = parse_graph(
        """
        graph g
          input %x: f32[4]
          %n = NonZero(%x)
          %s = Shape(%n)
          output %s
        """
    )
    values = interpret(graph, {"x": np.array([0, 1, 2, 0], np.float32)})
    assert values["s"].tolist() == [1, 2]


def test_bodies_read_from_outside() -> None:
    graph = parse_graph(
        """
        graph g
          input %c: bool[]
          input %x: f32[2]
          const %one: f32[] = 1.0
          %y: f32[2] = If(%c)
            then_branch =
              graph yes
                %p: f32[2] = Add(%x, %one)
                output %p
            else_branch =
              graph no
                %q: f32[2] = Neg(%x)
                output %q
          output %y
        """
    )
    x = np.array([1, 2], np.float32)
    assert interpret(graph, {"c": np.array(True), "x": x})["y"].tolist() == [2, 3]
    assert interpret(graph, {"c": np.array(False), "x": x})["y"].tolist() == [-1, -2]


def test_scaled_attention() -> None:
    graph = parse_graph(
        """
        graph g
          input %q: f32[2,5,4]
          input %k: f32[2,7,4]
          input %v: f32[2,7,3]
          input %m: f32[7]
          input %keep: bool[5,1]
          const %fill: f32[] = -1.5
          %y = planish::ScaledAttention(%q, %k, %v, %m, %keep, %fill) scale=0.5
          output %y
        """
    )
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in
             {"q": (2, 5, 4), "k": (2, 7, 4), "v": (2, 7, 3), "m": (7,)}.items()}  # fmt: skip
    feeds["keep"] = np.array([[True], [False], [True], [True], [False]])
    found = interpret(graph, feeds)["y"]
    assert str(graph.nodes[0].output.type) == "f32[2,5,3]"
    scores = np.einsum("bqd,bkd->bqk", feeds["q"], feeds["k"]).astype(np.float64) * 0.5 + feeds["m"]
    scores = np.where(feeds["keep"], scores, -1.5)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, weights @ feeds["v"], rtol=1e-5)


def test_what_the_reference_cannot_run_is_told() -> None:
    graph = parse_graph(
        "graph g\n  input %x: f32[2]\n  %y: f32[2] = com.me::Own(%x)\n  output %y\n"
    )
    with pytest.raises(UnsupportedError, match=r"node 'y' \(com.me::Own\) fails"):
        evaluate_node(graph.nodes[0], {"x": np.zeros(2, np.float32)})
