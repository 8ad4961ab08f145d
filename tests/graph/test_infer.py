"""Types and carried sizes, from text to values."""

from __future__ import annotations

import pytest

from planish.graph.parse import parse_graph
from planish.ops.sizes import LIMIT


@pytest.mark.parametrize(
    "made", ["Expand(%one, %count)", "ConstantOfShape(%count) value=i64[1]{[1]}"]
)
def test_contents_of_large_tensors_are_not_listed(made: str) -> None:
    graph = parse_graph(f"""graph g
  input %x: i64[1]
  const %one: i64[1] = [1]
  const %count: i64[1] = [100000000000]
  %wide = {made}
  %again = Mul(%wide, %one)
  %y = Concat(%again, %again, %x) axis=0
  output %y
""")
    assert [value.dims for node in graph.nodes for value in node.outputs if value] == [None] * 3
    assert graph.outputs[0].shape == (200000000001,)


def test_contents_that_grow_by_joining_end() -> None:
    steps = "\n".join(f"  %d{n + 1} = Concat(%d{n}, %d{n}) axis=0" for n in range(40))
    graph = parse_graph(f"""graph g
  input %x: f32[n]
  %d0 = Shape(%x)
{steps}
  output %d40
""")
    assert graph.outputs[0].shape == (1 << 40,)
    assert max(len(v.dims) for n in graph.nodes for v in n.outputs if v and v.dims) == LIMIT
