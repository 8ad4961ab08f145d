"""Views of storage against NumPy's strides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.base.dtypes import DType
from planish.base.shapes import Dim, evaluate, symbol
from planish.lower.storage import (
    Buffer,
    Storage,
    expanded,
    ordered_strides,
    reshaped,
    sliced,
    touched_bytes,
    transposed,
)

N, M = symbol("N"), symbol("M")


def _new(shape: tuple[Dim, ...], order: tuple[int, ...] | None = None) -> Storage:
    axes = tuple(range(len(shape))) if order is None else order
    size: Dim = math.prod(d for d in shape if isinstance(d, int))
    return Storage(Buffer("arena", DType.I64, size, "b"), shape, ordered_strides(shape, axes))


def _array(view: Storage, memory: np.ndarray, env: dict[str, int] | None = None) -> np.ndarray:
    """What the view shows of memory."""
    shape = tuple(evaluate(d, env or {}) for d in view.shape)
    strides = tuple(evaluate(d, env or {}) * memory.itemsize for d in view.strides)
    if 0 in shape:
        return np.zeros(shape, memory.dtype)
    start = evaluate(view.offset, env or {})
    assert 0 <= start < memory.size
    return np.lib.stride_tricks.as_strided(memory[start:], shape, strides)


@st.composite
def _views(draw: st.DrawFn) -> Storage:
    """A dense tensor in any axis order, then sliced."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    view = _new(shape, tuple(draw(st.permutations(range(len(shape))))))
    if draw(st.booleans()):
        axis = draw(st.integers(0, len(shape) - 1))
        step = draw(st.sampled_from((-2, -1, 1, 2)))
        size = draw(st.integers(1, shape[axis]))
        size = min(size, -(-shape[axis] // abs(step)))
        first = 0 if step > 0 else shape[axis] - 1
        view = sliced(view, axis, first, size, step)
    return view


@st.composite
def _shapes_of(draw: st.DrawFn, count: int) -> tuple[int, ...]:
    """A shape of `count` elements."""
    shape: list[int] = []
    while count > 1:
        extent = draw(st.sampled_from([d for d in range(2, count + 1) if count % d == 0]))
        shape.append(extent)
        count //= extent
    for _ in range(draw(st.integers(0, 2))):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return tuple(shape)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_reshaped_view_shows_the_same_elements(data: st.DataObject) -> None:
    view = data.draw(_views())
    memory = np.arange(256, dtype=np.int64)
    logical = _array(view, memory)
    shape = data.draw(_shapes_of(logical.size))
    made = reshaped(view, shape)
    if made is not None:
        np.testing.assert_array_equal(_array(made, memory), logical.reshape(shape))
    dense = _new(tuple(logical.shape))
    assert reshaped(dense, shape) is not None, "a dense tensor takes any shape"


@settings(max_examples=100, deadline=None)
@given(_views(), st.data())
def test_transposed_expanded_sliced(view: Storage, data: st.DataObject) -> None:
    memory = np.arange(256, dtype=np.int64)
    logical = _array(view, memory)
    perm = data.draw(st.permutations(range(logical.ndim)))
    np.testing.assert_array_equal(_array(transposed(view, perm), memory), logical.transpose(perm))
    wide = (3, *(data.draw(st.integers(1, 3)) if e == 1 else e for e in logical.shape))
    grown = expanded(view, wide)
    assert grown is not None
    np.testing.assert_array_equal(_array(grown, memory), np.broadcast_to(logical, wide))
    span = touched_bytes(view)
    if span is not None:
        last = sum((e - 1) * s for e, s in zip(view.shape, view.strides, strict=True))
        assert span == (last + 1) * 8


def test_shapes_that_do_not_fit_are_no_expansion() -> None:
    assert expanded(_new((2, 3)), (4, 3)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((N, 4, M), (N, 2, 2, M)),
        ((N, 4, M), (4 * N, M)),
        ((N, 4, M), (N, 4 * M)),
        ((N, 4, M), (4 * N * M,)),
        ((2 * N, M), (2, N, M)),
        ((2 * N, M), (N, 2, M)),
        ((N, M), (1, N, 1, M)),
    ],
)
def test_symbolic_sizes_are_split_and_merged(old: tuple[Dim, ...], new: tuple[Dim, ...]) -> None:
    made = reshaped(_new(old), new)
    assert made is not None
    for env in ({"N": 1, "M": 1}, {"N": 3, "M": 5}):
        memory = np.arange(512, dtype=np.int64)
        shape = tuple(evaluate(d, env) for d in new)
        want = memory[: math.prod(shape)].reshape(shape)
        np.testing.assert_array_equal(_array(made, memory, env), want)


def test_channels_last_does_not_flatten_but_merges_pixels() -> None:
    view = _new((N, 3, 4, 5), (0, 2, 3, 1))
    assert reshaped(view, (N, 60)) is None
    pixels = reshaped(view, (N, 3, 20))
    assert pixels is not None and pixels.strides == (60, 1, 3)


def test_empty_tensors_reshape_to_anything_empty() -> None:
    made = reshaped(_new((0, 3)), (3, 0, 7))
    assert made is not None and made.shape == (3, 0, 7)
