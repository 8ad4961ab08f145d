"""The contractions in NumPy: convolution of any rank, batched matmul, attention."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from planish.kernels.workload import Workload


def conv(workload: Workload, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """[N, O, *out] for x [N, C, *spatial] and w [O, C/group, *kernel], before any rounding."""
    x, w = _wide(inputs[0]), _wide(inputs[1])
    rank = x.ndim - 2
    strides, dilations = workload.ints("strides"), workload.ints("dilations")
    pads, group = workload.ints("pads"), int(str(workload.attr("group")))
    kernel = w.shape[2:]
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    spans = [dilation * (k - 1) + 1 for k, dilation in zip(kernel, dilations, strict=True)]
    out = [
        (size - span) // stride + 1
        for size, span, stride in zip(x.shape[2:], spans, strides, strict=True)
    ]
    batch, per_group = x.shape[0], w.shape[1]
    x = x.reshape(batch, group, per_group, *x.shape[2:])
    w = w.reshape(group, w.shape[0] // group, per_group, *kernel)
    total = np.zeros((batch, *w.shape[:2], int(np.prod(out))), x.dtype)
    for tap in itertools.product(*map(range, kernel)):
        window = tuple(
            slice(k * dilation, k * dilation + stride * (n - 1) + 1, stride)
            for k, dilation, stride, n in zip(tap, dilations, strides, out, strict=True)
        )
        pixels = x[(slice(None),) * 3 + window].reshape(batch, group, per_group, -1)
        total += np.matmul(w[(slice(None),) * 3 + tap], pixels)
    return total.reshape(batch, -1, *out)


def matmul(_: Workload, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """[*batch, M, N] for a [*batch, M, K] and b [*batch, K, N], before any rounding."""
    return np.asarray(np.matmul(_wide(inputs[0]), _wide(inputs[1])))


def attention(
    workload: Workload,
    inputs: Sequence[np.ndarray],
    mask: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """softmax(mask(q · kᵀ · scale)) · v, before any rounding."""
    q, k, v = map(_wide, inputs[:3])
    score = mask(np.matmul(q, np.swapaxes(k, -1, -2)) * float(str(workload.attr("scale"))))
    with np.errstate(invalid="ignore"):
        score = np.exp(score - score.max(axis=-1, keepdims=True))
        return np.asarray(np.matmul(score / score.sum(axis=-1, keepdims=True), v))


def conv_transpose(
    workload: Workload, inputs: Sequence[np.ndarray], out: Sequence[int]
) -> np.ndarray:
    """[N, O, *out] for x [N, C, *spatial] and w [C, O/group, *kernel], before any rounding.

    Every input is spread over the outputs that its taps reach; what falls outside is dropped.
    """
    x, w = _wide(inputs[0]), _wide(inputs[1])
    rank = x.ndim - 2
    strides, dilations = workload.ints("strides"), workload.ints("dilations")
    before, group = workload.ints("pads")[:rank], int(str(workload.attr("group")))
    batch, channels, *size = x.shape
    kernel = w.shape[2:]
    x = x.reshape(batch, group, channels // group, -1)
    w = w.reshape(group, channels // group, w.shape[1], *kernel)
    reach = [
        max((n - 1) * s + (k - 1) * d + 1, b + o)
        for n, s, k, d, b, o in zip(size, strides, kernel, dilations, before, out, strict=True)
    ]
    total = np.zeros((batch, group, w.shape[2], *reach), x.dtype)
    for tap in itertools.product(*map(range, kernel)):
        window = tuple(
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, n, s in zip(tap, dilations, size, strides, strict=True)
        )
        part = np.matmul(np.swapaxes(w[(slice(None),) * 3 + tap], 1, 2), x)
        total[(slice(None),) * 3 + window] += part.reshape(*part.shape[:3], *size)
    inside = tuple(slice(b, b + o) for b, o in zip(before, out, strict=True))
    return total[(slice(None),) * 3 + inside].reshape(batch, -1, *out)


def _wide(array: np.ndarray) -> np.ndarray:
    """float64 for floats, int64 for the rest."""
    return array.astype(np.int64 if array.dtype.kind in "iub" else np.float64)
