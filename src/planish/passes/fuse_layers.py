"""Vertical fusion: nodes are grouped into layers, each of which runs as one kernel.

    Conv ─ Mul ─ Add ─ Relu ─ Add(skip)       becomes   [Conv + Mul + Add + Relu + Add]
    Mul ─ Add ─ Softmax                       becomes   [Mul + Add + Softmax]
    Sub ─ Pow ─ Div                           becomes   [Sub + Pow + Div]
    ConvInteger ─ Mul ─┐
            skip ─ DQ ─┴ Add ─ Q ─ DQ         becomes   [ConvInteger + Mul + DQ + Add + Q] ─ [DQ …

An anchor (a contraction, a reduction or a nest) absorbs the pointwise nodes behind it as its
epilogue, as long as the group has one result and nothing in it waits for the group's own result;
what dequantises or widens another operand of the epilogue comes along. Dequantising ends no group:
bytes are written, and whoever reads them dequantises. A
reduction or nest absorbs cheap pointwise producers as its prologue. What is left of the pointwise
nodes is grouped with its producers.

Not handled: epilogues that broadcast the anchor's result to a larger shape; prologues of
contractions; nodes whose rank is unknown.
"""

from __future__ import annotations

from collections.abc import Callable

from planish.base.expr import Call, Expr, index, walk
from planish.base.shapes import product
from planish.graph.graph import Graph, Node, Value, read_values
from planish.graph.infer import args_of, element_of, is_pointwise, op_of
from planish.graph.layer import Layer, sort_layers
from planish.ops.op import Result
from planish.ops.table import refusal
from planish.passes.match import first_input

VIEWS = frozenset(
    ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Identity",
     "Expand")
)  # fmt: skip
_MAX_REGION = 40  # nodes in an epilogue
_MAX_REACH = 400  # nodes in between that belong to other layers
_MAX_TREE = 160  # expression nodes of a region, shared parts counted for each use
_COSTLY = frozenset(
    ("exp", "log", "log1p", "expm1", "erf", "tanh", "sigmoid", "softplus", "pow", "sin", "cos",
     "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "div", "sqrt",
     "rsqrt", "recip", "mod", "fmod")
)  # fmt: skip

Absorbs = Callable[[str, Node], bool]


def fuse_layers(
    graph: Graph, native: Callable[[Node], str | None], absorbs: Absorbs
) -> list[Layer]:
    """Group all nodes into layers.

    Args:
        graph: A graph with types.
        native: Why a node must run on the host; None when it need not.
        absorbs: Whether the kernels of an anchor kind can take a node into their epilogue.

    Returns:
        Layers in an order in which each reads only what earlier ones made.
    """
    grouping = _Grouping(graph, native, absorbs)
    grouping.anchors()
    grouping.loops()
    grouping.rest()
    return sort_layers(grouping.layers_in_order())


class _Grouping:
    """Which layer each node belongs to, while it is being decided."""

    def __init__(
        self, graph: Graph, native: Callable[[Node], str | None], absorbs: Absorbs
    ) -> None:
        self.graph = graph
        self.absorbs = absorbs
        self.host = {id(node) for node in graph.nodes if native(node) is not None}
        self.position = {id(node): i for i, node in enumerate(graph.nodes)}
        self.layer_of: dict[int, Layer] = {}
        self._pointwise: dict[int, bool] = {}

    # ---- the three steps ------------------------------------------------------------------------

    def anchors(self) -> None:
        """Contractions take their epilogues first: there the tile is in registers.

        Of two anchors the deeper one chooses first, so that a residual add joins the long branch:
        the short one may then run together with its siblings (see merge_siblings).
        """
        depth = self._depths()
        order = sorted(self.graph.nodes, key=lambda n: (depth[n], self.position[id(n)]))
        kinds = [(node, self._anchor_kind(node)) for node in reversed(order)]
        loops: list[Layer] = []
        for wanted in (False, True):
            for node, kind in kinds:
                if kind is not None and (kind == "loop") == wanted:
                    nodes = self._with_operands([node, *self._epilogue(node, kind)])
                    layer = Layer(kind, node, nodes)
                    self._put(layer)
                    loops += [layer] if wanted else []
        for layer in loops:
            layer.nodes = [*self._prologue(layer.anchor), *layer.nodes]
            self._put(layer)

    def _depths(self) -> dict[Node, int]:
        """The longest way from the inputs of the graph to each node."""
        depth: dict[Node, int] = {}
        for node in self.graph.nodes:
            makers = (value.producer for value in read_values(node))
            depth[node] = 1 + max((depth.get(m, 0) for m in makers if m is not None), default=0)
        return depth

    def loops(self) -> None:
        """What is left of the pointwise nodes, each with its producers."""
        for node in reversed(self.graph.nodes):
            if self._free(node) and self._is_element(node) and not _is_view(node):
                producers = self._producers(node) if self._is_pointwise(node) else []
                self._put(Layer("loop", node, [*producers, node]))

    def rest(self) -> None:
        """Views, concats and host nodes stand alone."""
        for node in self.graph.nodes:
            if id(node) not in self.layer_of:
                kind = "host"
                if id(node) not in self.host:
                    kind = "view" if _is_view(node) else "concat"
                self._put(Layer(kind, node, [node]))

    def layers_in_order(self) -> list[Layer]:
        """Layers by the position of their last node."""
        layers = list({id(layer): layer for layer in self.layer_of.values()}.values())
        return sorted(layers, key=lambda layer: self.position[id(layer.nodes[-1])])

    # ---- growing a layer ------------------------------------------------------------------------

    def _epilogue(self, anchor: Node, kind: str) -> list[Node]:
        """The longest run of pointwise nodes behind an anchor that leaves one result."""
        if len([v for v in anchor.outputs if v is not None]) != 1:
            return []
        op = op_of(anchor)
        if op is not None and op.reads_back:
            return []
        start = anchor.output
        if start.type.shape is None or self.graph.is_output(start):
            return []
        inside: dict[Value, None] = {start: None}
        after: set[int] = {id(start)}
        region: list[Node] = []
        best = 0
        waiting = set(map(id, self.graph.users(start)))
        first = last = self.position[id(anchor)] + 1
        for place, node in enumerate(self.graph.nodes[first:], first):
            if len(region) >= _MAX_REGION or not waiting or place - last > _MAX_REACH:
                break
            reads = read_values(node)
            if not any(id(v) in after for v in reads):
                continue
            waiting.discard(id(node))
            after |= {id(v) for v in node.outputs if v is not None}
            if any(id(v) in after and v not in inside for v in reads):
                continue
            fits = self._free(node) and self._is_pointwise(node) and self.absorbs(kind, node)
            if not fits or node.output.shape != start.shape:
                continue
            region.append(node)
            last = place
            inside[node.output] = None
            waiting |= set(map(id, self.graph.users(node.output)))
            alone = self._exits(inside, [anchor, *region]) == [node.output]
            if alone and not self._left_to_readers(node):
                if self._tree_size(node.output, region) > _MAX_TREE:
                    break
                best = len(region)
        return region[:best]

    def _left_to_readers(self, node: Node) -> bool:
        """Whether a node dequantises what its readers may as well read as bytes."""
        if node.op != "DequantizeLinear" or self.graph.is_output(node.output):
            return False
        users = self.graph.users(node.output)
        ops = [op_of(user) for user in users if id(user) not in self.host]
        return len(ops) == len(users) and not any(op is None or op.anchor for op in ops)

    def _with_operands(self, nodes: list[Node]) -> list[Node]:
        """An anchor and its epilogue with what dequantises or widens the epilogue's operands."""
        mine = set(map(id, nodes))
        found: list[Node] = []
        for node in nodes[1:]:
            for value in node.inputs:
                maker = None if value is None else value.producer
                if maker is None or id(maker) in mine or not self._free(maker):
                    continue
                if self.graph.only_user(maker.output) is not node or not self._widens(maker):
                    continue
                found.append(maker)
        return sorted([*nodes, *found], key=lambda n: self.position[id(n)]) if found else nodes

    def _widens(self, node: Node) -> bool:
        """Whether a cheap pointwise node reads fewer bytes than it makes."""
        data = [v for v in node.inputs if v is not None and not v.is_const]
        if len(data) != 1 or not self._is_pointwise(node) or self._is_costly(node):
            return False
        read, made = data[0], node.output
        if read.shape == made.shape:
            return read.dtype.bits < made.dtype.bits
        return read.dtype.bits <= made.dtype.bits

    def _exits(self, inside: dict[Value, None], nodes: list[Node]) -> list[Value]:
        mine = set(map(id, nodes))
        return [
            v
            for v in inside
            if self.graph.is_output(v) or any(id(u) not in mine for u in self.graph.users(v))
        ]

    def _prologue(self, anchor: Node) -> list[Node]:
        """Cheap pointwise producers of a reduction or nest that nobody else reads."""
        op = op_of(anchor)
        if op is None or anchor.op in _WINDOWS:
            return []
        taken: list[Node] = []
        pending = [v for v in anchor.inputs if v is not None]
        while pending:
            value = pending.pop()
            maker = value.producer
            if maker is None or not self._free(maker) or not self._is_pointwise(maker):
                continue
            user = self.graph.only_user(value)
            if user is None or maker in taken or (user is not anchor and user not in taken):
                continue
            if op.nest is not None and (self._is_costly(maker) or len(taken) >= 3):
                continue
            if product(value.shape) != product(first_input(anchor).shape):
                continue
            taken.append(maker)
            pending += [v for v in maker.inputs if v is not None]
        return sorted(taken, key=lambda n: self.position[id(n)])

    def _producers(self, root: Node) -> list[Node]:
        """Pointwise producers of a pointwise node that nobody outside the group reads."""
        taken: list[Node] = []
        pending = [v for v in root.inputs if v is not None]
        while pending and len(taken) < _MAX_REGION:
            value = pending.pop(0)
            maker = value.producer
            if maker is None or not self._free(maker) or not self._is_pointwise(maker):
                continue
            if maker in taken or self.graph.is_output(value):
                continue
            if any(user is not root and user not in taken for user in self.graph.users(value)):
                continue
            if value.shape != root.output.shape and self._is_costly(maker):
                continue
            nodes = sorted([*taken, maker, root], key=lambda n: self.position[id(n)])
            if self._tree_size(root.output, nodes) > _MAX_TREE:
                continue
            taken.append(maker)
            pending += [v for v in maker.inputs if v is not None]
        return sorted(taken, key=lambda n: self.position[id(n)])

    # ---- facts ----------------------------------------------------------------------------------

    def _anchor_kind(self, node: Node) -> str | None:
        op = op_of(node)
        if op is None or id(node) in self.host:
            return None
        if op.anchor and not (op.plain is not None and op.plain(args_of(node), node.attrs)):
            return op.anchor
        return "loop" if op.reduce is not None or op.nest is not None else None

    def _is_element(self, node: Node) -> bool:
        op = op_of(node)
        return op is not None and op.element is not None and node.op != "Concat"

    def _is_pointwise(self, node: Node) -> bool:
        if id(node) not in self._pointwise:
            fits = id(node) not in self.host and node.op not in VIEWS and is_pointwise(node)
            self._pointwise[id(node)] = fits
        return self._pointwise[id(node)]

    def _is_costly(self, node: Node) -> bool:
        expr = element_of(node, 0, _origin_index(node.output))
        return any(isinstance(e, Call) and e.fn in _COSTLY for e in walk(expr))

    def _tree_size(self, value: Value, nodes: list[Node]) -> int:
        """Expression nodes of a value within a region, shared parts counted for each use."""
        sizes: dict[int, int] = {}
        for node in nodes:
            own = sum(1 for _ in walk(element_of(node, 0, _origin_index(node.output))))
            inner = sum(sizes.get(id(v), 0) for v in node.inputs if v is not None)
            sizes[id(node.output)] = own + inner
        return sizes.get(id(value), 0)

    def _free(self, node: Node) -> bool:
        return id(node) not in self.layer_of and id(node) not in self.host

    def _put(self, layer: Layer) -> None:
        for node in layer.nodes:
            self.layer_of[id(node)] = layer


_WINDOWS = frozenset(("MaxPool", "AveragePool", "LpPool", "LRN"))


def _is_view(node: Node) -> bool:
    """Whether a node may move no data. What it makes of a constant has to be written somewhere."""
    source = node.input(0)
    return node.op in VIEWS and source is not None and not source.is_const


def _origin_index(value: Value) -> tuple[Expr, ...]:
    return tuple(index(0) for _ in value.shape)


def native_reason(node: Node) -> str | None:
    """Why a node must run on the host; None when it runs natively."""
    op = op_of(node)
    if op is None:
        return f"planish has no operator {node.op}"
    results = [Result(v.dtype, v.type.shape) for v in node.outputs if v is not None]
    reason = refusal(op, args_of(node), node.attrs, results)
    if reason is None and not (op.element or op.reduce or op.nest or op.anchor):
        return f"this instance of {node.op} has no expansion into native operators"
    return reason
