"""The text of a graph: what dumps, golden tests and people read.

    graph block
      symbol N 1..32
      input %x: f32[N,3,8,8]
      const %w: f32[4,3,3,3] = random(1)
      const %axes: i64[2] = [2, 3]
      %y: f32[N,4,8,8] = Conv(%x, %w) pads=[1, 1, 1, 1] @conv1 <- conv1 bn1
      %m: f32[N,4,1,1] = ReduceMean(%y, %axes)
      output %m

A line a value. Behind a node stand its attributes, then `@name` where the node is not called as
its first output, then `<-` and the ONNX nodes it came from where those are others than itself. `_`
is an operand left out. Graphs in attributes follow their node, two steps further in. Constants of
more than 16 elements are printed as their digest; `sizes` are sizes that no node computes.

`parse.py` reads it back, and more besides.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, TensorType, Value

_INLINE = 16  # elements of a constant that are still printed
_PLAIN = re.compile(r"[\w./$-]+")


def print_graph(graph: Graph, *, digests: bool = True) -> str:
    """The text of a graph, ending in a newline.

    Args:
        graph: The graph.
        digests: Print the digests of large constants; else "…", so that the text depends on no
            rounding.
    """
    return "\n".join(_lines(graph, "", set(), digests)) + "\n"


def print_node(node: Node) -> str:
    """A node's line."""
    outputs = ", ".join("_" if v is None else f"%{quoted(v.name)}: {v.type}" for v in node.outputs)
    inputs = ", ".join("_" if v is None else f"%{quoted(v.name)}" for v in node.inputs)
    words = [f"{outputs} = {node.op}({inputs})"]
    plain = {k: v for k, v in node.attrs.items() if not isinstance(v, Graph)}
    words += [f"{name}={_attr_text(value)}" for name, value in sorted(plain.items())]
    first = next((v.name for v in node.outputs if v is not None), "")
    if node.name != first:
        words.append(f"@{quoted(node.name)}")
    if node.origin != (node.name,):
        words += ["<-", *map(quoted, node.origin)]
    return " ".join(words)


def quoted(name: str) -> str:
    """A name as it stands in the text: in quotes where it has unusual characters."""
    return name if _PLAIN.fullmatch(name) and name != "_" else json.dumps(name)


def _lines(graph: Graph, indent: str, known: set[Value], digests: bool) -> list[str]:
    lines = [f"{indent}graph {quoted(graph.name)}"]
    inner = indent + "  "
    lines += [
        f"{inner}symbol {quoted(s)} {low}..{high}" for s, (low, high) in graph.symbols.items()
    ]
    lines += [f"{inner}input %{quoted(v.name)}: {v.type}" for v in graph.inputs]
    known = known | set(graph.inputs)

    def leaves(values: list[Value | None]) -> list[str]:
        new = [v for v in values if v is not None and v not in known and (v.is_const or v.is_sizes)]
        known.update(new)
        return [inner + _leaf_text(v, digests) for v in dict.fromkeys(new)]

    for node in graph.nodes:
        lines += [*leaves(node.inputs), inner + print_node(node)]
        for name, body in sorted(node.attrs.items()):
            if isinstance(body, Graph):
                lines.append(f"{inner}  {name} =")
                lines += _lines(body, inner + "    ", known, digests)
        known.update(v for v in node.outputs if v is not None)
    lines += leaves(list(graph.outputs))
    return lines + [f"{inner}output %{quoted(v.name)}" for v in graph.outputs]


def _leaf_text(value: Value, digests: bool) -> str:
    head = f"%{quoted(value.name)}: {value.type}"
    if value.data is None:
        return f"sizes {head} = [{', '.join(map(str, value.dims or ()))}]"
    return f"const {head} = {_data_text(np.asarray(value.data), value.digest if digests else '')}"


def _data_text(data: np.ndarray, digest: str) -> str:
    if data.size > _INLINE or data.dtype.kind == "c":
        return f"digest({digest})" if digest else "…"
    items = [_element_text(item) for item in data.reshape(-1)]
    return items[0] if data.ndim == 0 else f"[{', '.join(items)}]"


def _element_text(item: Any) -> str:
    if isinstance(item, str | bytes):
        return json.dumps(item if isinstance(item, str) else item.decode("utf-8", "replace"))
    if isinstance(item, bool | np.bool_):
        return "true" if item else "false"
    return str(item)


def _attr_text(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_attr_text, value))}]"
    if isinstance(value, np.ndarray):
        kind = TensorType(DType.from_numpy(value.dtype), value.shape)
        return f"{kind}{{{_data_text(value, Value('', kind, value).digest)}}}"
    if isinstance(value, int | float):
        return repr(value)
    return f"<{type(value).__name__}>"
