"""Bias correction: the mean error that quantisation leaves in a channel is taken out of the bias.

Rounded weights, and ranges that saturate, shift the mean of a layer's results; over a whole picture
the shift does not average out, and the next layers carry it on. It is measured on data: the mean of
each channel with and without quantisation. Layers are corrected from the inputs on, since what is
left of an earlier layer's error belongs to the earlier layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

Biases = dict[str, np.ndarray]
Means = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def correct_biases(
    order: Iterable[str],
    wanted: Mapping[str, np.ndarray],
    measure: Means,
    progress: Callable[[int], None] = lambda done: None,
) -> Biases:
    """What to add to the biases.

    Args:
        order: Names of the layers, each behind those that it depends on.
        wanted: Layer -> the mean of each of its channels in floats.
        measure: Corrections so far -> the means of all layers with quantisation, on the same data.
        progress: Called with the number of layers done.

    Returns:
        Layer -> what to add, one a channel.
    """
    biases: Biases = {}
    for number, name in enumerate(order):
        found = measure(biases)[name]
        biases[name] = (np.asarray(wanted[name]) - np.asarray(found)).astype(np.float32)
        progress(number + 1)
    return biases
