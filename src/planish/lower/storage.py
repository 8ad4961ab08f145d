"""Where values lie: buffers, and strided views of them.

A view costs nothing: it is another shape, strides and offset on the same buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from planish.base.dtypes import DType
from planish.base.shapes import Dim, Shape, mod
from planish.kernels.workload import dense_strides


@dataclass(eq=False)
class Buffer:
    """Memory for one or more values. Compared by identity.

    Attributes:
        kind: "arena", "input", "output", "weight" or "heap".
        number: Which input, output, weight or heap buffer; set when the plan is assembled.
        dtype: Element type.
        elements: Elements it must hold.
        name: For people.
        alias: The buffer whose memory this one takes over (in-place); None for memory of its own.
        loose: It has no memory: only the host touches its value, which is handed on as an object.
    """

    kind: str
    dtype: DType
    elements: Dim
    name: str
    number: int = -1
    alias: Buffer | None = field(default=None)
    loose: bool = False

    def root(self) -> Buffer:
        """The buffer whose memory this is."""
        return self if self.alias is None else self.alias.root()


@dataclass(frozen=True)
class Storage:
    """A strided view of a buffer: element (i0, i1, …) lies at offset + Σ i·stride, in elements."""

    buffer: Buffer
    shape: Shape
    strides: Shape
    offset: Dim = 0

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.buffer.dtype

    @property
    def is_dense(self) -> bool:
        """True when it is row-major without gaps."""
        return same_strides(self.shape, self.strides, dense_strides(self.shape))


def ordered_strides(shape: Shape, order: Sequence[int]) -> Shape:
    """Dense strides with the axes stored in the given order, outermost first."""
    inner = dense_strides(tuple(shape[axis] for axis in order))
    strides: list[Dim] = [0] * len(shape)
    for axis, stride in zip(order, inner, strict=True):
        strides[axis] = stride
    return tuple(strides)


def same_strides(shape: Shape, left: Shape, right: Shape) -> bool:
    """True when two strides mean the same memory; axes of one element have none."""
    return all(e == 1 or a == b for e, a, b in zip(shape, left, right, strict=True))


def transposed(view: Storage, perm: Sequence[int]) -> Storage:
    """Axes permuted as ONNX Transpose does."""
    return Storage(
        view.buffer,
        tuple(view.shape[axis] for axis in perm),
        tuple(view.strides[axis] for axis in perm),
        view.offset,
    )


def sliced(view: Storage, axis: int, start: Dim, size: Dim, step: int = 1) -> Storage:
    """`size` elements of an axis from `start` on, every `step`-th; a negative step goes back."""
    shape, strides = list(view.shape), list(view.strides)
    offset = view.offset + strides[axis] * start
    shape[axis] = size
    strides[axis] = strides[axis] * step
    return Storage(view.buffer, tuple(shape), tuple(strides), offset)


def expanded(view: Storage, shape: Shape) -> Storage | None:
    """Axes of size 1 repeated to a broadcast shape, by stride 0; None where shapes do not fit."""
    missing = len(shape) - len(view.shape)
    old_shape = (1,) * missing + view.shape
    old_strides = (0,) * missing + view.strides
    strides: list[Dim] = []
    for have, want, stride in zip(old_shape, shape, old_strides, strict=True):
        if have == want:
            strides.append(stride)
        elif have == 1:
            strides.append(0)
        else:
            return None
    return Storage(view.buffer, tuple(shape), tuple(strides), view.offset)


def reshaped(view: Storage, shape: Shape) -> Storage | None:
    """The same elements in the same logical order under another shape; None where that is no view.

    Axes are matched in runs of equal size; within a run, old axes must be mergeable (each one's
    stride is the next one's stride times its extent) to be split anew.
    """
    if any(extent == 0 for extent in (*view.shape, *shape)):
        return Storage(view.buffer, shape, dense_strides(shape), view.offset)
    old = [(e, s) for e, s in zip(view.shape, view.strides, strict=True) if e != 1]
    strides: list[Dim] = []
    at = 0
    new = list(shape)
    position = 0
    while position < len(new):
        if new[position] == 1:
            strides.append(0)
            position += 1
            continue
        run_new = [position]
        run_old: list[int] = []
        if at >= len(old):
            return None
        run_old.append(at)
        size_new, size_old = new[position], old[at][0]
        while size_new != size_old:
            grown = _grow(size_new, size_old, new, run_new, old, run_old)
            if grown is None:
                return None
            size_new, size_old = grown
        merged = _merge(old, run_old)
        if merged is None:
            return None
        inner: list[Dim] = []
        step = merged
        for axis in reversed(run_new):
            inner.append(step)
            step = step * new[axis]
        strides += reversed(inner)
        position = run_new[-1] + 1
        at = run_old[-1] + 1
    if at != len(old):
        return None
    return Storage(view.buffer, tuple(shape), tuple(strides), view.offset)


def _grow(
    size_new: Dim,
    size_old: Dim,
    new: list[Dim],
    run_new: list[int],
    old: list[tuple[Dim, Dim]],
    run_old: list[int],
) -> tuple[Dim, Dim] | None:
    """Lengthen the shorter run by one axis; symbolic sizes are compared by divisibility."""
    if _divides(size_new, size_old) and run_new[-1] + 1 < len(new):
        run_new.append(run_new[-1] + 1)
        return size_new * new[run_new[-1]], size_old
    if _divides(size_old, size_new) and run_old[-1] + 1 < len(old):
        run_old.append(run_old[-1] + 1)
        return size_new, size_old * old[run_old[-1]][0]
    if isinstance(size_new, int) and isinstance(size_old, int):
        if size_new < size_old and run_new[-1] + 1 < len(new):
            run_new.append(run_new[-1] + 1)
            return size_new * new[run_new[-1]], size_old
        if size_old < size_new and run_old[-1] + 1 < len(old):
            run_old.append(run_old[-1] + 1)
            return size_new, size_old * old[run_old[-1]][0]
    return None


def _divides(part: Dim, whole: Dim) -> bool:
    """True when `whole` is a larger multiple of `part`, as polynomials."""
    return part != whole and part != 0 and mod(whole, part) == 0


def _merge(old: list[tuple[Dim, Dim]], run: list[int]) -> Dim | None:
    """The innermost stride of a run of axes that lie like one axis; None if they do not."""
    for outer, inner in pairwise(run):
        if old[outer][1] != old[inner][1] * old[inner][0]:
            return None
    return old[run[-1]][1]


def touched_bytes(view: Storage) -> Dim | None:
    """Bytes from the view's first element to behind its last; None where it runs backwards."""
    if any(extent == 0 for extent in view.shape):
        return 0
    total: Dim = 1
    for extent, stride in zip(view.shape, view.strides, strict=True):
        if isinstance(stride, int) and stride < 0:
            return None
        total = total + (extent - 1) * stride
    return total * view.dtype.size
