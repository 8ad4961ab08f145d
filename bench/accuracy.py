"""Scores the trained models on labelled data: top-1 and top-5, against the known FP32 figures.

    python bench/accuracy.py                      planish, on the cases' own subsets
    python bench/accuracy.py --peer onnxruntime   the same by another runtime
    python bench/accuracy.py --count 0            all pictures there are

Models and data are read at ../shared; without it there is nothing to score, and it says so.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import peer_adapters
import zoo

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = SHARED / "data"
BATCH = 1
TOLERANCE = 0.3  # points of top-1

Labelled = Iterator[tuple[np.ndarray, int]]  # (input without its batch dim, class)

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


def read_imagenet(normalize: Callable[[np.ndarray], np.ndarray], split: str = "val") -> Labelled:
    """Pictures of imagenet_val or imagenet_calib, centre crop 224."""
    from PIL import Image

    folder = DATA / f"imagenet_{split}"
    for line in (folder / "labels.txt").read_text().splitlines():
        file, label = line.split()
        with Image.open(folder / file) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        yield normalize(crop_centre(rgb, 224)), int(label)


def read_cifar(split: str = "test5000") -> Labelled:
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
class Case:
    """A model, the data it is scored on and what is known to come out."""

    model: str
    read: Callable[[], Labelled]
    count: int  # of pictures that `top1` was taken on: the first so many; 0 is all
    top1: float  # percent, FP32
    first_class: int = 0  # index of class 0 in the output


CASES = (
    Case("squeezenet1.1", lambda: read_imagenet(normalize_imagenet), 200, 69.5),
    Case("mobilenetv2_1.0_224", lambda: read_imagenet(normalize_symmetric), 200, 77.0, 1),
    Case("mobilenet_v1_1.0_224", lambda: read_imagenet(normalize_symmetric), 200, 73.5, 1),
    Case("resnet20_cifar10", read_cifar, 1000, 81.3),
    Case("resnet56_cifar10", read_cifar, 1000, 83.4),
    Case("lenet_mnist", read_mnist, 0, 98.95),
    Case("kwt1_mfcc", read_speech, 0, 98.0),
)


@dataclass(frozen=True)
class Score:
    """How often the right class came first, or among the first five; percent."""

    count: int
    top1: float
    top5: float


def score(
    run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    feed: str,
    case: Case,
    count: int | None = None,
) -> Score:
    """Runs `case` through `run`, an input called `feed` at a time."""
    limit = case.count if count is None else count
    first, among_five, seen = 0, 0, 0
    for picture, label in case.read():
        logits = next(iter(run({feed: np.ascontiguousarray(picture[None])}).values()))
        best = np.argsort(-logits.reshape(-1), kind="stable")[:5] - case.first_class
        first += int(best[0] == label)
        among_five += int(label in best)
        seen += 1
        if seen == limit:
            break
    return Score(seen, 100 * first / seen, 100 * among_five / seen)


def main(arguments: list[str] | None = None) -> int:
    """Scores and prints; 1 where a figure is further from the known one than the tolerance."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description="Score the trained models on labelled data.")
    add = parser.add_argument
    add("--models", nargs="+", choices=[case.model for case in CASES], metavar="MODEL")
    add("--peer", choices=list(peer_adapters.PEERS), default="planish")
    add("--count", type=int, help="pictures a model; 0: all; default: as the known figure")
    add("--threads", type=int, default=2)
    add("--precision", choices=["fp32"], default="fp32")
    add("--json", type=Path)
    options = parser.parse_args(arguments)
    console = Console()
    if not DATA.is_dir():
        console.print(f"nothing to score: {DATA} does not exist")
        return 0
    table = Table("model", "pictures", "top-1", "top-5", "known top-1", "difference")
    rows, failed = [], False
    for case in CASES:
        if options.models and case.model not in options.models:
            continue
        (model,) = zoo.models([case.model])
        single = zoo.with_batch(model, BATCH)
        job = peer_adapters.Job(
            name=model.name,
            batch=BATCH,
            path=single.path,
            feeds=zoo.random_inputs(single),
            threads=options.threads,
            cores=options.threads,
            precision=options.precision,
            folder=zoo.default_dir(),
        )
        run = peer_adapters.PEERS[options.peer].load(job).run
        (feed,) = single.inputs
        result = score(run, feed, case, options.count)
        comparable = options.count is None or options.count == case.count
        gap = result.top1 - case.top1
        # The known figures are given to one decimal.
        off = comparable and abs(gap) > TOLERANCE + 0.05
        failed |= off
        known = (f"{case.top1:.2f}", f"[{'red' if off else 'green'}]{gap:+.2f}[/]")
        shown = known if comparable else ("-", "-")
        table.add_row(
            case.model, f"{result.count}", f"{result.top1:.2f}", f"{result.top5:.2f}", *shown
        )
        rows.append({"model": case.model, "known_top1": case.top1, **vars(result)})
    table.title = f"{options.peer}, {options.precision}"
    console.print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"peer": options.peer, "precision": options.precision, "scores": rows}
        options.json.write_text(json.dumps(report, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
