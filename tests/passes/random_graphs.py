"""Small random graphs over a few floats, for all passes to work on."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from planish.base.dtypes import DType
from planish.graph.graph import Graph, Node, TensorType, Value, constant
from planish.graph.infer import infer_types


class GraphMaker:
    """Grows a graph node by node; every choice follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        shape = self.random.choice([(2, 4, 6), (1, 4, 3, 3), (3, 8), (2, 6, 2, 4), (1, 6, 4)])
        self.inputs = [self._input("x", shape), self._input("z", shape)]
        self.values = list(self.inputs)
        self.nodes: list[Node] = []

    def _input(self, name: str, shape: tuple[int, ...]) -> Value:
        return Value(name, TensorType(DType.F32, shape))

    def graph(self, size: int) -> Graph:
        """A graph of about `size` nodes; what nobody reads is an output."""
        for _ in range(size):
            rule = self.random.choice(RULES)
            rule(self, self.random.choice(self.values[-6:]))
        read = {v for node in self.nodes for v in node.inputs}
        made = [v for node in self.nodes for v in node.outputs if v is not None]
        outputs = [v for v in made if v not in read][-4:] or made[-1:]
        extra = [v for v in made if v not in outputs and self.random.random() < 0.05]
        return Graph("g", self.inputs, [*outputs, *extra], self.nodes)

    def add(
        self, op: str, *inputs: Value | np.ndarray | None, count: int = 1, **attrs: object
    ) -> None:
        """Append a node; arrays become constants."""
        number = len(self.nodes)
        read = [
            constant(f"c{number}_{n}", v) if isinstance(v, np.ndarray) else v
            for n, v in enumerate(inputs)
        ]
        outputs = [Value(f"v{number}_{n}", TensorType(DType.F32, None)) for n in range(count)]
        node = Node(op, read, outputs, attrs, name=f"n{number}", origin=(f"n{number}",))
        for value in outputs:
            value.producer = node
        infer_types(Graph("one", [], [], [node]))
        self.nodes.append(node)
        self.values += outputs

    def floats(self, *shape: int) -> np.ndarray:
        """Random contents of a constant."""
        return np.asarray(self.numbers.uniform(0.5, 1.5, shape), dtype=np.float32)


def _shape(value: Value) -> list[int]:
    return [int(str(dim)) for dim in value.shape]


def _unary(m: GraphMaker, x: Value) -> None:
    m.add(m.random.choice(["Relu", "Neg", "Abs", "Tanh", "Identity", "HardSwish"]), x)


def _number(m: GraphMaker, x: Value) -> None:
    number = np.float32(m.random.choice([0.0, 1.0, 2.0, 0.5]))
    m.add(m.random.choice(["Add", "Mul", "Sub", "Max", "Min"]), x, np.asarray(number))


def _vector(m: GraphMaker, x: Value) -> None:
    shape = _shape(x)
    varying = [dim if m.random.random() < 0.4 else 1 for dim in shape]
    while varying and varying[0] == 1 and m.random.random() < 0.5:
        varying.pop(0)
    pair: list[Value | np.ndarray] = [x, m.floats(*varying)]
    m.random.shuffle(pair)
    m.add(m.random.choice(["Add", "Mul"]), *pair)


def _pair(m: GraphMaker, x: Value) -> None:
    others = [v for v in m.values if v.shape == x.shape]
    m.add(m.random.choice(["Add", "Mul", "Sub"]), x, m.random.choice(others))


def _clip(m: GraphMaker, x: Value) -> None:
    m.add("Clip", x, np.asarray(np.float32(-0.5)), np.asarray(np.float32(m.random.random())))


def _transpose(m: GraphMaker, x: Value) -> None:
    perm = list(range(len(x.shape)))
    m.random.shuffle(perm)
    m.add("Transpose", x, perm=tuple(perm))


def _reshape(m: GraphMaker, x: Value) -> None:
    shape = _shape(x)
    axis = m.random.randrange(len(shape))
    if m.random.random() < 0.5 and len(shape) > 1 and axis + 1 < len(shape):
        shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
    elif len(shape) < 5:
        divisors = [d for d in range(1, shape[axis] + 1) if shape[axis] % d == 0]
        part = m.random.choice(divisors)
        shape[axis : axis + 1] = [part, shape[axis] // part]
    m.add("Reshape", x, np.array(shape, np.int64))


def _unsqueeze(m: GraphMaker, x: Value) -> None:
    if len(x.shape) < 5:
        m.add("Unsqueeze", x, np.array([m.random.randrange(len(x.shape) + 1)], np.int64))


def _concat(m: GraphMaker, x: Value) -> None:
    axis = m.random.randrange(len(x.shape))
    if _shape(x)[axis] <= 16:
        others = [v for v in m.values if v.shape == x.shape]
        m.add("Concat", x, m.random.choice(others), axis=axis)


def _slice(m: GraphMaker, x: Value) -> None:
    axis = m.random.randrange(len(x.shape))
    size = _shape(x)[axis]
    start = m.random.randrange(size)
    end = m.random.randrange(start, size) + 1
    bounds = [np.array([n], np.int64) for n in (start, end, axis)]
    m.add("Slice", x, *bounds)


def _split(m: GraphMaker, x: Value) -> None:
    axis = m.random.randrange(len(x.shape))
    size = _shape(x)[axis]
    if size > 1:
        first = m.random.randrange(1, size)
        m.add("Split", x, np.array([first, size - first], np.int64), count=2, axis=axis)


def _gather(m: GraphMaker, x: Value) -> None:
    axis = m.random.randrange(len(x.shape))
    if len(x.shape) > 2:
        where = np.asarray(m.random.randrange(_shape(x)[axis]), np.int64)
        m.add("Gather", x, where, axis=axis)


def _matmul(m: GraphMaker, x: Value) -> None:
    if len(x.shape) > 1:
        m.add("MatMul", x, m.floats(_shape(x)[-1], m.random.choice([3, 4, 6])))


def _conv(m: GraphMaker, x: Value) -> None:
    if len(x.shape) in (3, 4):
        channels = _shape(x)[1]
        depthwise = m.random.random() < 0.4
        out, width, group = (channels, 1, channels) if depthwise else (6, channels, 1)
        ones = (1,) * (len(x.shape) - 2)
        m.add("Conv", x, m.floats(out, width, *ones), group=group)


def _reduce(m: GraphMaker, x: Value) -> None:
    if len(x.shape) > 1:
        axis = m.random.randrange(len(x.shape))
        keep = m.random.randrange(2)
        m.add(
            m.random.choice(["ReduceMean", "ReduceMax"]),
            x,
            np.array([axis], np.int64),
            keepdims=keep,
        )


def _softmax(m: GraphMaker, x: Value) -> None:
    m.add("Softmax", x, axis=m.random.randrange(len(x.shape)))


def _norm(m: GraphMaker, x: Value) -> None:
    m.add("LayerNormalization", x, m.floats(_shape(x)[-1]), axis=-1)


def _pad(m: GraphMaker, x: Value) -> None:
    pads = [m.random.choice([0, 0, 1]) for _ in range(2 * len(x.shape))]
    m.add("Pad", x, np.array(pads, np.int64))


def _shuffle(m: GraphMaker, x: Value) -> None:
    shape = _shape(x)
    if len(shape) > 2 and shape[1] % 2 == 0:
        m.add("Reshape", x, np.array([shape[0], 2, shape[1] // 2, *shape[2:]], np.int64))
        perm = (0, 2, 1, *range(3, len(shape) + 1))
        m.add("Transpose", m.values[-1], perm=perm)
        m.add("Reshape", m.values[-1], np.array(shape, np.int64))


RULES: tuple[Callable[[GraphMaker, Value], None], ...] = (
    *(_unary, _unary, _number, _vector, _vector, _pair, _pair, _clip),
    *(_transpose, _transpose, _reshape, _reshape, _unsqueeze),
    *(_concat, _concat, _slice, _split, _gather, _shuffle, _pad),
    *(_matmul, _matmul, _conv, _conv, _reduce, _softmax, _norm),
)
