"""Grouping into layers: golden text of what is fused, merged and missed.

A file of tests/passes/golden/layers/ holds a graph, a line of dashes, the layers that fuse_layers
and merge_siblings make of it (kind, nodes; "||" between siblings) and what explain_missed says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from planish.graph.graph import Graph, Node
from planish.graph.layer import Layer, sort_layers
from planish.graph.parse import parse_graph
from planish.passes.explain_missed import explain_missed
from planish.passes.fuse_layers import fuse_layers, native_reason
from planish.passes.merge_siblings import merge_siblings
from planish.passes.rewrite import PassRun
from planish.passes.table import PASSES

GOLDEN = Path(__file__).parent / "golden" / "layers"
LINE = "-" * 40 + "\n"
FILES = sorted(GOLDEN.glob("*.txt"))


def everything(kind: str, node: Node) -> bool:
    return True


def layers_of(graph: Graph) -> list[Layer]:
    return merge_siblings(graph, fuse_layers(graph, native_reason, everything))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_text(path: Path, golden: Callable[[Path, str], None]) -> None:
    before = path.read_text(encoding="utf-8").partition(LINE)[0]
    graph = parse_graph(before)
    layers = layers_of(graph)
    lines = [f"{layer.kind}: {layer.name}" for layer in layers]
    lines += [f"{name}: {reason}" for name, reason in explain_missed(graph, layers)]
    golden(path, before + LINE + "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_node_once_and_in_order(path: Path) -> None:
    graph = parse_graph(path.read_text(encoding="utf-8").partition(LINE)[0])
    layers = layers_of(graph)
    nodes = [node for layer in layers for node in layer.nodes]
    assert sorted(map(id, nodes)) == sorted(map(id, graph.nodes))
    known = set(graph.inputs)
    for layer in layers:
        read = [v for v in layer.inputs() if not v.is_const and not v.is_sizes]
        assert known.issuperset(read), layer.name
        known.update(v for node in layer.nodes for v in node.outputs if v is not None)
        assert layer.anchor in layer.nodes


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_fused_layer_has_one_result(path: Path) -> None:
    graph = parse_graph(path.read_text(encoding="utf-8").partition(LINE)[0])
    for layer in layers_of(graph):
        for part in layer.siblings or (layer,):
            if len(part.nodes) > 1:
                assert len(part.outputs(graph)) == 1, part.name


def test_what_a_kernel_cannot_absorb_stays_outside() -> None:
    graph = parse_graph(
        """
        graph g
          input %x: f32[1,2,4,4]
          const %w: f32[3,2,1,1] = random(1)
          %a = Conv(%x, %w)
          %b = Relu(%a)
          %y = Exp(%b)
          output %y
        """
    )

    def no_exp(kind: str, node: Node) -> bool:
        return node.op != "Exp"

    layers = fuse_layers(graph, native_reason, no_exp)
    assert [layer.name for layer in layers] == ["a + b", "y"]
    missed = explain_missed(graph, layers, no_exp)
    assert missed == [("y", "not absorbed by a: no kernel of kind conv takes Exp")]


def test_layers_that_need_each_other_are_refused() -> None:
    graph = parse_graph(
        """
        graph g
          input %x: f32[4]
          %a = Neg(%x)
          %b = Exp(%a)
          %c = Add(%a, %b)
          output %c
        """
    )
    a, b, c = graph.nodes
    with pytest.raises(ValueError, match="need each other"):
        sort_layers([Layer("loop", c, [a, c]), Layer("loop", b, [b])])


def missed_after_all_passes(text: str) -> list[tuple[str, str]]:
    graph = parse_graph(text)
    run = PassRun(graph)
    for work in PASSES:
        run.run(work)
    return explain_missed(graph, layers_of(graph))


def test_batch_norms_that_stay() -> None:
    missed = missed_after_all_passes(
        """
        graph g
          input %x: f32[1,4,6,6]
          const %x2: f32[1] = [2.0]
          const %w: f32[4,4,1,1] = random(1)
          const %s: f32[4] = random(2, 0.5, 1.5)
          const %b: f32[4] = random(3)
          %pool = MaxPool(%x) kernel_shape=[2, 2]
          %bn1 = BatchNormalization(%pool, %s, %b, %b, %s)
          %r = Relu(%bn1)
          %conv = Conv(%r, %w)
          %twice = Add(%conv, %x2)
          %bn2 = BatchNormalization(%conv, %s, %b, %b, %s)
          %folded = Conv(%bn2, %w)
          %bn3 = BatchNormalization(%folded, %s, %b, %b, %s)
          output %twice
          output %bn3
        """
    )
    reasons = dict(missed)
    no_weights = "not folded into weights: it follows pool (MaxPool), which has no weights"
    assert reasons["bn1"] == no_weights
    assert reasons["twice"] == "not absorbed by conv: conv is also read by folded (Conv)"
    assert not {"bn2", "bn3"} & set(reasons)  # into the convolution behind, and the one in front


def test_softmaxes_that_are_no_attention() -> None:
    missed = missed_after_all_passes(
        """
        graph g
          input %q: f32[2,5,4]
          input %k: f32[2,4,5]
          input %v: f32[2,5,4]
          %s = MatMul(%q, %k)
          %t = Tanh(%s)
          %p = Softmax(%t)
          %y = MatMul(%p, %v)
          %s2 = MatMul(%v, %k)
          %p2 = Softmax(%s2)
          %y2 = MatMul(%p2, %v)
          output %y
          output %y2
          output %p2
        """
    )
    assert missed == [
        ("p", "not fused to attention: its scores are no scaled and masked product"),
        ("p2", "not fused to attention: p2 is read by others too"),
    ]
