"""The demo: a small Inception network trained on handwritten digits, and pictures to score it on.

Everything here ships inside the package, so that a first build needs no download:

    digits_inception.onnx   Conv + BatchNormalization + Relu blocks and concats, nothing folded
    digits_test.npz         510 pictures never trained on: `pixels` [n, 8, 8], `labels` [n]
    digits_calibration.npz  128 pictures of those trained on, without labels: `pixels` [n, 8, 8]
    ATTRIBUTION.md          where the pictures come from and the terms they are under

The pictures are part of the test set of "Optical Recognition of Handwritten Digits", E. Alpaydin
and C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, licence
CC BY 4.0. The network is planish's own; `tools/train_demo.py` in the repository trains it again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STORED_SIZE = 8  # height and width of a stored picture, pixels
INPUT_SIZE = 64  # height and width that the network reads, pixels
FULL_INK = 16  # a stored pixel counts the inked dots of a 4x4 cell of the scan: 0..16

_FOLDER = Path(__file__).parent


def model_path() -> Path:
    """The demo network, an ONNX file.

    Input `image` float32 [batch, 1, 64, 64], as `preprocess` returns it; output `logits` float32
    [batch, 10], one column a digit. `batch` is a symbolic dimension.
    """
    return _FOLDER / "digits_inception.onnx"


def test_set() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The labelled pictures to score the network on, cut from forms that it was not trained on.

    Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, https://doi.org/10.24432/C50P49; licence CC BY 4.0 (see ATTRIBUTION.md).

    Returns:
        Pictures float32 [n, 1, 64, 64], ready to be fed to `image`, and labels int64 [n] in 0..9.
    """
    with np.load(_FOLDER / "digits_test.npz", allow_pickle=False) as stored:
        return preprocess(stored["pixels"]), stored["labels"].astype(np.int64)


def calibration_set() -> NDArray[np.float32]:
    """Pictures to calibrate 8 bits with, cut from forms that the network was trained on.

    Source and licence: as for `test_set`.

    Returns:
        float32 [n, 1, 64, 64], ready to be fed to `image`.
    """
    with np.load(_FOLDER / "digits_calibration.npz", allow_pickle=False) as stored:
        return preprocess(stored["pixels"])


def preprocess(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Enlarges stored pictures to the network's size by bilinear interpolation, scaled to -1..1.

    Args:
        pixels: [n, 8, 8], ink counts 0..16.

    Returns:
        float32 [n, 1, 64, 64]; -1 is paper, 1 is full ink.
    """
    enlarge = _bilinear_matrix(STORED_SIZE, INPUT_SIZE)
    ink = pixels.astype(np.float32) * np.float32(2 / FULL_INK) - np.float32(1)
    return (enlarge @ ink @ enlarge.T)[:, np.newaxis]


def _bilinear_matrix(source: int, target: int) -> NDArray[np.float32]:
    """[target, source] weights that resample a line; pixel centres align, edges are clamped."""
    centres = (np.arange(target) + 0.5) * (source / target) - 0.5
    position = np.clip(centres, 0, source - 1)
    below = np.minimum(position.astype(np.int64), source - 2)
    fraction = position - below
    weights = np.zeros((target, source))
    rows = np.arange(target)
    weights[rows, below] = 1 - fraction
    weights[rows, below + 1] = fraction
    return weights.astype(np.float32)
