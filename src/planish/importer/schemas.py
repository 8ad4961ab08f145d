"""What ONNX's schemas say of a node: whether it is well formed, and what function defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto

from planish.graph.graph import Value
from planish.importer.type_protos import proto_of
from planish.ops.table import OPS

ONNX = "ai.onnx"

Schema = Any  # onnx.defs.OpSchema, whose stubs lack much of what it has


def find_schema(domain: str, op: str, version: int) -> Schema | None:
    """The schema of an operator in an opset; None where ONNX has none."""
    if not 0 < version < 1 << 31:
        return None
    try:
        return onnx.defs.get_schema(op, version, "" if domain == ONNX else domain)
    except onnx.defs.SchemaError:
        return None


def node_problems(node: NodeProto, schema: Schema) -> list[str]:
    """What is wrong with a node, held against its schema."""
    found = []
    for what, count, low, high in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not low <= count <= high:
            expected = f"{low}" if low == high else f"{low} to {high}"
            found.append(f"expected {expected} {what}, found {count}")
    given = {attr.name: attr for attr in node.attribute}
    if len(given) != len(node.attribute):
        found.append("an attribute comes twice")
    for name, declared in schema.attributes.items():
        attr = given.get(name)
        if attr is None:
            if declared.required:
                found.append(f"attribute {name!r} is missing")
        elif not _has_type(attr, declared):
            expected, kind = declared.type.name, AttributeProto.AttributeType.Name(attr.type)
            found.append(f"attribute {name!r} is {kind}, expected {expected}")
        elif (words := _WORDS.get((schema.name, name))) and attr.s and attr.s not in words:
            accepted = ", ".join(word.decode() for word in words)
            found.append(f"attribute {name!r} is {attr.s!r}, expected one of {accepted}")
    return found


_REDUCTIONS = (b"none", b"sum", b"mean")
# What the schemas say in prose only, of operators whose functions take any other word for one.
_WORDS = {
    ("NegativeLogLikelihoodLoss", "reduction"): _REDUCTIONS,
    ("SoftmaxCrossEntropyLoss", "reduction"): _REDUCTIONS,
}


def _has_type(attr: AttributeProto, declared: Any) -> bool:
    return (
        attr.ref_attr_name != ""
        or AttributeProto.AttributeType.Name(attr.type) == declared.type.name
    )


def defining_function(
    schema: Schema, version: int, node: NodeProto, inputs: Sequence[Value | None]
) -> FunctionProto | None:
    """The function that defines an operator which planish cannot run natively itself."""
    op = OPS.get(schema.name) if schema.domain == "" else None
    if op is not None and (op.element or op.reduce or op.nest or op.expand or op.anchor):
        return None
    if schema.name in _ON_SEQUENCES:
        return None
    if schema.has_function:
        body = schema.get_function_with_opset_version(version) or schema.function_body
        return body if isinstance(body, FunctionProto) else FunctionProto.FromString(body)
    if schema.has_context_dependent_function:
        types = [proto_of(value).SerializeToString() for value in inputs]
        try:
            body = schema.get_context_dependent_function_with_opset_version(
                version, node.SerializeToString(), types
            )
        except Exception:  # the builders throw what they like; the host may still run the node
            return None
        return FunctionProto.FromString(body) if body else None
    return None


_ON_SEQUENCES = frozenset(("SequenceMap",))  # their functions are loops over sequences
