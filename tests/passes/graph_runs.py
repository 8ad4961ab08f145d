"""Random inputs for a graph, and what the reference implementation makes of them."""

from __future__ import annotations

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import evaluate, symbols_of
from planish.graph.graph import Graph
from planish.graph.reference import interpret

_SIZES = (2, 3, 5)  # of the symbolic dims, in order of appearance


def symbol_sizes(graph: Graph) -> dict[str, int]:
    """Small sizes for the symbolic dims of the inputs."""
    names = [n for v in graph.inputs for d in v.shape for n in sorted(symbols_of(d))]
    return {name: _SIZES[n % len(_SIZES)] for n, name in enumerate(dict.fromkeys(names))}


def random_feeds(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded inputs: normal floats, bytes, other integers 0 and 1, truth values."""
    rng = np.random.default_rng(seed)
    sizes = symbol_sizes(graph)
    feeds = {}
    for value in graph.inputs:
        shape = tuple(evaluate(dim, sizes) for dim in value.shape)
        if value.dtype.is_float:
            data = rng.standard_normal(shape)
        elif value.dtype in (DType.U8, DType.I8):
            limits = np.iinfo(value.dtype.numpy)
            data = rng.integers(limits.min, limits.max + 1, shape)
        else:
            data = rng.integers(0, 2, shape)
        feeds[value.name] = data.astype(value.dtype.numpy)
    return feeds


def outputs_of(graph: Graph, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The graph's outputs by the reference implementation."""
    values = interpret(graph, feeds)
    return {value.name: np.asarray(values[value.name]) for value in graph.outputs}


def assert_same(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-5
) -> None:
    """Outputs equal within a share of each one's largest magnitude."""
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape and found[name].dtype == wanted.dtype, name
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(found[name], wanted, name)
            continue
        scale = np.max(np.abs(wanted), initial=1e-6, where=np.isfinite(wanted))
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=tolerance * scale)
