"""Every operator of a model: its version, how it runs and why, and every problem of the file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx

from planish.importer.convert import read_graph
from planish.importer.order import node_name
from planish.importer.read import read_model
from planish.importer.schemas import ONNX, find_schema
from planish.pipeline import optimise


@dataclass(frozen=True)
class OperatorRow:
    """A node of the model.

    Attributes:
        name: Its name, or else the name of what it makes.
        op: Operator.
        domain: Its domain; "ai.onnx" for ONNX's own.
        version: Opset that gave the operator its form here; 0 where ONNX does not know it.
        reason: Why it runs on the host; "" where it runs natively or at build time.
    """

    name: str
    op: str
    domain: str
    version: int
    reason: str

    @property
    def native(self) -> bool:
        """True when no part of it runs on the host."""
        return not self.reason


@dataclass(frozen=True)
class Listing:
    """What a model is made of.

    Attributes:
        rows: Its nodes in order.
        problems: What is wrong with it; () for a good model.
        unsupported: Nodes that nothing here can run.
    """

    rows: tuple[OperatorRow, ...]
    problems: tuple[str, ...]
    unsupported: tuple[str, ...]


def list_operators(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Listing:
    """List a model's operators after all passes, and all of its problems.

    With problems in the file no node's way of running is known: then `reason` says so.

    Raises:
        ModelError: The file is missing or is no ONNX model.
    """
    proto, _ = read_model(Path(model) if isinstance(model, str | os.PathLike) else model)
    graph, problems, unsupported = read_graph(
        Path(model) if isinstance(model, str | os.PathLike) else model
    )
    reasons: dict[str, list[str]] = {}
    if not problems and not unsupported:
        optimised = optimise(graph)
        for node in optimised.graph.nodes:
            why = optimised.host_reasons.get(id(node))
            for origin in node.origin if why else ():
                reasons.setdefault(origin, []).append(why or "")
    broken = "the model cannot be imported" if problems or unsupported else ""
    opsets = {entry.domain or ONNX: int(entry.version) for entry in proto.opset_import}
    rows = []
    for position, node in enumerate(proto.graph.node):
        name, domain = node_name(node, position), node.domain or ONNX
        schema = find_schema(domain, node.op_type, opsets.get(domain, 0))
        version = 0 if schema is None else int(schema.since_version)
        why = broken or "; ".join(dict.fromkeys(reasons.get(name, ())))
        rows.append(OperatorRow(name, node.op_type, domain, version, why))
    return Listing(tuple(rows), tuple(problems), tuple(unsupported))
