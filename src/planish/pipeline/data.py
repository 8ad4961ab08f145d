"""Samples from what the user names: a folder of pictures, an array file, a function, an iterable.

    pictures/                 PNG, JPEG, … in the order of their names; needs a preprocess spec
    data.npy                  one array, a sample each along its first axis
    data.npz                  arrays by input name, or one array for the only input
    data.npz:images           the array of that name
    package.module:function   called without arguments, gives an iterable; called again for a
                              second round

Array files are read row by row, so that they may be larger than the memory.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from planish.base.errors import InputError
from planish.graph.graph import Graph
from planish.pipeline.preprocess import EXAMPLE, Preprocess, parse_preprocess, pillow
from planish.pipeline.samples import Item, Samples, as_item, from_iterable
from planish.plan import TensorInfo

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
ARRAYS = (".npy", ".npz")

Data = str | os.PathLike[str] | Iterable[Any] | Callable[[], Iterable[Any]] | Samples


def inputs_of(graph: Graph) -> tuple[TensorInfo, ...]:
    """The inputs of a graph."""
    return tuple(TensorInfo(v.name, v.dtype, v.type.shape or ()) for v in graph.inputs)


def open_data(
    data: Data, inputs: Sequence[TensorInfo], preprocess: str | Preprocess | None = None
) -> Samples:
    """Samples for a network.

    Args:
        data: As this file's heading lists them.
        inputs: The network's inputs.
        preprocess: What to do to pictures, files or arrays of them.

    Raises:
        InputError: There is no such data, or it is of no known kind.
        BuildError: The preprocess spec is wrong.
    """
    spec = parse_preprocess(preprocess) if isinstance(preprocess, str) else preprocess
    if isinstance(data, Samples):
        return data
    if not isinstance(data, str | os.PathLike):
        return from_iterable(data, inputs, spec)
    text = os.fspath(data)
    path = Path(text)
    if path.is_dir():
        return _pictures(path, tuple(inputs), spec)
    if path.suffix.lower() in ARRAYS and path.exists():
        return _array_file(path, "", tuple(inputs), spec)
    name, colon, inside = text.rpartition(":")
    if colon and Path(name).suffix.lower() in ARRAYS and Path(name).exists():
        return _array_file(Path(name), inside, tuple(inputs), spec)
    if colon and _is_module(name):
        return from_iterable(load_function(text), inputs, spec, text)
    raise InputError(
        f"no data at {text!r}",
        hint="give a folder of pictures, a .npy or .npz file, or module:function",
    )


def load_function(text: str) -> Callable[..., Any]:
    """The function that "package.module:function" names; modules here are found, too.

    Raises:
        InputError: There is no such module or function.
    """
    module, _, name = text.rpartition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InputError(f"{text!r}: cannot import {module!r}: {error}") from error
    except AttributeError:
        raise InputError(f"{text!r}: module {module!r} has no {name!r}") from None
    if not callable(found):
        raise InputError(f"{text!r}: expected a function, found {type(found).__name__}")
    function: Callable[..., Any] = found  # what a user's function takes and gives, its use tells
    return function


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


# ---- pictures -----------------------------------------------------------------------------------


def _pictures(
    folder: Path, inputs: tuple[TensorInfo, ...], preprocess: Preprocess | None
) -> Samples:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not files:
        raise InputError(f"{folder} holds no pictures ({', '.join(PICTURES)})")
    if preprocess is None:
        raise InputError(
            f"{folder} is a folder of pictures: say what is done to them before the network",
            hint=f'preprocess="{EXAMPLE}", with the numbers that the network was trained with',
        )
    if len(inputs) != 1:
        raise InputError(
            f"the network has the inputs {[t.name for t in inputs]}; pictures are for one alone",
            hint="give a function module:name that yields a dict of arrays for each sample",
        )
    name = inputs[0].name
    image = pillow(f"reading the pictures of {folder}")

    def read() -> Iterator[Item]:
        for path in files:
            made = preprocess.apply(_pixels(image, path), str(path))
            yield Item(path.relative_to(folder).as_posix(), {name: made}, True)

    return Samples(str(folder), inputs, read, len(files), _files_digest(files, folder), preprocess)


def _pixels(image: Any, path: Path) -> np.ndarray:
    try:
        with image.open(path) as picture:
            gray = picture.mode in ("L", "1")
            return np.asarray(picture.convert("L" if gray else "RGB"))
    except OSError as error:
        raise InputError(f"cannot read {path} as a picture: {error}") from error


def _files_digest(files: Sequence[Path], folder: Path) -> str:
    hasher = hashlib.sha256()
    for path in files:
        hasher.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


# ---- array files --------------------------------------------------------------------------------


def _array_file(
    path: Path, inside: str, inputs: tuple[TensorInfo, ...], preprocess: Preprocess | None
) -> Samples:
    headers = _headers(path)
    chosen = _choose(path, inside, {name: shape for name, (shape, _) in headers.items()}, inputs)
    sizes = {headers[array][0][0] for array in chosen.values()}
    if len(sizes) != 1:
        raise InputError(f"{path}: the arrays hold different numbers of samples: {sorted(sizes)}")
    count = sizes.pop()

    def read() -> Iterator[Item]:
        with ExitStack() as stack:
            rows = {name: _rows(path, array, stack) for name, array in chosen.items()}
            for n in range(count):
                entry = {name: next(row) for name, row in rows.items()}
                yield as_item(entry, str(n), inputs, preprocess, str(path))

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Samples(str(path), inputs, read, count, f"{digest} {sorted(chosen.items())}", preprocess)


def _choose(
    path: Path, inside: str, shapes: dict[str, tuple[int, ...]], inputs: Sequence[TensorInfo]
) -> dict[str, str]:
    """Input name -> array name."""
    if inside and inside not in shapes:
        raise InputError(f"{path} has no array {inside!r}; it has {sorted(shapes)}")
    names = [tensor.name for tensor in inputs]
    if not inside and all(shapes.get(name) for name in names):
        return {name: name for name in names}
    if len(names) == 1:
        fit = [inside] if inside else [n for n, shape in shapes.items() if len(shape) > 1]
        if len(fit) == 1 and shapes[fit[0]]:
            return {names[0]: fit[0]}
    held = {name: list(shape) for name, shape in shapes.items()}
    raise InputError(
        f"{path} has the arrays {held}; the network's inputs are {names}",
        hint=f"store arrays under the inputs' names, or name the one to read: {path}:NAME",
    )


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array of a file, by name; "" is the one of a .npy file."""
    with ExitStack() as stack:
        try:
            if path.suffix.lower() == ".npy":
                return {"": _header(stack.enter_context(path.open("rb")))[:2]}
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = [n for n in archive.namelist() if n.endswith(".npy")]
            return {
                name.removesuffix(".npy"): _header(stack.enter_context(archive.open(name)))[:2]
                for name in members
            }
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(
                f"cannot read {path} as arrays: {error}",
                hint="write it with numpy.save or numpy.savez",
            ) from error


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype, bool]:
    """(shape, type, Fortran order); the file stands at the data then."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype, fortran


def _rows(path: Path, name: str, stack: ExitStack) -> Iterator[np.ndarray]:
    """An array's slices along its first axis, read one after the other."""
    if path.suffix.lower() == ".npy":
        file: Any = stack.enter_context(path.open("rb"))
    else:
        archive = stack.enter_context(zipfile.ZipFile(path))
        file = stack.enter_context(archive.open(f"{name}.npy"))
    shape, dtype, fortran = _header(file)
    if dtype.hasobject:
        raise InputError(f"{path}: the array {name!r} holds Python objects, expected numbers")
    if fortran:  # its rows do not lie together
        data = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
        yield from data
        return
    size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    for _ in range(shape[0]):
        raw = file.read(size)
        if len(raw) != size:
            raise InputError(f"{path} ends in the middle of the array {name!r}")
        yield np.frombuffer(raw, dtype).reshape(shape[1:])
