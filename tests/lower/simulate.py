"""Runs lowered steps in NumPy: the plain twin of tactics, plans and the runtime.

Memory starts out as NaN (99 for whole numbers), so that reads of what no step wrote show.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx.reference import ReferenceEvaluator

from planish.base.shapes import evaluate
from planish.graph.graph import Graph
from planish.kernels.reference import run_reference
from planish.lower.lowering import HostCall, Lowered
from planish.lower.operands import Source
from planish.lower.storage import Buffer, Storage

_Key = tuple[str, int]


class Memory:
    """The buffers of one run.

    Args:
        feeds: Inputs by name.
        env: Values of the symbols.
    """

    def __init__(self, feeds: Mapping[str, np.ndarray], env: Mapping[str, int]) -> None:
        self.feeds = feeds
        self.env = env
        self._made: dict[_Key, np.ndarray] = {}

    def flat(self, buffer: Buffer) -> np.ndarray:
        """A buffer's elements."""
        if buffer.kind == "input":
            return np.ascontiguousarray(self.feeds[buffer.name]).reshape(-1)
        root = buffer.root()
        key = (root.kind, root.number if root.kind == "output" else id(root))
        if key not in self._made:
            poison = np.nan if buffer.dtype.is_float else 1 if buffer.dtype.bits == 1 else 99
            size = evaluate(root.elements, self.env)
            self._made[key] = np.full(size, poison, buffer.dtype.numpy)
        return self._made[key]

    def view(self, storage: Storage, base: np.ndarray | None = None) -> np.ndarray:
        """What a view shows; of the given memory, or of its buffer."""
        base = self.flat(storage.buffer) if base is None else base
        shape = tuple(evaluate(d, self.env) for d in storage.shape)
        if 0 in shape:
            return np.zeros(shape, base.dtype)
        strides = [evaluate(d, self.env) for d in storage.strides]
        start = evaluate(storage.offset, self.env)
        ends = [(e - 1) * s for e, s in zip(shape, strides, strict=True)]
        low, high = sum(e for e in ends if e < 0), sum(e for e in ends if e > 0)
        assert start + low >= 0 and start + high < base.size, f"{storage} leaves its buffer"
        return np.lib.stride_tricks.as_strided(
            base[start:], shape, [s * base.itemsize for s in strides]
        )

    def operand(self, source: Source) -> np.ndarray:
        """A copy of what a step reads."""
        if source.data is None:
            return self.view(source.storage).copy()
        return self.view(source.storage, np.ascontiguousarray(source.data).reshape(-1)).copy()


def simulate(
    lowered: Lowered, graph: Graph, feeds: Mapping[str, np.ndarray], env: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The graph's outputs, by its steps. Sizes that only data tell are not handled."""
    memory = Memory(feeds, env)
    for step in lowered.steps:
        if step.host is not None:
            _host(step.host, memory)
            continue
        assert step.workload is not None
        values = [evaluate(d, env) for d in step.params]
        sizes = dict(zip(step.workload.params, values, strict=True))
        inputs = [memory.operand(source) for source in step.inputs]
        results = run_reference(step.workload, inputs, sizes)
        for result, storage in zip(results, step.outputs, strict=True):
            if result.size:
                memory.view(storage)[...] = result
    found = {}
    for number, value in enumerate(graph.outputs):
        out = Buffer("output", value.dtype, 0, value.name, number)
        size = [evaluate(d, env) for d in value.shape]
        found[value.name] = (
            memory.flat(out).reshape(size) if 0 not in size else np.zeros(size, value.dtype.numpy)
        )
    return found


def _host(call: HostCall, memory: Memory) -> None:
    runner = ReferenceEvaluator(call.model)
    inputs = [memory.view(storage).copy() for _, storage in call.inputs]
    results = runner.run(None, dict(zip(runner.input_names, inputs, strict=True)))
    for result, place in zip(results, call.outputs, strict=True):
        if place is not None:
            memory.view(place[1])[...] = result
