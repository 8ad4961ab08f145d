"""Reading what a verb was given: a model or a plan, arrays by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from planish.base.errors import InputError, PlanishError

if TYPE_CHECKING:
    import numpy as np


def is_plan(path: Path) -> bool:
    """True for a plan file, by its first bytes; a file that says .plan counts as one, too.

    Raises:
        PlanishError: The file cannot be read.
    """
    from planish.plan.container import MAGIC

    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.suffix == ".plan"
    except OSError as error:
        raise PlanishError(f"cannot read {path}: {error.strerror or error}") from error


def read_arrays(texts: list[str], only: str = "") -> dict[str, np.ndarray]:
    """Inputs from files: NAME=FILE.npy, a FILE.npz of several, or FILE.npy for the only input.

    Args:
        texts: The arguments.
        only: Name of the only input; "" where there are several.

    Raises:
        InputError: A file is missing, is no array file, or has no name to go by.
    """
    feeds: dict[str, np.ndarray] = {}
    for text in texts:
        name, given, path = text.rpartition("=")
        made = _read(Path(path if given else text))
        if isinstance(made, dict):
            feeds |= {name: made[name]} if given and name in made else made
        elif name or only:
            feeds[name or only] = made
        else:
            raise InputError(f"--input {text}: expected NAME=FILE.npy, the plan has several inputs")
    return feeds


def _read(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {n: loaded[n] for n in loaded.files}
    except Exception as error:  # np.load raises what zipfile, struct and others raise
        raise InputError(
            f"cannot read {path} as an array: {error}",
            hint="write it with numpy.save or numpy.savez",
        ) from error
