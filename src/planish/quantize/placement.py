"""Which values are stored in 8 bits, who reads them so, and which of them share a scale.

    conv1 ─ Relu ─┬─ conv2 ─ Add ─ Relu ─ conv3      8 bits: what conv1+Relu, conv2+Add+Relu give
                  └───────────┘                      floats inside the layers, in registers only

Layers are what fusion makes of the float graph: only what goes from layer to layer is stored.
From there, in this order, until nothing changes:

    contractions  with constant weights read 8 bits
    movers        (views, Concat, MaxPool, Pad, nearest Resize …) whose result is read in 8 bits
                  work on the codes themselves: what they read and make shares one scale
    makers        (pointwise loops, mean pools) whose result is read in 8 bits read 8 bits
    mean pools    read 8 bits in any case: the mean takes the rounding out again
    skips         other operands of a contraction whose result is read in 8 bits are 8 bits, too

The last three only where 8 bits can be written by what makes the value: a contraction or a maker.
Norms, Softmax, attention products and everything else stays in floats, and so do the inputs and
outputs of the network as the caller sees them. A float layer reads codes (their floats) where the
value is made in 8 bits anyway; contractions that stay in floats read floats. So do the skips of
layers that write floats: the stream of a transformer would carry their rounding to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, Value
from planish.graph.infer import is_pointwise
from planish.graph.layer import Layer
from planish.quantize.settings import Settings, matching

CONTRACTIONS = ("Conv", "MatMul")
MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean")
_VIEWS = frozenset(
    ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Identity",
     "Expand", "DepthToSpace", "SpaceToDepth")
)  # fmt: skip


@dataclass(frozen=True)
class Precision:
    """What a layer runs in, and why.

    Attributes:
        name: Of its anchor.
        op: The anchor's operator.
        origin: ONNX nodes that the layer stands for.
        precision: "int8" or "fp32".
        why: In words.
    """

    name: str
    op: str
    origin: tuple[str, ...]
    precision: str
    why: str


@dataclass
class Group:
    """Values that share a scale.

    Attributes:
        values: In the order of the graph.
        roots: Those that are no rearrangement of others: their range is that of all.
        names: Names that patterns may call the group by: of values, and of layers around them.
    """

    values: list[Value]
    roots: list[Value] = field(default_factory=list)
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the first root."""
        return self.roots[0].name


@dataclass
class Placement:
    """What is stored in 8 bits.

    Attributes:
        groups: Every such value is in one of them.
        readers: Value -> nodes that read it in 8 bits.
        contractions: Nodes that compute on 8 bits.
        precisions: Of every layer that computes something.
    """

    groups: list[Group]
    readers: dict[Value, list[Node]]
    contractions: list[Node]
    precisions: list[Precision]


def place(graph: Graph, layers: list[Layer], settings: Settings) -> Placement:
    """Decide what is stored in 8 bits.

    Args:
        graph: The optimised float graph.
        layers: What fusion makes of it.
        settings: What the user wants of which layer.
    """
    return _Placing(graph, layers, settings).result()


class _Placing:
    """Layers by what they can do, and the values in 8 bits so far."""

    def __init__(self, graph: Graph, layers: list[Layer], settings: Settings) -> None:
        self.graph = graph
        self.layers = layers
        self.said = {layer: matching(settings.layers, _names(layer)) for layer in layers}
        self.kinds = {layer: self._kind(layer) for layer in layers}
        self.maker = {v: layer for layer in layers for v in layer.outputs(graph)}
        self.inputs = {layer: [v for v in layer.inputs() if _is_data(v)] for layer in layers}
        self.eight: dict[Value, None] = {}

    def result(self) -> Placement:
        """Grow the set of values in 8 bits until nothing changes, then say what follows."""
        count = -1
        while count < len(self.eight):
            count = len(self.eight)
            for layer in self.layers:
                self.eight.update(dict.fromkeys(self._wants(layer)))
        readers: dict[Value, list[Node]] = {value: [] for value in self.eight}
        for layer in self.layers:
            for value in self.inputs[layer]:
                if value in self.eight and self._reads_codes(layer, value):
                    readers[value] += [node for node in layer.nodes if value in node.inputs]
        chosen = [layer.anchor for layer in self.layers if self.kinds[layer][0] == "contraction"]
        return Placement(self._groups(), readers, chosen, list(self._precisions()))

    # ---- what layers can do ---------------------------------------------------------------------

    def _kind(self, layer: Layer) -> tuple[str, str]:
        """("contraction", "mover", "mean", "maker" or "float", why)."""
        if self.said[layer] == "fp32":
            return "float", "the user wants it so"
        if layer.kind in ("conv", "matmul") and layer.anchor.op in CONTRACTIONS:
            refused = _unfit(layer.anchor)
            return ("float", refused) if refused else ("contraction", "its weights are constant")
        if layer.kind == "host":
            return "float", "it runs on the host"
        if len(layer.nodes) == 1 and _moves(layer.anchor):
            return "mover", "it moves codes without touching them"
        if all(v.dtype is not DType.F32 for v in layer.outputs(self.graph)):
            return "float", "it computes no f32 values"
        rest = [n for n in layer.nodes if n is not layer.anchor or n.op not in MEANS]
        if layer.kind == "loop" and all(map(is_pointwise, rest)):
            return ("mean" if layer.anchor.op in MEANS else "maker"), "it lies between 8-bit layers"
        return "float", f"{layer.anchor.op} stays in floats"

    def _writes_codes(self, value: Value) -> bool:
        """Whether what makes a value may as well write 8 bits."""
        layer = self.maker.get(value)
        while layer is not None and self.kinds[layer][0] == "mover":
            made = [self.maker.get(v) for v in self.inputs[layer]]
            if len(made) != 1:
                return all(self._writes_codes(v) for v in self.inputs[layer])
            layer = made[0]
        return layer is not None and self.kinds[layer][0] != "float"

    # ---- who wants 8 bits -----------------------------------------------------------------------

    def _wants(self, layer: Layer) -> Iterator[Value]:
        """Values that have to be in 8 bits because of a layer."""
        kind = self.kinds[layer][0]
        outputs = layer.outputs(self.graph)
        read = any(value in self.eight for value in outputs)
        if kind == "contraction" and layer.anchor.inputs[0] is not None:
            yield layer.anchor.inputs[0]
        if kind == "mover" and read:
            yield from self.inputs[layer]
            yield from (v for v in outputs if self.graph.users(v))
        if kind in ("contraction", "maker", "mean") and (read or kind == "mean"):
            yield from (v for v in self.inputs[layer] if self._writes_codes(v))

    def _reads_codes(self, layer: Layer, value: Value) -> bool:
        """Whether a layer reads a value, which is there in 8 bits, in 8 bits."""
        kind = self.kinds[layer][0]
        if kind == "contraction" and value is layer.anchor.inputs[0]:
            return True
        if kind == "mover" and any(v in self.eight for v in layer.outputs(self.graph)):
            return True
        if layer.anchor.op in CONTRACTIONS and kind == "float":
            return False
        written = any(v in self.eight for v in layer.outputs(self.graph))
        if kind in ("contraction", "maker") and not written:
            return False
        return self._writes_codes(value)

    # ---- what follows ---------------------------------------------------------------------------

    def _groups(self) -> list[Group]:
        """Values in 8 bits, joined through the movers between them."""
        leader = {value: value for value in self.eight}

        def find(value: Value) -> Value:
            while leader[value] is not value:
                value = leader[value]
            return value

        moved: set[Value] = set()
        for layer in self.layers:
            made = [v for v in layer.outputs(self.graph) if v in self.eight]
            if self.kinds[layer][0] != "mover" or not made:
                continue
            moved.update(made)
            for value in (*self.inputs[layer], *made[1:]):
                leader[find(value)] = find(made[0])
        groups: dict[Value, Group] = {}
        for value in self.graph.values():
            if value in self.eight:
                group = groups.setdefault(find(value), Group([]))
                group.values.append(value)
                if value not in moved:
                    group.roots.append(value)
        for group in groups.values():
            group.names = tuple(dict.fromkeys(self._called(group)))
        return list(groups.values())

    def _called(self, group: Group) -> Iterator[str]:
        for value in group.values:
            yield value.name
            if value in self.maker:
                yield from _names(self.maker[value])

    def _precisions(self) -> Iterator[Precision]:
        for layer in self.layers:
            kind, why = self.kinds[layer]
            if layer.kind == "view" or not any(map(_is_data, layer.outputs(self.graph))):
                continue
            stored = self.inputs[layer] if kind == "mean" else layer.outputs(self.graph)
            made = any(value in self.eight for value in stored)
            if kind in ("mover", "maker", "mean") and not made:
                kind, why = "float", "nobody reads its result in 8 bits"
            precision = "fp32" if kind == "float" else "int8"
            anchor = layer.anchor
            yield Precision(anchor.name, anchor.op, layer.origin, precision, why)


def _names(layer: Layer) -> tuple[str, ...]:
    """The names that patterns may call a layer by."""
    return tuple(dict.fromkeys((layer.name, layer.anchor.name, *layer.origin)))


def _is_data(value: Value) -> bool:
    """Whether a value is one of those that may be in 8 bits at all."""
    return value.dtype is DType.F32 and not value.is_const and value.type.shape is not None


def _unfit(node: Node) -> str:
    """Why a contraction cannot run on 8 bits; "" when it can."""
    x, w, bias = node.input(0), node.input(1), node.input(2)
    if x is None or w is None or not _is_data(x):
        return "its input is no f32 tensor that is known at run time"
    if not w.is_const or (bias is not None and not bias.is_const):
        return "its weights are no constants"
    if w.dtype is not DType.F32:
        return f"its weights are {w.dtype}"
    if node.op == "MatMul" and len(w.shape) != 2:
        return "its weights are no matrix"
    if not np.all(np.isfinite(np.asarray(w.data))):
        return "its weights hold infinities or NaN"
    return ""


# ---- movers -------------------------------------------------------------------------------------


def _moves(node: Node) -> bool:
    """Whether each number in a node's results is one of its operand's numbers, or 0."""
    sources = node.inputs if node.op == "Concat" else node.inputs[:1]
    if not all(v is not None and _is_data(v) for v in sources):
        return False
    if any(v is not None and v.type.shape is None for v in node.outputs):
        return False
    return node.op in _VIEWS or (node.op in _MOVERS and _MOVERS[node.op](node))


def _always(node: Node) -> bool:
    return True


def _one_result(node: Node) -> bool:
    return len([v for v in node.outputs if v is not None]) == 1


def _pads_zeros(node: Node) -> bool:
    value = node.input(2)
    if node.attrs.get("mode", "constant") != "constant" or value is None:
        return True
    return value.data is not None and not np.any(np.asarray(value.data))


def _is_nearest(node: Node) -> bool:
    outside = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return node.attrs.get("mode", "nearest") == "nearest" and not outside


def _fixed_places(node: Node) -> bool:
    where = node.input(1)
    return where is not None and where.is_const


_MOVERS: dict[str, Callable[[Node], bool]] = {
    "Concat": _always,
    "MaxPool": _one_result,
    "GlobalMaxPool": _always,
    "Pad": _pads_zeros,
    "Resize": _is_nearest,
    "Gather": _fixed_places,
}
