"""Labelled data of ../shared: to calibrate on, and to score with, each as its network wants it.

No picture serves both: ImageNet and CIFAR-10 have a set for each; of MNIST and of the speech clips
the first ones are for calibration, and those after them are scored.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = SHARED / "data"
SPEECH_CALIBRATION = 100  # clips
MNIST_CALIBRATION = 500  # digits

Labelled = Iterator[tuple[np.ndarray, int]]  # (input without its batch dim, class)
Normalize = Callable[[np.ndarray], np.ndarray]

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def normalize_imagenet(rgb: np.ndarray) -> np.ndarray:
    """Bytes [H, W, 3] to floats [3, H, W], by the mean and deviation of ImageNet."""
    return ((rgb.astype(np.float32) / 255 - _MEAN) / _DEVIATION).transpose(2, 0, 1)


def normalize_symmetric(rgb: np.ndarray) -> np.ndarray:
    """Bytes [H, W, 3] to floats [3, H, W] between -1 and 1."""
    return ((rgb.astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)


def crop_centre(rgb: np.ndarray, size: int) -> np.ndarray:
    """The middle `size` x `size` of a picture [H, W, 3]."""
    top, left = (rgb.shape[0] - size) // 2, (rgb.shape[1] - size) // 2
    return rgb[top : top + size, left : left + size]


def read_imagenet(normalize: Normalize, split: str) -> Labelled:
    """Pictures of imagenet_val or imagenet_calib, centre crop 224."""
    from PIL import Image

    folder = DATA / f"imagenet_{split}"
    for line in (folder / "labels.txt").read_text().splitlines():
        file, label = line.split()
        with Image.open(folder / file) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        yield normalize(crop_centre(rgb, 224)), int(label)


def read_cifar(split: str) -> Labelled:
    """CIFAR-10 pictures, 32 x 32."""
    with np.load(DATA / f"cifar10_{split}.npz") as stored:
        images, labels = stored["image"], stored["label"]
    for image, label in zip(images, labels, strict=True):
        yield normalize_imagenet(image), int(label)


def read_mnist() -> Labelled:
    """The 10,000 test digits."""
    images = gzip.decompress((DATA / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((DATA / "t10k-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    for picture, label in zip(pixels, np.frombuffer(labels, np.uint8, offset=8), strict=True):
        yield picture.astype(np.float32) / 255, int(label)


def read_speech() -> Labelled:
    """Speech commands as mel-frequency coefficients [98, 40]."""
    with np.load(DATA / "speech_mfcc700.npz") as stored:
        clips, labels = stored["mfcc"], stored["label"]
    for clip, label in zip(clips, labels, strict=True):
        yield clip.astype(np.float32), int(label)


@dataclass(frozen=True)
class Dataset:
    """What a trained network is fed.

    Attributes:
        everything: All that is labelled to score with.
        calibration: What calibration may see.
        seen: How many of the first of `everything` those are.
    """

    everything: Callable[[], Labelled]
    calibration: Callable[[], Labelled]
    seen: int = 0

    def held_out(self) -> Labelled:
        """What calibration may not see."""
        return islice(self.everything(), self.seen, None)


def _imagenet(normalize: Normalize) -> Dataset:
    return Dataset(
        lambda: read_imagenet(normalize, "val"), lambda: read_imagenet(normalize, "calib")
    )


def _split(read: Callable[[], Labelled], count: int) -> Dataset:
    return Dataset(read, lambda: islice(read(), count), count)


_CIFAR = Dataset(lambda: read_cifar("test5000"), lambda: read_cifar("calib1000"))
# The trained networks of ../shared that have labelled data.
DATASETS: dict[str, Dataset] = {
    "squeezenet1.1": _imagenet(normalize_imagenet),
    "mobilenetv2_1.0_224": _imagenet(normalize_symmetric),
    "mobilenet_v1_1.0_224": _imagenet(normalize_symmetric),
    "resnet20_cifar10": _CIFAR,
    "resnet56_cifar10": _CIFAR,
    "lenet_mnist": _split(read_mnist, MNIST_CALIBRATION),
    "kwt1_mfcc": _split(read_speech, SPEECH_CALIBRATION),
}


def batches(pictures: Labelled, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(inputs [n, ...], classes [n]) of at most `size` each; the last one may be smaller."""
    while chunk := list(islice(pictures, size)):
        inputs, labels = zip(*chunk, strict=True)
        yield np.ascontiguousarray(np.stack(inputs)), np.array(labels)
