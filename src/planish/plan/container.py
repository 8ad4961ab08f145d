"""The frame of a plan file: magic, version, a table of sections with their digests, the sections.

    offset 0    header, 64 bytes, little-endian
                  8  magic           a byte that is no text, "PLN", and line ends that a transfer
                                     in text mode would change
                  4  format version  of what the sections hold; the frame itself stays as it is
                  4  sections
                  8  bytes of the whole file
                  8  zero
                 32  SHA-256 of the header with this field zero, followed by the table
    offset 64   table, 64 bytes a section: name 16, offset 8, bytes 8, digest 32
    then        the sections, each at a multiple of 4096, zeros between them

A section's digest is the SHA-256 of the SHA-256s of its pieces of 4 MiB, so that several threads
can check a large one. Every byte of the file is covered: by the header's digest, by a section's, or
by the rule that padding is zero. Digests guard against damage, not against malice: a plan holds
machine code and is as trusted as a program.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from planish.base.errors import PlanFileError

FORMAT = 2
MAGIC = b"\x93PLN\r\n\x1a\n"
ALIGN = 4096
PIECE = 4 << 20

_HEADER = struct.Struct("<8sIIQQ32s")
_ROW = struct.Struct("<16sQQ32s")
_MOST_SECTIONS = 64
_REBUILD = "build the plan again from its model, or copy it again in binary mode"


@dataclass(frozen=True)
class Section:
    """A row of the table: bytes [offset, offset + size) of the file."""

    name: str
    offset: int
    size: int
    digest: bytes


@dataclass(frozen=True)
class Container:
    """An opened plan file; the map lives as long as any view of it.

    Attributes:
        path: Where it was read from.
        version: Format version.
        sections: The table, by name.
        data: The whole file, mapped read-only.
    """

    path: str
    version: int
    sections: Mapping[str, Section]
    data: memoryview

    def view(self, name: str) -> memoryview:
        """The bytes of a section.

        Raises:
            PlanFileError: There is no such section.
        """
        if name not in self.sections:
            raise PlanFileError(f"{self.path}: the plan has no section {name!r}", hint=_REBUILD)
        section = self.sections[name]
        return self.data[section.offset : section.offset + section.size]

    def verify(self, name: str) -> None:
        """Compare a section with its digest.

        Raises:
            PlanFileError: The section was altered.
        """
        found = digest(self.view(name))
        expected = self.sections[name].digest
        if found != expected:
            raise PlanFileError(
                f"{self.path}: section {name!r} was altered: expected SHA-256 "
                f"{expected.hex()[:16]}…, found {found.hex()[:16]}…",
                hint=_REBUILD,
            )


def digest(data: memoryview) -> bytes:
    """The digest of a section; large ones are hashed by several threads."""
    pieces = [data[at : at + PIECE] for at in range(0, max(len(data), 1), PIECE)]
    if len(pieces) == 1:
        return hashlib.sha256(_sha256(pieces[0])).digest()
    with ThreadPoolExecutor(min(len(pieces), _cores())) as threads:
        return hashlib.sha256(b"".join(threads.map(_sha256, pieces))).digest()


def _sha256(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- writing ------------------------------------------------------------------------------------


def write_container(path: str | os.PathLike[str], sections: Mapping[str, list[bytes]]) -> None:
    """Write a file atomically: a reader sees the old file or the new one, never a part.

    Args:
        path: Where to; an existing file is replaced.
        sections: Name to the parts that make it up, in file order. Parts may be any buffers.

    Raises:
        PlanFileError: The system refused to write.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise PlanFileError(f"cannot write {target}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            _write_all(file.fileno(), sections)
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError):
            raise PlanFileError(f"cannot write {target}: {error.strerror}") from error
        raise


def _write_all(descriptor: int, sections: Mapping[str, list[bytes]]) -> None:
    table, at = [], _up(_HEADER.size + _ROW.size * len(sections))
    for name, parts in sections.items():
        hashed, size = _PieceHash(), 0
        for part in parts:
            for chunk in _chunks(memoryview(part).cast("B")):
                hashed.update(chunk)
                _write_at(descriptor, chunk, at + size)
                size += len(chunk)
        table.append(_ROW.pack(name.encode(), at, size, hashed.digest()))
        at = _up(at + size) if len(table) < len(sections) else at + size
    rows = b"".join(table)
    header = _HEADER.pack(MAGIC, FORMAT, len(table), at, 0, bytes(32))
    sealed = hashlib.sha256(header + rows).digest()
    _write_at(descriptor, header[:-32] + sealed + rows, 0)
    os.ftruncate(descriptor, at)


class _PieceHash:
    """The digest of a section that arrives in parts."""

    def __init__(self) -> None:
        self._outer, self._inner, self._room = hashlib.sha256(), hashlib.sha256(), PIECE

    def update(self, data: memoryview) -> None:
        while len(data):
            if not self._room:
                self._close()
            taken = data[: self._room]
            self._inner.update(taken)
            self._room -= len(taken)
            data = data[len(taken) :]

    def _close(self) -> None:
        self._outer.update(self._inner.digest())
        self._inner, self._room = hashlib.sha256(), PIECE

    def digest(self) -> bytes:
        self._close()
        return self._outer.digest()


def _chunks(data: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(data), PIECE):
        yield data[at : at + PIECE]


def _write_at(descriptor: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data)
    while len(view):
        done = os.pwrite(descriptor, view, at)
        view, at = view[done:], at + done


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def _up(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


# ---- reading ------------------------------------------------------------------------------------


def open_container(path: str | os.PathLike[str]) -> Container:
    """Map a file and check its frame; the sections are checked by `Container.verify`.

    Raises:
        PlanFileError: The file is missing, foreign, truncated, altered or of a newer format.
    """
    name = os.fspath(path)
    data = _map(name)
    if len(data) < _HEADER.size or data[:8] != MAGIC:
        raise _foreign(name, bytes(data[:64]), len(data))
    _, version, count, size, zero, sealed = _HEADER.unpack(data[: _HEADER.size])
    end = _HEADER.size + _ROW.size * count
    if count <= _MOST_SECTIONS and len(data) < end:
        raise PlanFileError(
            f"{name}: the plan is truncated: {len(data)} bytes hold no table of {count} sections",
            hint=_REBUILD,
        )
    unsealed = bytes(data[: _HEADER.size - 32]) + bytes(32) + bytes(data[_HEADER.size : end])
    if count > _MOST_SECTIONS or zero or hashlib.sha256(unsealed).digest() != sealed:
        raise PlanFileError(f"{name}: the plan's header or table was altered", hint=_REBUILD)
    if version > FORMAT:
        raise PlanFileError(
            f"{name}: the plan has format {version}; this planish reads up to {FORMAT}",
            hint="upgrade planish, or build the plan with this version",
        )
    if version != FORMAT:
        raise PlanFileError(
            f"{name}: the plan has format {version}; this planish reads {FORMAT}",
            hint="build the plan again with this version",
        )
    if len(data) < size:
        raise PlanFileError(
            f"{name}: the plan is truncated: expected {size} bytes, found {len(data)}",
            hint=_REBUILD,
        )
    if len(data) > size:
        raise PlanFileError(
            f"{name}: the plan was altered: {len(data) - size} bytes follow its end", hint=_REBUILD
        )
    rows = [_row(name, data[at : at + _ROW.size]) for at in range(_HEADER.size, end, _ROW.size)]
    _check_layout(name, data, rows, end)
    return Container(name, version, {row.name: row for row in rows}, data)


def _map(name: str) -> memoryview:
    try:
        with open(name, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise PlanFileError(f"{name}: the file is empty", hint=_REBUILD)
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        reason = error.strerror or str(error)
        raise PlanFileError(f"{name}: cannot read the plan: {reason}") from error
    except ValueError as error:  # not a file that can be mapped, or an illegal path
        raise PlanFileError(f"{name}: cannot read the plan: {error}") from error


def _foreign(name: str, start: bytes, size: int) -> PlanFileError:
    if start[:8] == MAGIC[: len(start[:8])]:
        return PlanFileError(
            f"{name}: the plan is truncated: {size} bytes do not hold its header", hint=_REBUILD
        )
    if b"PLN" in start[:5]:
        return PlanFileError(
            f"{name}: the first bytes of the plan were altered, as a transfer in text mode does",
            hint=_REBUILD,
        )
    return PlanFileError(
        f"{name}: not a plan: it starts with {start[:8].hex(' ')}, a plan with {MAGIC.hex(' ')}",
        hint="make a plan with: planish build MODEL.onnx -o MODEL.plan",
    )


def _row(name: str, data: memoryview) -> Section:
    title, offset, size, sealed = _ROW.unpack(data)
    try:
        return Section(title.rstrip(b"\0").decode("ascii"), offset, size, sealed)
    except UnicodeDecodeError:
        raise PlanFileError(f"{name}: a section's name is no text: {title!r}") from None


def _check_layout(name: str, data: memoryview, rows: Iterable[Section], end: int) -> None:
    """Sections follow each other without overlap, and only zeros stand between them."""
    seen: set[str] = set()
    for row in rows:
        if row.name in seen or row.offset != _up(end) or row.offset + row.size > len(data):
            raise PlanFileError(f"{name}: section {row.name!r} of the plan is out of place")
        if any(data[end : row.offset]):
            raise PlanFileError(
                f"{name}: the padding before section {row.name!r} was altered", hint=_REBUILD
            )
        seen.add(row.name)
        end = row.offset + row.size
    if end != len(data):
        raise PlanFileError(f"{name}: {len(data) - end} bytes of the plan belong to no section")
