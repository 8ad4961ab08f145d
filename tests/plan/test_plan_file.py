"""The plan file: a round trip changes nothing, equal plans give equal bytes, damage is seen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_plan import full_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.base.dtypes import DType
from planish.base.errors import PlanFileError
from planish.base.shapes import Dim, dim_max, floordiv, mod, symbol
from planish.plan import (
    HeapBuffer,
    Plan,
    Profile,
    TensorInfo,
    check_plan,
    read_plan,
    write_plan,
)
from planish.plan import container as frame
from planish.plan.fields import Field
from planish.plan.write import encode_sym

N, H = symbol("N"), symbol("H")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.plan"


def assert_equal(a: Plan, b: Plan) -> None:
    for field in dataclasses.fields(Plan):
        if field.name != "weights":
            assert getattr(a, field.name) == getattr(b, field.name), field.name
    assert len(a.weights) == len(b.weights)
    for x, y in zip(a.weights, b.weights, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.tobytes() == y.tobytes()


def test_round_trip(path: Path) -> None:
    plan = full_plan()
    plan.save(path)
    assert_equal(plan, read_plan(path))
    again = path.with_suffix(".again")
    read_plan(path).save(again)
    assert path.read_bytes() == again.read_bytes()


def test_weights_are_mapped_and_aligned(path: Path) -> None:
    full_plan().save(path)
    for weight in read_plan(path).weights:
        if weight.size:
            assert not weight.flags.writeable
            assert weight.ctypes.data % 64 == 0
    maps = Path("/proc/self/maps")
    if maps.exists():
        kept = read_plan(path)
        lines = [line for line in maps.read_text().splitlines() if line.endswith(str(path))]
        assert lines and all(line.split()[1].startswith("r--s") for line in lines)
        del kept


def test_strided_weights_and_numpy_numbers(path: Path) -> None:
    weight = np.arange(20, dtype=np.float32).reshape(4, 5).T
    plan = full_plan(weights=(weight, *full_plan().weights[1:]), arena=np.int64(4096))
    plan.save(path)
    assert np.array_equal(read_plan(path).weights[0], weight)


def test_a_name_may_be_anything(path: Path) -> None:
    for name in ("", "None", "\0", "x" * 10000):
        full_plan(name=name).save(path)
        assert read_plan(path).name == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provenance": {"x": object()}}, "plain data"),
        ({"provenance": {1: 2}}, "keys are text"),
        ({"provenance": {"x": float("nan")}}, "finite"),
        ({"weights": (np.array(["text"]),)}, "text cannot"),
        ({"weights": (np.zeros(2, "V3"),)}, "no element type"),
    ],
)
def test_what_is_not_data_is_not_written(path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanFileError, match=message):
        full_plan(**fields).save(path)
    assert not list(path.parent.iterdir())


# ---- writing ------------------------------------------------------------------------------------


def test_write_replaces_in_one_go(path: Path) -> None:
    full_plan(name="old").save(path)
    old = read_plan(path)
    full_plan(name="new").save(path)
    assert read_plan(path).name == "new"
    assert np.array_equal(old.weights[0], full_plan().weights[0])  # still mapped, still whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_mode_follows_the_umask(path: Path) -> None:
    before = os.umask(0o027)
    try:
        full_plan().save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(PlanFileError, match="cannot write"):
        full_plan().save(tmp_path / "absent" / "m.plan")
    with pytest.raises(PlanFileError, match="cannot write"):
        full_plan().save(tmp_path)


# ---- damage -------------------------------------------------------------------------------------


def test_every_flipped_byte_is_seen(path: Path) -> None:
    """Every byte of the frame and a sample of the rest, padding included."""
    full_plan().save(path)
    good = path.read_bytes()
    frame_end = 64 + 4 * 64
    places = [*range(frame_end + 8), *range(frame_end + 8, len(good), 37), len(good) - 1]
    for at in places:
        damaged = bytearray(good)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        with pytest.raises(PlanFileError):
            read_plan(path)


def test_every_truncation_is_seen(path: Path) -> None:
    full_plan().save(path)
    good = path.read_bytes()
    for size in [*range(0, 400), *range(400, len(good), 211), len(good) - 1]:
        path.write_bytes(good[:size])
        with pytest.raises(PlanFileError, match=r"truncated|empty"):
            read_plan(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_damage_is_seen(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damage.plan"
    if not hasattr(test_random_damage_is_seen, "good"):
        full_plan().save(path)
        test_random_damage_is_seen.good = path.read_bytes()  # type: ignore[attr-defined]  # made once
    good: bytes = test_random_damage_is_seen.good  # type: ignore[attr-defined]
    at = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, min(64, len(good) - at)))
    put = data.draw(st.binary(max_size=64))
    damaged = good[:at] + put + good[at + cut :]
    path.write_bytes(damaged)
    if damaged == good:
        read_plan(path)
    else:
        with pytest.raises(PlanFileError):
            read_plan(path)


def test_messages_tell_what_is_wrong(path: Path) -> None:
    full_plan().save(path)
    good = path.read_bytes()

    def message(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(PlanFileError) as caught:
            read_plan(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "the file is empty" in message(b"")
    assert "not a plan" in message(b"\x08\x07\x12\x04onnx" * 40)
    assert "planish build" in message(b"PK\x03\x04" * 40)
    assert "text mode" in message(good.replace(b"\r\n", b"\n"))
    assert "text mode" in message(b"\x13" + good[1:])
    assert "truncated" in message(good[:-1])
    assert "follow its end" in message(good + b"\0")
    assert "header or table was altered" in message(good[:20] + b"\xff" + good[21:])
    weights = good.index(np.arange(6, dtype=np.float32).tobytes())
    assert "section 'weights' was altered" in message(good[:weights] + b"\1" + good[weights + 1 :])
    padding = good.index(b"\0" * 100, 64 + 4 * 64)
    assert "padding" in message(good[: padding + 9] + b"\1" + good[padding + 10 :])
    newer = bytearray(good)
    newer[8] = 9
    newer[32:64] = bytes(32)
    newer[32:64] = hashlib.sha256(newer[: 64 + 4 * 64]).digest()
    assert "has format 9; this planish reads up to 2" in message(bytes(newer))
    older = bytearray(newer)
    older[8] = 0
    older[32:64] = bytes(32)
    older[32:64] = hashlib.sha256(older[: 64 + 4 * 64]).digest()
    assert "has format 0; this planish reads 2" in message(bytes(older))


def test_files_that_are_no_files(tmp_path: Path) -> None:
    for bad in (tmp_path / "absent", tmp_path, "/dev/null", "a\0b"):
        with pytest.raises(PlanFileError):
            read_plan(bad)


def test_weights_may_go_unchecked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_plan().save(path)
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(6, dtype=np.float32).tobytes())] ^= 1
    path.write_bytes(data)
    read_plan(path, verify_weights=False)
    with pytest.raises(PlanFileError, match="weights"):
        read_plan(path)
    monkeypatch.setenv("PLANISH_VERIFY_WEIGHTS", "0")
    read_plan(path)


def test_digest_of_large_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the parts, writer and reader hash the same pieces."""
    monkeypatch.setattr(frame, "PIECE", 100)
    for sizes in (
        [],
        [0],
        [1],
        [99],
        [100],
        [101],
        [100, 100],
        [50, 50, 1],
        [250, 0, 7],
        [1] * 300,
    ):
        parts = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
        frame.write_container(tmp_path / "c", {"a": parts, "b": [b"x"]})
        opened = frame.open_container(tmp_path / "c")
        assert bytes(opened.view("a")) == b"".join(parts)
        opened.verify("a")
        opened.verify("b")


def _first_weight(path: str) -> float:
    return float(read_plan(path).weights[0].sum())


def test_another_process_reads_it(path: Path) -> None:
    full_plan().save(path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_first_weight, (str(path),)) == 15.0


# ---- hostile records ----------------------------------------------------------------------------


def rewrite(path: Path, change: Any) -> None:
    """Writes the file anew with a changed record and right digests."""
    full_plan().save(path)
    opened = frame.open_container(path)
    record = json.loads(bytes(opened.view("record")))
    text = change(record)
    data = text if isinstance(text, bytes) else json.dumps(text or record).encode()
    parts = {name: [bytes(opened.view(name))] for name in ("code", "host", "weights")}
    frame.write_container(path, {"record": [data], **parts})


_JUNK = (
    *(None, -1, 2**70, "junk", [], {}, 1.5, True),
    *([[1, "N"]], [[0]], [[[["max", 1, 2]]]]),
)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        found += _paths(item, (*at, key))
    return found


def test_any_field_may_be_wrong(path: Path) -> None:
    """Each value of the record in turn becomes junk: an error of ours, or a legal plan."""
    full_plan().save(path)
    record = json.loads(bytes(frame.open_container(path).view("record")))
    refused = 0
    for number, place in enumerate(_paths(record)):
        junk = _JUNK[number % len(_JUNK)]

        def change(new: Any, place: tuple[Any, ...] = place, junk: Any = junk) -> None:
            owner = new
            for key in place[:-1]:
                owner = owner[key]
            owner[place[-1]] = junk

        rewrite(path, change)
        try:
            check_plan(read_plan(path))
        except PlanFileError:
            refused += 1
    assert refused > 200


def _deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"null", b"\xff", b"{", _deep(100_000), b"9" * 5000, b'{"name": 1}']
)
def test_records_that_are_no_records(path: Path, text: bytes) -> None:
    rewrite(path, lambda _: text)
    with pytest.raises(PlanFileError):
        read_plan(path)


def test_sections_may_be_missing(tmp_path: Path) -> None:
    frame.write_container(tmp_path / "c", {"record": [b"{}"]})
    with pytest.raises(PlanFileError, match="no section 'code'"):
        read_plan(tmp_path / "c")


def test_sizes_that_would_explode(path: Path) -> None:
    wide = [[1, c] for c in "abcdefgh"] + [[2]]
    call = ["floordiv", [[2 * f[0], *f[1:]] for f in wide], 2]
    bomb = [[1, *([call] * 60)]]

    def change(record: Any) -> None:
        record["heap"][0]["size"] = bomb

    rewrite(path, change)
    with pytest.raises(PlanFileError, match="at most 256 terms"):
        read_plan(path)


def _combine(parts: tuple[str, Dim, Dim]) -> Dim:
    op, a, b = parts
    if op in "/%" and b == 0:
        return a
    table = {
        "+": lambda: a + b,
        "-": lambda: a - b,
        "*": lambda: a * b,
        "/": lambda: floordiv(a, b),
        "%": lambda: mod(a, b),
        "^": lambda: dim_max(a, b),
    }
    return table[op]()


_dims = st.recursive(
    st.sampled_from([N, H, symbol("None"), symbol("lambda")]) | st.integers(-100, 100),
    lambda inner: st.tuples(st.sampled_from("+*-/%^"), inner, inner).map(_combine),
    max_leaves=8,
)


@given(_dims)
def test_sizes_survive(dim: Dim) -> None:
    text = dim if isinstance(dim, int) else encode_sym(dim)
    if not (isinstance(text, int) and abs(text) > 2**40):
        assert Field(json.loads(json.dumps(text)), "x").dim() == dim


_RULES: list[tuple[dict[str, Any], str]] = [
    ({"inputs": full_plan().inputs * 2}, "one name"),
    ({"profiles": (Profile((("N", 3, 2, 8),)),)}, "3 <= 2 <= 8"),
    ({"profiles": (Profile((("Q", 1, 2, 8),)),)}, "no input has a dim 'Q'"),
    ({"weights": ()}, "weight 1 of 0"),
    ({"arena": 32}, "bytes 64 to"),
    ({"heap": ()}, "heap 0 of 0"),
    ({"heap": (HeapBuffer(symbol("Q")), HeapBuffer(0))}, "'Q'"),
    ({"steps": full_plan().steps[::2]}, "nothing gives the value"),
    ({"steps": (*full_plan().steps, full_plan().steps[0])}, "group 0 is in two places"),
    ({"inputs": (TensorInfo("s", DType.STRING, (N, H)),)}, "takes no text"),
]


@pytest.mark.parametrize(("fields", "message"), _RULES)
def test_rules(fields: dict[str, Any], message: str) -> None:
    check_plan(full_plan())
    with pytest.raises(PlanFileError, match=message):
        check_plan(full_plan(**fields))


def test_write_plan_is_save(path: Path) -> None:
    write_plan(full_plan(), path)
    first = path.read_bytes()
    full_plan().save(path)
    assert path.read_bytes() == first
