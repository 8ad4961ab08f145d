"""Samples for a network, whatever they are read from: checked, batched, in a fixed order.

A network's batch is what the leading dim of its inputs says: a fixed batch is filled up (the last
one by repeating its last sample, which has no key then), a symbolic one is 1 for data that lies in
files, and as it comes for arrays that the caller hands over.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import InputError
from planish.base.shapes import Dim
from planish.pipeline.preprocess import Preprocess
from planish.plan import TensorInfo

Arrays = dict[str, np.ndarray]  # by input name


@dataclass(frozen=True)
class Item:
    """Something as it was read.

    Attributes:
        key: Its name: a file's path in its folder, or a number.
        arrays: By input name.
        single: True for one sample without the batch dim, False for a batch.
    """

    key: str
    arrays: Mapping[str, np.ndarray]
    single: bool


@dataclass(frozen=True)
class Feed:
    """Inputs of one run.

    Attributes:
        arrays: By input name, as the network wants them.
        keys: Names of the samples in it; fewer than the batch where it was filled up.
    """

    arrays: Arrays
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Samples:
    """Data that may be gone through again and again, in the same order; one batch in memory.

    Attributes:
        what: Where they come from, for people.
        inputs: The network's inputs.
        read: Starts anew each time.
        count: How many samples there are; 0 where that is only known at the end.
        source_digest: Of what they are read from; "" where only the samples themselves can tell.
        preprocess: What was done to pictures; None: nothing.
    """

    what: str
    inputs: tuple[TensorInfo, ...]
    read: Callable[[], Iterator[Item]]
    count: int = 0
    source_digest: str = ""
    preprocess: Preprocess | None = None
    _digests: list[str] = field(default_factory=list, compare=False, repr=False)

    def __iter__(self) -> Iterator[Arrays]:
        return (feed.arrays for feed in self.feeds())

    def feeds(self) -> Iterator[Feed]:
        """The inputs of each run.

        Raises:
            InputError: A sample does not fit the network's inputs, or there is none.
        """
        batch = batch_dim(self.inputs)
        waiting: list[Item] = []
        empty = True
        for item in self.read():
            empty = False
            if not item.single and not isinstance(batch, int):
                yield _whole(item, self.inputs, batch)
                continue
            waiting += [item] if item.single else list(_singles(item, self.inputs))
            size = batch if isinstance(batch, int) else 1
            while len(waiting) >= size:
                yield _joined(waiting[:size], size, self)
                waiting = waiting[size:]
        if waiting and isinstance(batch, int):
            yield _joined(waiting, batch, self)
        if empty:
            raise InputError(f"{self.what} holds no samples")

    @property
    def digest(self) -> str:
        """SHA-256 of the data, whatever its order and its batches."""
        if not self._digests:
            self._digests.append(self._digest())
        return self._digests[0]

    def _digest(self) -> str:
        hasher = hashlib.sha256(f"{self.preprocess or ''}\n".encode())
        if self.source_digest:
            hasher.update(self.source_digest.encode())
            return hasher.hexdigest()
        rows = sorted(_row_digest(f.arrays, n) for f in self.feeds() for n in range(len(f.keys)))
        for row in rows:
            hasher.update(row)
        return hasher.hexdigest()


def batch_dim(inputs: Sequence[TensorInfo]) -> Dim | None:
    """The leading dim that all inputs share; None where there is no such thing."""
    leading = {t.shape[0] if t.shape else None for t in inputs}
    return leading.pop() if len(leading) == 1 else None


def from_iterable(
    source: Iterable[Any] | Callable[[], Iterable[Any]],
    inputs: Sequence[TensorInfo],
    preprocess: Preprocess | None,
    what: str = "the data",
) -> Samples:
    """Samples from arrays, tuples of arrays or dicts of arrays, each one sample or a batch.

    What can be gone through only once (a generator) is kept in a temporary file meanwhile.

    Args:
        source: The items, or a function that gives them anew each time.
        inputs: The network's inputs.
        preprocess: What to do to pictures first.
        what: Where they come from, for errors.
    """
    inputs = tuple(inputs)
    start = source if callable(source) else _repeatable(source)

    def read() -> Iterator[Item]:
        first = 0
        for entry in start():
            item = as_item(entry, str(first), inputs, preprocess, what)
            yield item
            one = item.single or batch_dim(inputs) is None
            first += 1 if one else len(next(iter(item.arrays.values())))

    return Samples(what, inputs, read, preprocess=preprocess)


def as_item(
    entry: Any, key: str, inputs: Sequence[TensorInfo], preprocess: Preprocess | None, what: str
) -> Item:
    """An array, a tuple of arrays or a dict, by input name.

    Raises:
        InputError: It is none of them, or the inputs are others.
    """
    names = [tensor.name for tensor in inputs]
    if isinstance(entry, Mapping):
        arrays = {str(name): np.asarray(array) for name, array in entry.items()}
    elif isinstance(entry, tuple) and len(entry) == len(names) != 1:
        arrays = {name: np.asarray(array) for name, array in zip(names, entry, strict=True)}
    elif len(names) == 1:
        arrays = {names[0]: np.asarray(entry)}
    else:
        raise InputError(
            f"{what}: expected dicts of arrays for the inputs {names}, found {type(entry).__name__}"
        )
    if set(arrays) != set(names):
        raise InputError(f"{what}: the inputs are {names}, found arrays for {sorted(arrays)}")
    if preprocess is None:
        return Item(key, arrays, _is_single(arrays, inputs))
    return _preprocessed(key, arrays, inputs, preprocess, what)


# ---- one sample or many -------------------------------------------------------------------------


def _is_single(arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorInfo]) -> bool:
    """True for arrays without the batch dim."""
    if batch_dim(inputs) is None:
        return False
    return all(arrays[tensor.name].ndim == len(tensor.shape) - 1 for tensor in inputs)


def _preprocessed(
    key: str,
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[TensorInfo],
    preprocess: Preprocess,
    what: str,
) -> Item:
    (name,) = [tensor.name for tensor in inputs if len(tensor.shape) == 4][:1] or [inputs[0].name]
    pixels = arrays[name]
    one = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if one:
        return Item(key, {**arrays, name: preprocess.apply(pixels, f"{what}, sample {key}")}, True)
    made = [preprocess.apply(p, f"{what}, sample {key}") for p in pixels]
    return Item(key, {**arrays, name: np.stack(made)}, False)


def _singles(item: Item, inputs: Sequence[TensorInfo]) -> Iterator[Item]:
    sizes = {len(array) if array.ndim else 0 for array in item.arrays.values()}
    if len(sizes) != 1:
        raise InputError(f"sample {item.key}: the inputs have different batches: {sorted(sizes)}")
    numbered = item.key.isdecimal()
    for n in range(sizes.pop()):
        key = str(int(item.key) + n) if numbered else f"{item.key}[{n}]"
        yield Item(key, {name: array[n] for name, array in item.arrays.items()}, True)


def _joined(items: Sequence[Item], size: int, samples: Samples) -> Feed:
    """Single samples as one batch, filled up with the last one."""
    full = [*items, *[items[-1]] * (size - len(items))]
    arrays = {}
    for tensor in samples.inputs:
        parts = [checked(i.arrays[tensor.name], tensor, i.key, samples.preprocess) for i in full]
        arrays[tensor.name] = parts[0][None] if size == 1 else np.stack(parts)
    return Feed(arrays, tuple(item.key for item in items))


def _whole(item: Item, inputs: Sequence[TensorInfo], batch: Dim | None) -> Feed:
    """A batch as it came."""
    arrays = {}
    for tensor in inputs:
        array = _typed(item.arrays[tensor.name], tensor, item.key)
        if not _fits(array.shape, tensor.shape):
            raise _misfit(array.shape, tensor, tensor.shape, item.key, None)
        arrays[tensor.name] = array
    count = len(arrays[inputs[0].name]) if batch is not None else 1
    if count == 1:
        return Feed(arrays, (item.key,))
    return Feed(arrays, tuple(str(int(item.key) + n) for n in range(count)))


# ---- checks -------------------------------------------------------------------------------------


def checked(
    array: np.ndarray, tensor: TensorInfo, key: str, preprocess: Preprocess | None
) -> np.ndarray:
    """One sample, of the input's type and without its batch dim.

    Raises:
        InputError: Its shape or its type does not fit.
    """
    wanted = tensor.shape[1:]
    if not _fits(array.shape, wanted):
        raise _misfit(array.shape, tensor, wanted, key, preprocess)
    return _typed(array, tensor, key)


def _fits(shape: tuple[int, ...], wanted: Sequence[Dim]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(dim, int) or dim == size for size, dim in zip(shape, wanted, strict=True)
    )


def _misfit(
    shape: tuple[int, ...],
    tensor: TensorInfo,
    wanted: Sequence[Dim],
    key: str,
    preprocess: Preprocess | None,
) -> InputError:
    hint = "give arrays of one sample, or of a batch of them"
    if preprocess is not None and len(wanted) == 3:
        height, width = wanted[1:] if preprocess.layout == "nchw" else wanted[:2]
        hint = f"preprocess was {str(preprocess)!r}; crop={height}x{width} cuts to size"
    return InputError(
        f"sample {key}: input {tensor.name!r} wants [{', '.join(map(str, wanted))}] a sample, "
        f"found {list(shape)}",
        hint=hint,
    )


def _typed(array: np.ndarray, tensor: TensorInfo, key: str) -> np.ndarray:
    if tensor.dtype in (DType.STRING, DType.OBJECT):
        return array
    wanted = tensor.dtype.numpy
    if array.dtype == wanted:
        return array
    number = array.dtype.kind in "fiub"
    if number and (tensor.dtype.is_float or array.dtype.kind != "f"):
        made = array.astype(wanted)
        if tensor.dtype.is_float or np.array_equal(made, array):
            return made
    raise InputError(f"sample {key}: input {tensor.name!r} is {tensor.dtype}, found {array.dtype}")


def feed_digest(feed: Feed) -> bytes:
    """SHA-256 of a feed's samples, in their order."""
    hasher = hashlib.sha256()
    for row in range(len(feed.keys)):
        hasher.update(_row_digest(feed.arrays, row))
    return hasher.digest()


def _row_digest(arrays: Arrays, row: int) -> bytes:
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        part = np.ascontiguousarray(array[row] if array.ndim else array)
        hasher.update(f"{name} {part.dtype} {part.shape}\n".encode())
        hasher.update(repr(part.tolist()).encode() if part.dtype == object else part.tobytes())
    return hasher.digest()


# ---- what can be gone through only once ---------------------------------------------------------


def _repeatable(source: Iterable[Any]) -> Callable[[], Iterable[Any]]:
    iterator = iter(source)
    if iterator is not source:
        return lambda: source
    return _Spool(iterator).read


class _Spool:
    """Keeps what an iterator gave in a temporary file, since it will not give it again."""

    def __init__(self, source: Iterator[Any]) -> None:
        self._source = source
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as this object
        self._places: list[tuple[int, int, tuple[str, ...]]] = []  # (offset, bytes, names)

    def read(self) -> Iterator[Any]:
        """Everything from the start on; what is new is fetched from the iterator."""
        number = 0
        while number < len(self._places) or self._fetch():
            offset, size, names = self._places[number]
            self._file.seek(offset)
            with np.load(io.BytesIO(self._file.read(size)), allow_pickle=False) as stored:
                arrays = [stored[f"arr_{n}"] for n in range(len(stored.files))]
            yield dict(zip(names, arrays, strict=True)) if names else _unpacked(arrays)
            number += 1

    def _fetch(self) -> bool:
        entry = next(self._source, None)
        if entry is None:
            return False
        names = tuple(map(str, entry)) if isinstance(entry, Mapping) else ()
        values = entry.values() if isinstance(entry, Mapping) else entry
        arrays = list(values) if isinstance(entry, Mapping | tuple) else [values]
        raw = io.BytesIO()
        np.savez(raw, *map(np.asarray, arrays))  # named arr_0, arr_1, …
        offset = self._file.seek(0, io.SEEK_END)
        self._file.write(raw.getbuffer())
        self._places.append((offset, raw.getbuffer().nbytes, names))
        return True


def _unpacked(arrays: list[np.ndarray]) -> Any:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)
