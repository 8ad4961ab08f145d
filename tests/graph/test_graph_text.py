"""The text of graphs: printing and parsing are inverses; wrong text is refused with its line."""

from __future__ import annotations

import numpy as np
import pytest

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.shapes import symbol
from planish.graph.graph import Graph, Node, TensorType, Value, constant, known_sizes
from planish.graph.parse import parse_graph
from planish.graph.text import print_graph, print_node

BLOCK = """\
graph block
  symbol N 1..32
  input %x: f32[N,3,8,8]
  const %w: f32[4,3,3,3] = digest(DIGEST)
  %y: f32[N,4,8,8] = Conv(%x, %w) pads=[1, 1, 1, 1] @conv1 <- conv1 bn1
  %r: f32[N,4,8,8] = Relu(%y)
  const %axes: i64[2] = [2, 3]
  %m: f32[N,4,1,1] = ReduceMean(%r, %axes)
  sizes %to: i64[2] = [N, 4]
  %flat: f32[N,4] = Reshape(%m, %to)
  output %flat
"""


def test_prints_what_it_reads() -> None:
    weights = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
    digest = constant("w", weights).digest
    text = BLOCK.replace("DIGEST", digest)
    graph = parse_graph(text, {digest: weights})
    assert print_graph(graph) == text
    assert "digest(" not in print_graph(graph, digests=False)


def test_types_may_be_left_out_and_constants_random() -> None:
    graph = parse_graph(
        """
        graph g
          input %x: f32[N,3,8,8]
          const %w: f32[4,3,3,3] = random(1)
          const %s: f32[4] = random(2, 0.5, 1.5)
          const %i: i64[5] = random(3)
          %y = Conv(%x, %w)
          output %y
        """
    )
    assert str(graph.nodes[0].output.type) == "f32[N,4,6,6]"
    weights = graph.nodes[0].inputs[1]
    assert weights is not None and weights.data is not None and weights.data.std() > 0.5


@pytest.mark.parametrize(
    "line",
    [
        "const %c: f32[] = 0.1",
        "const %c: f16[2] = [0.1, -0.0]",
        "const %c: bf16[1] = [1.5]",
        "const %c: f32[3] = [inf, -inf, nan]",
        "const %c: f64[1] = [1e-300]",
        "const %c: i64[0] = []",
        "const %c: i8[2,2] = [-128, 127, 0, 1]",
        "const %c: bool[2] = [true, false]",
        'const %c: str[2] = ["a, b]", "\\"%x\\""]',
        "const %c: u4[2] = [15, 0]",
        "sizes %c: i64[3] = [floordiv(N,2), 2*N, 7]",
    ],
)
def test_constants_keep_every_bit(line: str) -> None:
    text = f"graph g\n  {line}\n  output %c\n"
    assert print_graph(parse_graph(text)) == text


def test_attributes_and_odd_names() -> None:
    attrs = {
        "i": 3,
        "f": 1e-5,
        "whole": 2.0,
        "none": (),
        "ints": (1, -2),
        "floats": (0.5, float("inf")),
        "s": 'a "b" ]',
        "strings": ("x", "y"),
        "t": np.array([1.5, 2.0], np.float32),
    }
    x = Value("x y:0", TensorType(DType.F32, (2,)))
    out = Value("%", TensorType(DType.F32, None))
    node = Node("com.me::Own", [None, x], [None, out], attrs, name="_", origin=("a b", "c"))
    text = print_graph(Graph("a graph", [x], [out], [node]))
    again = parse_graph(text)
    assert print_graph(again) == text
    found = again.nodes[0].attrs
    assert np.asarray(found.pop("t")).tolist() == np.asarray(attrs.pop("t")).tolist()
    assert found == attrs
    assert [type(found[n]) for n in attrs] == [type(attrs[n]) for n in attrs]


def test_graphs_in_attributes() -> None:
    text = """\
graph g
  input %c: bool[]
  input %x: f32[2]
  %y: f32[2] = If(%c)
    else_branch =
      graph no
        %n: f32[2] = Neg(%x)
        output %n
    then_branch =
      graph yes
        const %one: f32[] = 1.0
        %p: f32[2] = Add(%x, %one)
        output %p
  %z: f32[2] = Relu(%y)
  output %z
"""
    graph = parse_graph(text)
    assert print_graph(graph) == text
    x = graph.inputs[1]
    assert [user.op for user in graph.users(x)] == ["If"]


def test_a_graph_output_may_be_constant_or_an_input() -> None:
    text = "graph g\n  input %x: f32[2]\n  const %c: f32[] = 1.0\n  output %x\n  output %c\n"
    assert print_graph(parse_graph(text)) == text


def test_node_line() -> None:
    value = Value("y", TensorType(DType.F32, (symbol("N"),)))
    sizes = known_sizes("s", (symbol("N"),))
    node = Node("Expand", [constant("one", np.float32(1)), sizes], [value], name="e", origin=())
    assert print_node(node) == "%y: f32[N] = Expand(%one, %s) @e <-"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "too early"),
        ("graph g\n  input %x f32[2]", "line 2.*expected ':'"),
        ("graph g\n  input %x: f99[2]", "line 2.*f99"),
        ("graph g\n  %y = Relu(%x)", "line 2.*nothing above makes the value 'x'"),
        ("graph g\n  input %x: f32[2]\n  %x = Relu(%x)", "line 3.*made twice"),
        ("graph g\n  input %x: f32[2]\n  %y = Relu(%x) k=", "line 3.*expected a literal"),
        ("graph g\n  input %x: f32[2]\n  %y = Relu(%x) @y extra", "line 3.*end of the line"),
        ("graph g\n  const %c: f32[20] = digest(12)", "line 2.*not given"),
        ("graph g\n  const %c: f32[3] = [1.0]", "line 2"),
        ("graph g\n  const %c: f32[N] = random(1)", "line 2"),
        ("graph g\n  input %x: f32[2\n", "line 2.*']' is missing"),
        ("graph g\n  input %x: f32[2]\n  input %y: f32[3]\n  %z = Add(%x, %y)", "broadcast"),
    ],
)
def test_wrong_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        parse_graph(text)
