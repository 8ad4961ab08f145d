"""ModelProto → Graph: values, constants and nodes, each node adapted to the canonical opset.

Nodes get their types as they are read, since adapters and functions depend on them. Functions, the
model's own and those by which ONNX defines operators that planish lacks, are inlined on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto

from planish.base.defects import defects_named
from planish.base.dtypes import DType
from planish.base.errors import ModelError, PlanishError, UnsupportedError
from planish.graph.graph import Graph, Node, TensorType, Value
from planish.graph.infer import results_of, settle
from planish.importer.adapt_table import ADAPTERS
from planish.importer.adapters import Draft
from planish.importer.attributes import constant_data, read_attribute
from planish.importer.contrib import contrib_function, is_contrib
from planish.importer.order import node_name, sorted_nodes
from planish.importer.read import read_model, read_sparse, read_tensor
from planish.importer.schemas import ONNX, Schema, defining_function, find_schema, node_problems
from planish.importer.type_protos import UNTYPED, dim_names, infer_onnx_types, type_of
from planish.reference.evaluator import has_reference

_DEEPEST = 64  # functions within functions

Opsets = Mapping[str, int]


def import_model(model: str | Path | bytes | ModelProto, inputs: Collection[str] = ()) -> Graph:
    """Read a trained network.

    Args:
        model: A path of an ONNX file, its bytes, or a loaded model.
        inputs: Inputs that stay inputs though the model has values for them.

    Raises:
        ModelError: The file is missing, malformed or inconsistent; lists every problem found.
        UnsupportedError: The model is well formed, but has operators that nothing here can run;
            names all of them.
    """
    with defects_named("the importer"):
        graph, problems, unsupported = read_graph(model, inputs)
    if problems:
        raise ModelError("the model cannot be imported:", problems)
    if unsupported:
        raise UnsupportedError(
            "\n  - ".join(["no implementation is known for these nodes:", *unsupported]),
            hint="replace them by operators of ONNX, or put functions for them into the model",
        )
    return graph


def read_graph(
    model: str | Path | bytes | ModelProto, inputs: Collection[str] = ()
) -> tuple[Graph, list[str], list[str]]:
    """The graph as far as it can be read, every problem, and every node that nothing can run.

    Args:
        model: As for `import_model`.
        inputs: As for `import_model`.

    Raises:
        ModelError: The file is missing or is no ONNX model.
    """
    proto, folder = read_model(model)
    reader = _Reader(proto, folder, inputs)
    opsets = {entry.domain or ONNX: int(entry.version) for entry in proto.opset_import}
    newest = onnx.defs.onnx_opset_version()
    if opsets.get(ONNX, newest) > newest:
        reader.problems.append(
            f"the model is of opset {opsets[ONNX]}, the installed onnx knows {newest} at most"
        )
    elif opsets.get(ONNX, newest) < 1:
        reader.problems.append(f"the model is of opset {opsets[ONNX]}, which there never was")
    graph = reader.graph(proto.graph, {}, opsets)
    return graph, reader.problems, reader.unsupported


@dataclass
class _Scope:
    """Where names mean something: a graph, a body or a function.

    Attributes:
        known: Values by their name in the file.
        opsets: Versions of the domains.
        stated: Types that the file states.
        prefix: Before the names of nodes and values that the file does not name itself.
        origin: ONNX node that everything here came from; "" where nodes stand for themselves.
        given: Attributes of the function's caller.
        inner: True in bodies, where types may be unknown.
        depth: Functions around.
        nodes: Made so far.
    """

    known: dict[str, Value]
    opsets: Opsets
    stated: dict[str, TypeProto] = field(default_factory=dict)
    prefix: str = ""
    origin: str = ""
    given: dict[str, AttributeProto] = field(default_factory=dict)
    inner: bool = False
    depth: int = 0
    nodes: list[Node] = field(default_factory=list)


class _Reader:
    """Reads one model; nested graphs and functions share it."""

    def __init__(self, model: ModelProto, folder: Path | None, kept: Collection[str]) -> None:
        self.model = model
        self.folder = folder
        self.kept = kept
        self.problems: list[str] = []
        self.unsupported: list[str] = []
        self.functions = {(f.domain or ONNX, f.name, f.overload): f for f in model.functions}
        self._inferred: dict[str, TypeProto] | None = None
        self._names = _names_of(model.graph)
        self._dim_names = dim_names(model.graph)
        self._node_names: set[str] = set()

    # ---- graphs ---------------------------------------------------------------------------------

    def graph(
        self,
        proto: GraphProto,
        outer: dict[str, Value],
        opsets: Opsets,
        caller: _Scope | None = None,
    ) -> Graph:
        """A graph, or the body in an attribute of a caller's node."""
        inner = caller is not None
        scope = _Scope(dict(outer), opsets, inner=inner)
        if caller is not None:
            scope.prefix, scope.origin = caller.prefix, caller.origin
            scope.given, scope.depth = caller.given, caller.depth
        scope.stated = {v.name: v.type for v in (*proto.value_info, *proto.output)}
        stored: set[str] = set()
        kept = self._kept_inputs(proto) if not inner else ()
        self._read_weights(proto, scope, stored, kept)
        folded = [info.name for info in proto.input if info.name in stored]
        inputs: list[Value] = []
        for info in proto.input:
            if info.name in stored:
                continue
            if any(info.name == other.name for other in inputs):
                self.problems.append(f"graph input {info.name!r} comes twice")
                continue
            value = Value(self._own(info.name, inner), self._type(info.type, info.name))
            if not inner and value.type is UNTYPED and not info.type.WhichOneof("value"):
                self.problems.append(f"graph input {info.name!r} has no type")
            scope.known[info.name] = value
            inputs.append(value)
        made = {name for node in proto.node for name in node.output}
        before = {name for name in scope.known if name not in made or name in stored}
        before |= {info.name for info in proto.input}
        placed = sorted_nodes(proto.node, before, self.problems)
        for position, node in placed:
            self._node(node, position, scope)
        for position in sorted(set(range(len(proto.node))) - {position for position, _ in placed}):
            self._form_alone(proto.node[position], position, scope)
        outputs = self._outputs(proto, scope)
        name = proto.name or "graph"
        name = self._own(name, True) if inner else name
        return Graph(name, inputs, outputs, scope.nodes, folded=folded)

    def _kept_inputs(self, proto: GraphProto) -> Collection[str]:
        """The names asked for; those that are no inputs of the model are a problem."""
        listed = [info.name for info in proto.input]
        for name in self.kept:
            if name not in listed:
                self.problems.append(f"{name!r} cannot stay an input, the inputs are {listed}")
        return self.kept

    def _read_weights(
        self, proto: GraphProto, scope: _Scope, stored: set[str], kept: Collection[str]
    ) -> None:
        weights: list[tuple[str, Callable[[], np.ndarray]]] = []
        for tensor in proto.initializer:
            weights.append((tensor.name, partial(read_tensor, tensor, self.folder)))
        for sparse in proto.sparse_initializer:
            weights.append((sparse.values.name, partial(read_sparse, sparse, self.folder)))
        for name, read in weights:
            if name in kept:
                continue
            if name in stored:
                self.problems.append(f"initializer {name!r} comes twice")
            stored.add(name)
            try:
                data = read()
            except ModelError as error:
                self.problems.append(error.message)
                data = np.zeros(())
            scope.known[name] = self._constant(self._own(name, scope.inner), data)

    def _outputs(self, proto: GraphProto, scope: _Scope) -> list[Value]:
        outputs: list[Value] = []
        for number, info in enumerate(proto.output):
            value = scope.known.get(info.name)
            if value is None:
                self.problems.append(f"graph output {info.name!r} is made by no node")
                continue
            if not scope.inner and any(info.name == o.name for o in proto.output[:number]):
                self.problems.append(f"graph output {info.name!r} comes twice")
                continue
            stated = self._type(info.type, info.name)
            types = (stated.dtype, value.dtype)
            if not scope.inner and DType.OBJECT not in types and len(set(types)) == 2:
                self.problems.append(
                    f"graph output {info.name!r} is stated as {stated.dtype}, but is {value.dtype}"
                )
            outputs.append(value)
        return outputs

    # ---- nodes ----------------------------------------------------------------------------------

    def _node(self, proto: NodeProto, position: int, scope: _Scope) -> None:
        local = node_name(proto, position)
        label = f"node {(scope.origin or local)!r} ({proto.op_type})"
        inputs: list[Value | None] = []
        for source in proto.input:
            if source and source not in scope.known:  # its maker has a problem, which is listed
                self._form_alone(proto, position, scope)
                return
            inputs.append(scope.known[source] if source else None)
        while inputs and inputs[-1] is None:
            inputs.pop()
        domain = proto.domain or ONNX
        function = self.functions.get((domain, proto.op_type, proto.overload))
        if function is not None:
            self._inline(function, proto, inputs, local, scope)
            return
        if self._contrib(proto, inputs, local, label, scope):
            return
        form = self._form(proto, label, scope)
        if form is None:
            return
        schema, version = form
        if schema is not None:
            resolved = _resolved(proto, scope.given)
            body = defining_function(schema, version, resolved, inputs)
            if body is not None:
                self._inline(body, resolved, inputs, local, scope)
                return
        if domain != ONNX and not has_reference(domain, proto.op_type):
            self.unsupported.append(f"{label} of domain {domain!r}")
        try:
            attrs = self._attributes(proto, scope)
            if domain == ONNX and proto.op_type == "Constant":
                data = constant_data(attrs)
                name = self._own(scope.prefix + proto.output[0], scope.inner or bool(scope.prefix))
                scope.known[proto.output[0]] = self._constant(name, data)
                return
            op = proto.op_type if domain == ONNX else f"{domain}::{proto.op_type}"
            draft = self._draft(op, inputs, attrs, local, scope, len(proto.output))
            if domain == ONNX:
                for row in ADAPTERS.get(op, ()):
                    if version < row.until:
                        row.adapt(draft)
        except ModelError as error:
            self.problems.append(f"{label}: {error.message}")
            return
        outputs: list[Value | None] = []
        for target in proto.output:
            if not target:
                outputs.append(None)
                continue
            own = self._own(scope.prefix + target, scope.inner or bool(scope.prefix))
            made = Value(own, self._stated(target, scope))
            scope.known[target] = made
            outputs.append(made)
        self._add(draft.op, draft.inputs, outputs, draft.attrs, local, scope, label)

    def _form(
        self, proto: NodeProto, label: str, scope: _Scope
    ) -> tuple[Schema | None, int] | None:
        """A node's schema, where it has one, and its opset; None where its form is wrong."""
        domain = proto.domain or ONNX
        version = scope.opsets.get(domain)
        if version is None:
            self.problems.append(f"{label}: the model imports no opset of domain {domain!r}")
            version = 1
        schema = find_schema(domain, proto.op_type, version)
        if schema is None and domain == ONNX:
            self.problems.append(f"{label}: opset {version} has no operator {proto.op_type}")
            return None
        wrong = [] if schema is None else node_problems(_resolved(proto, scope.given), schema)
        self.problems += [f"{label}: {what}" for what in wrong]
        return None if wrong else (schema, version)

    def _form_alone(self, proto: NodeProto, position: int, scope: _Scope) -> None:
        """Tell what is wrong with a node's form, where what it reads is not known."""
        domain = proto.domain or ONNX
        if (domain, proto.op_type, proto.overload) in self.functions or is_contrib(proto):
            return
        label = f"node {(scope.origin or node_name(proto, position))!r} ({proto.op_type})"
        form = self._form(proto, label, scope)
        if form is not None and form[0] is None and not has_reference(domain, proto.op_type):
            self.unsupported.append(f"{label} of domain {domain!r}")

    def _contrib(
        self, proto: NodeProto, inputs: list[Value | None], local: str, label: str, scope: _Scope
    ) -> bool:
        """Put what an operator of onnxruntime's own domain computes in its place."""
        try:
            function = contrib_function(proto.domain, _resolved(proto, scope.given))
        except ModelError as error:
            self.problems.append(f"{label}: {error.message}")
            return True
        if function is not None:
            self._inline(function, proto, inputs, local, scope)
        return function is not None

    def _draft(
        self, op: str, inputs: list[Value | None], attrs: dict[str, Any], local: str,
        scope: _Scope, outputs: int,
    ) -> Draft:  # fmt: skip
        def fresh(data: np.ndarray) -> Value:
            return self._constant(self._own(f"{scope.prefix}{local}.const", True), data)

        def emit(op: str, inputs: list[Value | None], attrs: dict[str, Any]) -> Value:
            made = Value(self._own(f"{scope.prefix}{local}.{op}", True), UNTYPED)
            self._add(op, inputs, [made], attrs, f"{local}.{op}", scope, f"node {local!r} ({op})")
            return made

        return Draft(op, inputs, attrs, outputs, fresh, emit)

    def _add(
        self, op: str, inputs: list[Value | None], outputs: list[Value | None],
        attrs: dict[str, Any], local: str, scope: _Scope, label: str,
    ) -> None:  # fmt: skip
        name = _fresh(scope.prefix + local, self._node_names)
        while inputs and inputs[-1] is None:
            inputs.pop()
        node = Node(op, inputs, outputs, attrs, name=name, origin=(scope.origin or local,))
        scope.nodes.append(node)
        try:
            results = results_of(node)
        except PlanishError as error:
            if not scope.inner:
                self.problems.append(f"{label}: {error.message}")
            results = []
        for number, value in enumerate(outputs):
            if value is None:
                continue
            if number < len(results):
                settle(value, results[number])
            elif value.type is UNTYPED and not scope.inner:
                value.type = self._inferred_type(value.name)

    def _attributes(self, proto: NodeProto, scope: _Scope) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        for attr in _resolved(proto, scope.given).attribute:
            if attr.type == AttributeProto.GRAPH:
                attrs[attr.name] = self.graph(attr.g, scope.known, scope.opsets, scope)
            else:
                attrs[attr.name] = read_attribute(attr, self.folder)
        return attrs

    # ---- functions ------------------------------------------------------------------------------

    def _inline(
        self, function: FunctionProto, proto: NodeProto, inputs: list[Value | None], local: str,
        outer: _Scope,
    ) -> None:  # fmt: skip
        """Put a function's nodes in the place of its call."""
        if outer.depth >= _DEEPEST:
            self.problems.append(f"node {local!r}: function {function.name!r} calls itself")
            return
        given = {attr.name: attr for attr in function.attribute_proto}
        given |= {attr.name: attr for attr in _resolved(proto, outer.given).attribute}
        opsets = dict(outer.opsets)
        opsets |= {entry.domain or ONNX: int(entry.version) for entry in function.opset_import}
        known = {
            name: value
            for name, value in zip(function.input, inputs, strict=False)
            if value is not None
        }
        prefix = f"{outer.prefix}{local}."
        scope = _Scope(
            known,
            opsets,
            {v.name: v.type for v in function.value_info},
            prefix,
            outer.origin or local,
            given,
            outer.inner,
            outer.depth + 1,
            outer.nodes,
        )
        absent = {name for name in function.input if name not in known}
        body = [_without(node, absent) for node in function.node]
        for position, node in sorted_nodes(body, known, self.problems):
            self._node(node, position, scope)
        inside = {value for node in scope.nodes for value in node.outputs}
        taken: set[Value] = set()
        for formal, actual in zip(function.output, proto.output, strict=False):
            if not actual or formal not in scope.known:
                continue
            value = scope.known[formal]
            own = self._own(outer.prefix + actual, outer.inner or bool(outer.prefix))
            passed_on = value in known.values() or value in taken or value not in inside
            if passed_on:
                made = Value(own, value.type)
                self._add("Identity", [value], [made], {}, f"{local}.{formal}", scope, local)
                value = made
            value.name = own
            taken.add(value)
            outer.known[actual] = value

    # ---- types and names ------------------------------------------------------------------------

    def _type(self, proto: TypeProto, name: str) -> TensorType:
        try:
            return type_of(proto, name, self._dim_names)
        except ValueError as error:
            self.problems.append(f"value {name!r}: {error}")
            return UNTYPED

    def _stated(self, name: str, scope: _Scope) -> TensorType:
        proto = scope.stated.get(name)
        return UNTYPED if proto is None else self._type(proto, name)

    def _inferred_type(self, name: str) -> TensorType:
        """What ONNX's own inference says; it runs when the first value needs it."""
        if self._inferred is None:
            self._inferred = {} if self.problems else infer_onnx_types(self.model, self.kept)
        proto = self._inferred.get(name)
        return UNTYPED if proto is None else self._type(proto, name)

    def _constant(self, name: str, data: np.ndarray) -> Value:
        return Value(name, TensorType(DType.from_numpy(data.dtype), tuple(data.shape)), data)

    def _own(self, name: str, made_up: bool) -> str:
        """A name for a value: the file's own in the main graph, an unused one elsewhere."""
        return _fresh(name, self._names) if made_up else name


def _fresh(hint: str, taken: set[str]) -> str:
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}.{count}"
    taken.add(name)
    return name


def _names_of(graph: GraphProto) -> set[str]:
    """The names that the values of the main graph have."""
    names = {info.name for info in (*graph.input, *graph.output)}
    names |= {tensor.name for tensor in graph.initializer}
    return names | {name for node in graph.node for name in node.output}


def _resolved(proto: NodeProto, given: Mapping[str, AttributeProto]) -> NodeProto:
    """A node with references to its function's attributes replaced; left out where not given."""
    if not any(attr.ref_attr_name for attr in proto.attribute):
        return proto
    attributes: list[AttributeProto] = []
    for attr in proto.attribute:
        if not attr.ref_attr_name:
            attributes.append(attr)
        elif attr.ref_attr_name in given:
            copy = AttributeProto()
            copy.CopyFrom(given[attr.ref_attr_name])
            copy.name = attr.name
            attributes.append(copy)
    return _copy(proto, proto.input, attributes)


def _without(proto: NodeProto, absent: set[str]) -> NodeProto:
    """A node of a function with the function's left-out inputs left out."""
    if not absent.intersection(proto.input):
        return proto
    return _copy(proto, ["" if name in absent else name for name in proto.input], proto.attribute)


def _copy(
    proto: NodeProto, inputs: Iterable[str], attributes: Iterable[AttributeProto]
) -> NodeProto:
    made = NodeProto(
        op_type=proto.op_type, domain=proto.domain, name=proto.name, overload=proto.overload
    )
    made.input.extend(inputs)
    made.output.extend(proto.output)
    made.attribute.extend(attributes)
    return made
