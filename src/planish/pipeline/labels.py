"""Labels of samples: the right class of each, by the sample's key.

labels.txt      lines "file class"; the file as its path in the folder, or its bare name
labels.npy      whole numbers, one a sample, in the samples' order
labels.npz      the array "label" or "labels", or else the only one of whole numbers with one axis
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planish.base.errors import InputError


@dataclass(frozen=True)
class Labels:
    """The right class of each sample.

    Attributes:
        classes: Key -> class; for numbered samples the number as text is the key.
        first_class: Index of class 0 in the network's output, for outputs that begin with others.
    """

    classes: Mapping[str, int]
    first_class: int = 0

    def index(self, key: str) -> int:
        """Index in the output that is right for a sample.

        Raises:
            InputError: The sample has no label.
        """
        found = self.classes.get(key, self.classes.get(key.rpartition("/")[2]))
        if found is None:
            raise InputError(
                f"sample {key!r} has no label among the {len(self.classes)} given",
                hint='a labels file has lines "file class", one a sample',
            )
        return found + self.first_class


def open_labels(
    labels: str | os.PathLike[str] | Mapping[str, int] | Sequence[int] | np.ndarray | Labels,
    first_class: int = 0,
) -> Labels:
    """Labels from a file, or from numbers in the samples' order.

    Args:
        labels: A file as this file's heading lists them, classes by key, or classes in order.
        first_class: Index of class 0 in the network's output.

    Raises:
        InputError: They cannot be read.
    """
    if isinstance(labels, Labels):
        return labels
    if isinstance(labels, Mapping):
        return Labels({str(k): int(c) for k, c in labels.items()}, first_class)
    if not isinstance(labels, str | os.PathLike):
        return _in_order(np.asarray(labels), "the labels", first_class)
    path = Path(labels)
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            return _in_order(_stored(path), str(path), first_class)
        return Labels(_lines(path.read_text(encoding="utf-8"), path), first_class)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the labels {path}: {error}") from error


def _in_order(classes: np.ndarray, what: str, first_class: int) -> Labels:
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise InputError(
            f"{what}: expected whole numbers, one a sample; found {classes.dtype} of the shape "
            f"{list(classes.shape)}"
        )
    return Labels({str(n): int(c) for n, c in enumerate(classes)}, first_class)


def _stored(path: Path) -> np.ndarray:
    made = np.load(path, allow_pickle=False)
    if isinstance(made, np.ndarray):
        return made
    with made:
        for name in ("label", "labels"):
            if name in made.files:
                return np.asarray(made[name])
        arrays = {name: made[name] for name in made.files}
    fit = [a for a in arrays.values() if a.ndim == 1 and a.dtype.kind in "iu"]
    if len(fit) != 1:
        raise InputError(f"{path}: expected an array named 'label', found {sorted(arrays)}")
    return np.asarray(fit[0])


def _lines(text: str, path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, word = line.strip().rpartition(" ")
        if not name.strip() or not word.lstrip("-").isdigit():
            raise InputError(f'{path}, line {number}: expected "file class", found {line!r}')
        found[name.strip()] = int(word)
    if not found:
        raise InputError(f"{path} holds no labels")
    return found
