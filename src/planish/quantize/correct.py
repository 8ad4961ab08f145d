"""Bias correction: the mean error that quantisation leaves in a channel is taken out of the bias.

Rounded weights, and ranges that saturate, shift the mean of a layer's results; over a whole picture
the shift does not average out, and the next layers carry it on. Two parts of it are taken out:

    of the weights   what their rounding adds to the mean is linear in what the layer reads,
                     so the mean of that (`mean_patch`) tells it exactly, without a run
    of the ranges    what is left is measured: the mean of each channel with and without
                     quantisation, layer by layer from the inputs on, since what an earlier layer
                     leaves belongs to the earlier layer. Of a few samples it is as much noise as
                     truth, so it is shrunk by the share of its square that chance explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from planish.graph.graph import Node

Biases = dict[str, np.ndarray]
Means = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def correct_biases(
    order: Iterable[str],
    wanted: Mapping[str, np.ndarray],
    measure: Means,
    progress: Callable[[int], None] = lambda done: None,
    start: Mapping[str, np.ndarray] | None = None,
) -> Biases:
    """What to add to the biases.

    Args:
        order: Names of the layers, each behind those that it depends on.
        wanted: Layer -> the mean of each of its channels in floats: [samples, channels].
        measure: Corrections so far -> the means of all layers with quantisation, on the same data.
        progress: Called with the number of layers done.
        start: Corrections to begin with.

    Returns:
        Layer -> what to add, one a channel.
    """
    biases: Biases = dict(start or {})
    for number, name in enumerate(order):
        gaps = np.asarray(wanted[name], np.float64) - np.asarray(measure(biases)[name])
        found = certain_mean(gaps) + biases.get(name, 0.0)
        biases[name] = np.asarray(found).astype(np.float32)
        progress(number + 1)
    return biases


def certain_mean(rows: np.ndarray) -> np.ndarray:
    """The mean over the first axis, times the share of its square that chance does not explain."""
    mean = np.asarray(rows.mean(axis=0))
    if len(rows) < 2:
        return mean
    chance = rows.var(axis=0, ddof=1) / len(rows)
    square = np.where(mean == 0.0, 1.0, mean**2)
    return np.asarray(mean * np.maximum(0.0, 1.0 - chance / square))


def weight_correction(node: Node, rounded: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """What takes the mean error of rounded weights out of a contraction, one number a channel.

    Args:
        node: The contraction, with its float weights.
        rounded: Its weights as 8 bits have them.
        mean: Of what they meet, as `mean_patch` gives it.
    """
    weights = node.inputs[1]
    assert weights is not None
    error = np.asarray(rounded, np.float64) - np.asarray(weights.data, np.float64)
    if node.op == "MatMul":
        return np.asarray(-(mean[0] @ error))
    rows = error.reshape(len(mean), -1, mean.shape[1])
    return np.asarray(-np.einsum("gnk,gk->gn", rows, mean).reshape(-1))


def mean_patch(node: Node, x: np.ndarray) -> np.ndarray:
    """The mean of what each weight of a contraction is multiplied with: [groups, weights].

    Args:
        node: A Conv with its pads as numbers, or a MatMul with a constant matrix.
        x: What it reads.
    """
    if node.op == "MatMul":
        return np.asarray(x.reshape(-1, x.shape[-1]).mean(axis=0, dtype=np.float64))[None]
    spatial = tuple(range(2, x.ndim))
    means = [np.asarray(t.mean(axis=(0, *spatial), dtype=np.float64)) for t in conv_taps(node, x)]
    groups = int(node.attrs.get("group", 1))
    return np.stack(means, axis=-1).reshape(groups, -1)


def sample_patches(node: Node, x: np.ndarray, most: int, start: int = 0) -> np.ndarray:
    """What the weights of a contraction meet at some places: [groups, places, weights].

    Args:
        node: As for `mean_patch`.
        x: What it reads.
        most: Places at most; spread over all by the golden section, so that no grid hides.
        start: Where that begins; other starts give other places.
    """
    if node.op == "MatMul":
        rows = x.reshape(-1, x.shape[-1])
        return np.asarray(rows[_spread_places(len(rows), most, start)])[None]
    taps = list(conv_taps(node, x))
    batch, channels, *results = taps[0].shape
    grid = (batch, *results)
    first, *rest = np.unravel_index(_spread_places(int(np.prod(grid)), most, start), grid)
    chosen: tuple[Any, ...] = (first, slice(None), *rest)
    seen = np.stack([tap[chosen] for tap in taps], axis=-1)
    groups = int(node.attrs.get("group", 1))  # seen: [places, channels, taps]
    parts = seen.reshape(len(seen), groups, channels // groups * len(taps))
    return np.ascontiguousarray(parts.transpose(1, 0, 2))


def _spread_places(count: int, most: int, start: int) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    places = (start + np.arange(most)) * golden % 1.0 * count
    return np.asarray(np.floor(places), np.int64)


def conv_taps(node: Node, x: np.ndarray) -> Iterator[np.ndarray]:
    """What each place of a convolution's kernel sees, as views [batch, channels, …results]."""
    weights = node.inputs[1]
    assert weights is not None
    kernel, rank = np.asarray(weights.data).shape[2:], x.ndim - 2
    strides = [int(n) for n in node.attrs.get("strides", [1] * rank)]
    dilations = [int(n) for n in node.attrs.get("dilations", [1] * rank)]
    pads = [int(n) for n in node.attrs.get("pads", [0] * 2 * rank)]
    around = list(zip(pads[:rank], pads[rank:], strict=True))
    wide = np.pad(x, ((0, 0), (0, 0), *around)) if any(pads) else x
    for place in product(*map(range, kernel)):
        cuts = [slice(None), slice(None)]
        for axis in range(rank):
            reach = wide.shape[axis + 2] - dilations[axis] * (kernel[axis] - 1)
            first = place[axis] * dilations[axis]
            cuts.append(slice(first, first + reach, strides[axis]))
        yield wide[tuple(cuts)]
