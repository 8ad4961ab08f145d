"""View maps against NumPy: what a chain of views does, and that fewer nodes do the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.base.dtypes import DType
from planish.base.shapes import Dim, symbol
from planish.graph.graph import Graph, Node, TensorType, Value
from planish.passes.view_map import ViewMap, emit, identity, reshape_target, steps_of

N, H = symbol("N"), symbol("H")


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[str, tuple[int, ...]]]]:
    """A shape, and views that follow each other."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    steps: list[tuple[str, tuple[int, ...]]] = []
    now = list(shape)
    for _ in range(draw(st.integers(0, 5))):
        axis = draw(st.integers(0, len(now) - 1))
        kind = draw(st.sampled_from(["transpose", "merge", "cut", "unit"]))
        if kind == "transpose":
            perm = draw(st.permutations(range(len(now))))
            now = [now[a] for a in perm]
            steps.append(("transpose", tuple(perm)))
            continue
        if kind == "merge" and axis + 1 < len(now):
            now[axis : axis + 2] = [now[axis] * now[axis + 1]]
        elif kind == "cut":
            part = draw(st.sampled_from([d for d in range(1, now[axis] + 1) if now[axis] % d == 0]))
            now[axis : axis + 1] = [part, now[axis] // part]
        elif kind == "unit":
            now.insert(axis, 1)
        steps.append(("reshape", tuple(now)))
    return shape, steps


def run(data: np.ndarray, steps: list[tuple[str, tuple[Dim, ...]]]) -> np.ndarray:
    for op, numbers in steps:
        plain = [int(str(n)) for n in numbers]
        data = data.transpose(plain) if op.lower() == "transpose" else data.reshape(plain)
    return data


@settings(max_examples=300, deadline=None)
@given(chains())
def test_fewest_steps_do_the_same(
    chain: tuple[tuple[int, ...], list[tuple[str, tuple[int, ...]]]],
) -> None:
    shape, steps = chain
    view = identity(shape)
    for op, numbers in steps:
        if view is None:  # sizes that do not divide each other
            return
        view = view.transpose(numbers) if op == "transpose" else view.reshape(numbers)
    if view is None:
        return
    data = np.arange(np.prod(shape)).reshape(shape)
    expected = run(data, list(steps))
    assert view.shape == expected.shape
    fewest = steps_of(view)
    assert len(fewest) <= 3 and len(fewest) <= max(len(steps), 3)
    np.testing.assert_array_equal(run(data, fewest), expected)


def heads() -> ViewMap:
    view = identity((N, 12, 197, 64))
    assert view is not None
    made = view.transpose((2, 0, 1, 3)).reshape((197 * N, 768))
    assert made is not None
    return made


def test_symbolic_sizes() -> None:
    view = heads()
    assert view.shape == (197 * N, 768)
    assert view.axes == ((2, 0), (1, 3))
    assert steps_of(view) == [("Transpose", (2, 0, 1, 3)), ("Reshape", (197 * N, 768))]
    back = view.reshape((197, N, 12, 64))
    assert back is not None and steps_of(back) == [("Transpose", (2, 0, 1, 3))]


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((6, 4), (8, 3)),
        ((N, 4), (2, 2 * N)),
        ((N, H), (H, N)),
        ((0, 4), (4, 0)),
        ((N,), (2, N // 2)),
    ],
)
def test_what_does_not_divide_is_no_map(shape: tuple[Dim, ...], target: tuple[Dim, ...]) -> None:
    view = identity(shape)
    assert view is None or view.reshape(target) is None


def test_axes_that_stay_whole() -> None:
    view = identity((2, 3, 4))
    assert view is not None
    turned = view.transpose((2, 0, 1))
    assert [turned.axis_from(axis) for axis in range(3)] == [2, 0, 1]
    merged = turned.reshape((4, 6))
    assert merged is not None and [merged.axis_from(axis) for axis in range(2)] == [2, None]


@pytest.mark.parametrize(
    ("source", "target", "numbers"),
    [
        ((N, 4, 6), (N, 24), (0, 24)),
        ((N, 4, 6), (4, N, 6), (4, -1, 6)),
        ((N, H, 6), (N, 2, 3, H), (0, 2, 3, -1)),
        ((N, H), (H, N), None),
        ((2, 3), (6,), (6,)),
    ],
)
def test_reshape_targets(
    source: tuple[Dim, ...], target: tuple[Dim, ...], numbers: tuple[int, ...] | None
) -> None:
    graph = Graph("g", [], [], [])
    value = reshape_target(graph, source, target, "y")
    if numbers is None:
        assert value.is_sizes and value.dims == target
    else:
        assert value.data is not None and tuple(value.data) == numbers


def test_emitted_nodes_have_types() -> None:
    x = Value("x", TensorType(DType.F32, (N, 12, 197, 64)))
    graph = Graph("g", [x], [], [])
    source = Node("Relu", [x], [x], name="relu", origin=("relu",))
    nodes = emit(graph, heads(), x, "y", [source])
    assert [str(n.output.type) for n in nodes] == ["f32[197,N,12,64]", "f32[197*N,768]"]
    assert {n.origin for n in nodes} == {("relu",)}
