"""The timing cache: round trips, merging, editing, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planish.base.dtypes import DType
from planish.base.errors import CacheError
from planish.kernels.workload import Operand, Workload, dense_strides
from planish.targets.cpu import host_target
from planish.tune.cache import TimingCache, merge_caches

TARGET = host_target("", 1)


def _workload(m: int = 4) -> Workload:
    def operand(*shape: int) -> Operand:
        return Operand(DType.F32, shape, dense_strides(shape))

    return Workload("matmul", (operand(m, 8), operand(8, 3)), (operand(m, 3),), threads=1)


def _filled(path: Path, **times: float) -> TimingCache:
    cache = TimingCache(path)
    for tactic, micros in times.items():
        cache.record(_workload(), TARGET, tactic, micros)
    cache.save()
    return cache


def test_times_come_back(tmp_path: Path) -> None:
    _filled(tmp_path / "t.json", fast=1.5, slow=3.0)
    again = TimingCache(tmp_path / "t.json")
    assert again.times(_workload(), TARGET) == {"fast": 1.5, "slow": 3.0}
    assert again.times(_workload(5), TARGET) == {}
    assert again.times(_workload(), host_target("", 2)) == {}


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    _filled(path, fast=1.5)
    path.chmod(0o600)
    before = path.stat().st_mtime_ns
    TimingCache(path).save()
    assert path.stat().st_mtime_ns == before


def test_saving_keeps_what_others_wrote_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    mine = TimingCache(path)
    mine.record(_workload(), TARGET, "mine", 1.0)
    _filled(path, other=2.0)
    mine.save()
    assert TimingCache(path).times(_workload(), TARGET) == {"mine": 1.0, "other": 2.0}


def test_merging_files_lets_the_first_win(tmp_path: Path) -> None:
    _filled(tmp_path / "a.json", x=1.0)
    _filled(tmp_path / "b.json", x=9.0, y=2.0)
    merge_caches([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "c.json")
    assert TimingCache(tmp_path / "c.json").times(_workload(), TARGET) == {"x": 1.0, "y": 2.0}


def test_a_file_may_be_edited(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    _filled(path, x=1.0, y=2.0)
    record = json.loads(path.read_text())
    (entry,) = record["entries"].values()
    assert entry["workload"] == str(_workload())
    del entry["micros"]["x"]
    path.write_text(json.dumps(record))
    assert TimingCache(path).times(_workload(), TARGET) == {"y": 2.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "[]",
        "{}",
        '{"format": 1}',
        '{"format": 1, "entries": []}',
        '{"format": 99, "entries": {}}',
        '{"format": 1, "entries": {"k": 3}}',
        '{"format": 1, "entries": {"k": {"micros": []}}}',
        '{"format": 1, "entries": {"k": {"micros": {"t": "1"}}}}',
        '{"format": 1, "entries": {"k": {"micros": {"t": -1}}}}',
        '{"format": 1, "entries": {"k": {"micros": {"t": NaN}}}}',
        "[" * 100_000,
    ],
)
def test_files_that_are_no_cache_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(CacheError):
        TimingCache(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CacheError):
        TimingCache(tmp_path / "t.json")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TimingCache(tmp_path / "file" / "t.json")
    cache.record(_workload(), TARGET, "x", 1.0)
    with pytest.raises(CacheError):
        cache.save()
