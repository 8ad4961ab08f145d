"""Layers → steps: each layer as a workload with its operands, or as a call on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from planish.base.defects import defects_named
from planish.base.dtypes import DType
from planish.base.errors import VerifyError
from planish.base.shapes import Dim, evaluate, product, symbols_of
from planish.graph.graph import Graph, Node, Value
from planish.graph.infer import op_of
from planish.graph.layer import Layer
from planish.graph.reference import host_model
from planish.kernels.workload import Workload, dense_strides
from planish.lower.attention import attention_layer
from planish.lower.canonical import canonical
from planish.lower.concats import Placement, place_concats
from planish.lower.contractions import Branch, Contraction, input_of
from planish.lower.convolutions import conv_layer, conv_transpose_layer
from planish.lower.nests import NestLayer, copy_nest, loop_nest
from planish.lower.operands import Source
from planish.lower.orders import Order, choose_orders
from planish.lower.products import matmul_layer, matmul_siblings
from planish.lower.storage import Buffer, Storage, ordered_strides, same_strides, sliced
from planish.lower.views import INVERTIBLE, source_of, view_of


@dataclass
class HostCall:
    """A layer on the host.

    Attributes:
        op: Operator name.
        model: One-node ONNX model.
        inputs, outputs: Operands, dense.
        reason: Why it is not native.
    """

    op: str
    model: bytes
    inputs: list[tuple[Value, Storage]]
    outputs: list[tuple[Value, Storage] | None]
    reason: str


@dataclass
class LoweredStep:
    """A step before tuning: what to run, on which memory.

    Attributes:
        name: The layer's name.
        origin: ONNX nodes it stands for.
        workload: The canonical workload; None for a host call.
        params: Values of the workload's params in the model's symbols.
        inputs: Operands.
        outputs: Results.
        host: The host call; None for native work.
        note: What it is, for people: "", or why a copy was needed.
    """

    name: str
    origin: tuple[str, ...]
    workload: Workload | None
    params: tuple[Dim, ...] = ()
    inputs: list[Source] = field(default_factory=list)
    outputs: list[Storage] = field(default_factory=list)
    host: HostCall | None = None
    note: str = ""


@dataclass
class Lowered:
    """All steps in order, and what was decided on the way."""

    steps: list[LoweredStep]
    notes: list[tuple[str, str, tuple[str, ...]]]  # (stage, note, origin) for the history


def lower_graph(
    graph: Graph,
    layers: list[Layer],
    threads: int,
    opt: Mapping[str, int],
    host_reasons: Mapping[int, str],
) -> Lowered:
    """Turn layers into steps.

    Args:
        graph: The optimised graph.
        layers: Its layers in order.
        threads: Workers that share each layer.
        opt: Likely values of the symbolic dims.
        host_reasons: id(node) -> why it runs on the host.
    """
    with defects_named(f"graph {graph.name!r}"):
        lowering = _Lowering(graph, layers, threads, opt, host_reasons)
    for layer in layers:
        with defects_named(f"layer {layer.name!r} ({layer.anchor.op})"):
            lowering.layer(layer)
    with defects_named(f"the outputs of graph {graph.name!r}"):
        lowering.finish()
    return Lowered(lowering.steps, lowering.notes)


class _Lowering:
    def __init__(
        self,
        graph: Graph,
        layers: list[Layer],
        threads: int,
        opt: Mapping[str, int],
        host_reasons: Mapping[int, str],
    ) -> None:
        self.graph = graph
        self.threads = threads
        self.opt = opt
        self.host_reasons = host_reasons
        self.steps: list[LoweredStep] = []
        self.notes: list[tuple[str, str, tuple[str, ...]]] = []
        self.orders: dict[Value, Order] = choose_orders(graph, layers, self.hint)
        self.placed, self.copies = place_concats(graph, layers)
        self.maker = {
            v: layer for layer in layers for n in layer.nodes for v in n.outputs if v is not None
        }
        self.storages: dict[Value, Storage] = {}
        self.constants: dict[int, Source] = {}
        for number, value in enumerate(graph.inputs):
            if is_loose(value):
                self.storages[value] = loose_storage("input", value, number)
                continue
            buffer = Buffer("input", value.dtype, product(value.shape), value.name, number)
            self.storages[value] = Storage(buffer, value.shape, dense_strides(value.shape))

    # ---- where values lie -----------------------------------------------------------------------

    def hint(self, dim: Dim) -> int:
        """A likely value of a size."""
        env = {name: self.opt.get(name, 1) for name in symbols_of(dim)}
        return evaluate(dim, env)

    def place(self, value: Value) -> Source:
        """Where a value that exists already lies."""
        if value.data is not None:
            if id(value) not in self.constants:
                stored = DType.from_numpy(value.data.dtype)  # maybe narrower than its type
                stored = stored if value.dtype is DType.F32 else value.dtype
                buffer = Buffer("weight", stored, int(value.data.size), value.name)
                view = Storage(buffer, value.shape, dense_strides(value.shape))
                self.constants[id(value)] = Source(view, value.data)
            return self.constants[id(value)]
        if value not in self.storages:
            raise VerifyError(f"value {value.name!r} is read before it is made")
        return Source(self.storages[value])

    def target(self, value: Value) -> Storage:
        """Where a value that is about to be made goes; decided on the first call."""
        if value not in self.storages:
            self.storages[value] = self._new_storage(value)
        return self.storages[value]

    def _new_storage(self, value: Value) -> Storage:
        placement = self.placed.get(value)
        if placement is not None:
            return self._slice(placement, value.shape[placement.axis])
        order = self.orders.get(value, tuple(range(len(value.shape))))
        strides = ordered_strides(value.shape, order)
        home = self._home(value)
        if home is not None:
            maker = self.maker.get(value)
            free = maker is not None and maker.kind in _ANY_ORDER
            if free or same_strides(value.shape, strides, home.strides):
                return home
        kind = "arena" if self._bounded(value) else "heap"
        buffer = Buffer(kind, value.dtype, product(value.shape), value.name)
        return Storage(buffer, value.shape, strides)

    def _home(self, value: Value) -> Storage | None:
        """Where a value lies in the caller's memory: it is an output, or views lead to one."""
        for number, output in enumerate(self.graph.outputs):
            if output is value:
                size = product(value.shape)
                buffer = Buffer("output", value.dtype, size, value.name, number)
                return Storage(buffer, value.shape, dense_strides(value.shape))
        user = self.graph.only_user(value)
        if user is None or len(user.outputs) != 1 or user.inputs[0] is not value:
            return None
        if user.output.type.shape is None or user.output in self.placed:
            return None
        home = self._home(user.output) if user.op in INVERTIBLE else None
        return None if home is None else source_of(user, value, home)

    def _bounded(self, value: Value) -> bool:
        """True when every symbol of the shape has a range before running."""
        return all(name in self.opt for d in value.shape for name in symbols_of(d))

    def _slice(self, placement: Placement, size: Dim) -> Storage:
        return sliced(self.target(placement.whole), placement.axis, placement.start, size)

    # ---- layers ---------------------------------------------------------------------------------

    def layer(self, layer: Layer) -> None:
        """Lower one layer."""
        getattr(self, f"_{_HANDLERS.get(layer.kind, 'contraction')}")(layer)

    def _contraction(self, layer: Layer) -> None:
        branches = []
        for part in layer.siblings or [layer]:
            (value,) = part.outputs(self.graph)
            branches.append(Branch(part, value, self.target(value)))
        rule = _CONTRACTIONS.get(layer.kind)
        if rule is None:
            raise VerifyError(f"no lowering for layers of kind {layer.kind!r}")
        self._add_contraction(layer, rule(branches, self.place))

    def _add_contraction(self, layer: Layer, made: Contraction) -> None:
        workload = Workload(
            made.op,
            tuple(source.operand() for source in made.inputs),
            tuple(Source(out).operand() for out in made.outputs),
            made.attrs,
            made.epilogue,
            None,
            self.threads,
            made.mask,
        )
        self._native(layer.name, layer.origin, workload, made.inputs, made.outputs)

    def _loop(self, layer: Layer) -> None:
        outputs = [(v, self.target(v)) for v in layer.outputs(self.graph)]
        op = op_of(layer.anchor)
        if len(outputs) > 1 and op is not None and op.element is not None:
            for number, output in enumerate(outputs):
                made = loop_nest(layer, [output], self.place, self.hint)
                self._nest(f"{layer.name}[{number}]", layer.origin, made)
        elif outputs:
            made = loop_nest(layer, outputs, self.place, self.hint)
            self._nest(layer.name, layer.origin, made)

    def _view(self, layer: Layer) -> None:
        node = layer.anchor
        read = input_of(node, 0)
        source = self.place(read)
        for value in layer.outputs(self.graph):
            view = None if source.data is not None else view_of(node, value, source.storage)
            if view is not None and value not in self.placed:
                self.storages[value] = view
                continue
            made = loop_nest(layer, [(value, self.target(value))], self.place, self.hint)
            why = f"{node.op} of {read.name!r} is no view of its strides"
            self._nest(layer.name, layer.origin, made, note=f"copy: {why}")
            self.notes.append(("layouts", f"{node.name}: copied, {why}", layer.origin))

    def _concat(self, layer: Layer) -> None:
        node = layer.anchor
        whole = self.target(node.output)
        axis = int(node.attrs.get("axis", 0)) % len(whole.shape)
        start: Dim = 0
        for number, value in enumerate(node.inputs):
            assert value is not None
            extent = value.shape[axis]
            reason = self.copies.get((node.output, number))
            if reason is not None and extent != 0:
                part = sliced(whole, axis, start, extent)
                made = copy_nest(self.place(value), part, self.hint)
                self._nest(f"{node.name}[{number}]", layer.origin, made, note=f"copy: {reason}")
                self.notes.append(("concat", f"{node.name}: {reason}", layer.origin))
            start = start + extent

    def _host(self, layer: Layer) -> None:
        self._on_host(layer.anchor, layer, self.host_reasons.get(id(layer.anchor), ""))

    def _on_host(self, node: Node, layer: Layer, reason: str) -> None:
        model, reads = host_model(node)
        inputs = [(value, self._dense(value, layer)) for value in reads]
        outputs: list[tuple[Value, Storage] | None] = []
        for value in node.outputs:
            outputs.append(None if value is None else (value, self._host_target(value)))
        call = HostCall(node.op, model, inputs, outputs, reason)
        self.steps.append(LoweredStep(layer.name, layer.origin, None, host=call))

    def _host_target(self, value: Value) -> Storage:
        if is_loose(value):
            number = next((n for n, v in enumerate(self.graph.outputs) if v is value), -1)
            kind = "heap" if number < 0 else "output"
            self.storages[value] = loose_storage(kind, value, number)
            return self.storages[value]
        self.orders[value] = tuple(range(len(value.shape)))
        return self.target(value)

    def _dense(self, value: Value, layer: Layer) -> Storage:
        """A value as the host wants it: row-major; copied if it lies otherwise."""
        storage = self.place(value).storage
        if storage.buffer.loose or storage.is_dense:
            return storage
        kind = "arena" if self._bounded(value) else "heap"
        buffer = Buffer(kind, value.dtype, product(value.shape), f"{value.name}.dense")
        target = Storage(buffer, value.shape, dense_strides(value.shape))
        made = copy_nest(Source(storage), target, self.hint)
        self._nest(f"{value.name}.dense", layer.origin, made, note="copy: the host reads row-major")
        return target

    def finish(self) -> None:
        """Copy outputs that do not lie in the caller's memory yet."""
        for number, value in enumerate(self.graph.outputs):
            if is_loose(value):
                self._finish_loose(number, value)
                continue
            source = self.place(value)
            buffer = source.storage.buffer
            at_home = buffer.kind == "output" and buffer.number == number
            if at_home and source.storage.is_dense and source.storage.shape == value.type.shape:
                continue
            out = Buffer("output", value.dtype, product(value.shape), value.name, number)
            target = Storage(out, value.shape, dense_strides(value.shape))
            made = copy_nest(source, target, self.hint)
            origin = () if value.producer is None else value.producer.origin
            self._nest(
                f"{value.name}.output", origin, made, note="copy: the caller reads row-major"
            )

    def _finish_loose(self, number: int, value: Value) -> None:
        """Hand on an output that no step makes as such: an input, a constant, or one made twice."""
        buffer = None if value.is_const else self.place(value).storage.buffer
        if buffer is not None and buffer.kind == "output" and buffer.number == number:
            return
        out = Value(f"{value.name}.output", value.type)
        node = Node("Identity", [value], [out], name=f"{value.name}.output")
        self._on_host(node, Layer("host", node, [node]), "its value is no tensor of numbers")
        step = self.steps[-1]
        assert step.host is not None
        step.host.outputs[0] = (out, loose_storage("output", out, number))

    # ---- steps ----------------------------------------------------------------------------------

    def _nest(self, name: str, origin: tuple[str, ...], made: NestLayer, note: str = "") -> None:
        workload = Workload(
            "nest",
            tuple(source.operand() for source in made.inputs),
            tuple(Source(out).operand() for out in made.outputs),
            nest=made.nest,
            threads=self.threads,
        )
        self._native(name, origin, workload, made.inputs, made.outputs, note)

    def _native(
        self,
        name: str,
        origin: tuple[str, ...],
        workload: Workload,
        inputs: list[Source],
        outputs: list[Storage],
        note: str = "",
    ) -> None:
        made, params = canonical(workload)
        self.steps.append(LoweredStep(name, origin, made, params, inputs, outputs, note=note))


def is_loose(value: Value) -> bool:
    """True for a value that only the host can touch: text, no tensor, or of unknown rank."""
    return value.type.shape is None or value.dtype in (DType.STRING, DType.OBJECT)


def loose_storage(kind: str, value: Value, number: int) -> Storage:
    """Where a loose value is noted; it has no memory."""
    return Storage(Buffer(kind, value.dtype, 0, value.name, number, loose=True), (), ())


_ANY_ORDER = frozenset(("loop", "concat", "matmul", "host"))  # kinds that write any axis order
_HANDLERS = {"loop": "loop", "view": "view", "concat": "concat", "host": "host"}
_CONTRACTIONS: dict[str, Callable[[list[Branch], Callable[[Value], Source]], Contraction]] = {
    "conv": conv_layer,
    "conv_transpose": lambda branches, place: conv_transpose_layer(branches[0], place),
    "matmul": lambda branches, place: (
        matmul_layer(branches[0], place) if len(branches) == 1 else matmul_siblings(branches, place)
    ),
    "attention": lambda branches, place: attention_layer(branches[0], place),
}
