"""Measured times on disk: what was timed once on a machine is not timed again.

The file is JSON that people can read and edit, one entry a workload:

    {"format": 1, "entries": {"<digest> <target>": {
        "workload": "conv f32[1x64x56x56]…",
        "micros": {"cpu.conv_f32.direct mr=6 nr=4": 123.4, …}}}}

Deleting an entry or a tactic has it timed again. Files of several machines or sessions merge.
Whole plans that were timed against each other are entries, too: digests of plans in the place of
tactics.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from platformdirs import user_cache_path

from planish.base import knobs
from planish.base.errors import CacheError
from planish.targets.cpu import CpuTarget

DIGITS = 3  # of microseconds; races compare what the cache keeps, so that both agree on ties
FORMAT = 1


class Timed(Protocol):
    """What times are kept of, such as a workload. Its text is for people."""

    @property
    def digest(self) -> str:
        """Names it."""
        ...


def default_cache_path() -> Path:
    """The user's own timing cache."""
    folder = knobs.CACHE_DIR.value or user_cache_path("planish")
    return Path(folder) / "timing.json"


class TimingCache:
    """Times by workload, target and tactic.

    Args:
        path: The file; None keeps everything in memory.

    Raises:
        CacheError: The file exists but is no timing cache, or is newer than this planish.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._entries: dict[str, dict[str, float]] = {}
        self._workloads: dict[str, str] = {}
        self.changed = False
        if path is not None and path.exists():
            self.merge(path)
            self.changed = False

    def merge(self, path: Path) -> None:
        """Take over what another file has and this one lacks."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CacheError(
                f"{path} is no timing cache: {error}", hint="delete it, or name another file"
            ) from error
        if not isinstance(record, dict) or not isinstance(record.get("entries"), dict):
            raise CacheError(f"{path} is no timing cache: it has no entries", hint="delete it")
        if record.get("format") != FORMAT:
            raise CacheError(
                f"{path} has format {record.get('format')!r}, this planish reads {FORMAT}",
                hint="delete it, or use the planish that wrote it",
            )
        for key, entry in record["entries"].items():
            times = entry.get("micros") if isinstance(entry, dict) else None
            if not isinstance(times, dict) or not all(
                isinstance(t, int | float) and t > 0 for t in times.values()
            ):
                raise CacheError(f"{path}: entry {key!r} is malformed", hint="delete that entry")
            mine = self._entries.setdefault(key, {})
            for tactic, micros in times.items():
                if tactic not in mine:
                    mine[tactic] = float(micros)
                    self.changed = True
            self._workloads.setdefault(key, str(entry.get("workload", "")))

    def times(self, workload: Timed, target: CpuTarget) -> dict[str, float]:
        """Microseconds by tactic text."""
        return self._entries.get(_key(workload, target), {})

    def record(self, workload: Timed, target: CpuTarget, tactic: str, micros: float) -> None:
        """Note a time."""
        key = _key(workload, target)
        self._entries.setdefault(key, {})[tactic] = round(micros, DIGITS)
        self._workloads[key] = str(workload)
        self.changed = True

    def save(self) -> None:
        """Write the file, merged with what others wrote meanwhile; all or nothing.

        Raises:
            CacheError: The folder cannot be written.
        """
        if self.path is None or not self.changed:
            return
        if self.path.exists():
            self.merge(self.path)
        record = {
            "format": FORMAT,
            "entries": {
                key: {
                    "workload": self._workloads[key],
                    "micros": dict(sorted(self._entries[key].items(), key=lambda t: t[1])),
                }
                for key in sorted(self._entries)
            },
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1)
            os.replace(name, self.path)
        except OSError as error:
            raise CacheError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.changed = False


def merge_caches(paths: Iterable[Path], into: Path) -> TimingCache:
    """Merge timing caches into one file; earlier ones win where they disagree."""
    cache = TimingCache(into)
    for path in paths:
        cache.merge(path)
    cache.save()
    return cache


def _key(workload: Timed, target: CpuTarget) -> str:
    return f"{workload.digest} {target}"
