"""Samples from folders, array files, functions and iterables; labels for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from planish.base.dtypes import DType
from planish.base.errors import InputError
from planish.base.shapes import Dim, symbol
from planish.pipeline.data import open_data
from planish.pipeline.labels import Labels, open_labels
from planish.pipeline.samples import Samples, from_iterable
from planish.plan import TensorInfo

N = symbol("N")
RNG = np.random.default_rng(0)


def info(name: str, *shape: Dim, dtype: DType = DType.F32) -> TensorInfo:
    return TensorInfo(name, dtype, shape)


IMAGE = (info("x", N, 3, 8, 8),)


def arrays(samples: Samples, name: str = "x") -> list[np.ndarray]:
    return [feed[name] for feed in samples]


# ---- pictures -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name in ("b/two.png", "a/one.png", "three.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(RNG.integers(0, 256, (10, 12, 3), np.uint8)).save(path)
    (tmp_path / "pictures" / "labels.txt").write_text("one.png 4\nb/two.png 1\nthree.png 0\n")
    return tmp_path / "pictures"


def test_pictures_come_in_the_order_of_their_names(folder: Path) -> None:
    samples = open_data(folder, IMAGE, "crop=8")
    feeds = list(samples.feeds())
    assert [feed.keys for feed in feeds] == [("a/one.png",), ("b/two.png",), ("three.png",)]
    assert all(feed.arrays["x"].shape == (1, 3, 8, 8) for feed in feeds)
    assert samples.count == 3
    again = [np.array_equal(a, b) for a, b in zip(arrays(samples), arrays(samples), strict=True)]
    assert again == [True] * 3


def test_labels_go_by_path_or_bare_name(folder: Path) -> None:
    labels = open_labels(folder / "labels.txt", first_class=1)
    assert [labels.index(k) for k in ("a/one.png", "b/two.png", "three.png")] == [5, 2, 1]
    with pytest.raises(InputError, match=r"'four\.png' has no label among the 3"):
        labels.index("four.png")


def test_pictures_need_a_spec_that_fits(folder: Path) -> None:
    with pytest.raises(InputError, match="say what is done to them"):
        open_data(folder, IMAGE)
    with pytest.raises(InputError, match="crop=8x8 cuts to size"):
        list(open_data(folder, IMAGE, "crop=6"))
    with pytest.raises(InputError, match="pictures are for one alone"):
        open_data(folder, (*IMAGE, info("y", N, 1)), "crop=8")


def test_a_digest_tells_files_and_specs_apart(folder: Path) -> None:
    one = open_data(folder, IMAGE, "crop=8").digest
    assert one == open_data(str(folder), IMAGE, "crop=8").digest
    assert one != open_data(folder, IMAGE, "crop=8 mean=1").digest
    (folder / "three.png").unlink()
    assert one != open_data(folder, IMAGE, "crop=8").digest


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        open_data(tmp_path, IMAGE, "crop=8")


def test_pillow_is_named_when_it_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install 'planish\[pictures\]'"):
        open_data(folder, IMAGE, "crop=8")


# ---- array files --------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_by_input_name(
    tmp_path: Path, save: Callable[..., None], order: Literal["C", "F"]
) -> None:
    x = np.asarray(RNG.standard_normal((5, 4)), np.float32, order=order)
    y = RNG.integers(0, 9, (5,))
    save(tmp_path / "d.npz", x=x, y=y, other=np.zeros(2))
    samples = open_data(tmp_path / "d.npz", (info("x", N, 4), info("y", N, dtype=DType.I32)))
    assert samples.count == 5
    feeds = list(samples)
    assert np.array_equal(np.concatenate([f["x"] for f in feeds]), x)
    assert np.array_equal(np.concatenate([f["y"] for f in feeds]), y)
    assert feeds[0]["y"].dtype == np.int32 and feeds[0]["x"].shape == (1, 4)


def test_npy_of_pictures(tmp_path: Path) -> None:
    pictures = RNG.integers(0, 256, (4, 8, 8, 3), np.uint8)
    np.save(tmp_path / "p.npy", pictures)
    made = arrays(open_data(tmp_path / "p.npy", IMAGE, "scale=1/255"))
    assert len(made) == 4
    np.testing.assert_allclose(
        np.concatenate(made), pictures.transpose(0, 3, 1, 2) / 255, rtol=1e-6
    )


def test_one_array_may_be_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=np.zeros((2, 4)), b=np.ones((3, 4)), label=np.zeros(3, int))
    inputs = (info("x", N, 4),)
    with pytest.raises(InputError, match="name the one to read"):
        open_data(tmp_path / "d.npz", inputs)
    assert open_data(f"{tmp_path / 'd.npz'}:b", inputs).count == 3
    with pytest.raises(InputError, match="no array 'c'"):
        open_data(f"{tmp_path / 'd.npz'}:c", inputs)


def test_array_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "d.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot read"):
        open_data(tmp_path / "d.npy", IMAGE)
    np.save(tmp_path / "short.npy", np.zeros((9, 3, 8, 8), np.float32))
    raw = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(raw[:-5])
    with pytest.raises(InputError, match="ends in the middle"):
        list(open_data(tmp_path / "short.npy", IMAGE))


# ---- iterables and functions --------------------------------------------------------------------


def test_batches_and_samples_are_the_same_data() -> None:
    data = RNG.standard_normal((6, 3, 8, 8)).astype(np.float32)
    singles = from_iterable(list(data), IMAGE, None)
    batches = from_iterable([{"x": data[:4]}, {"x": data[4:]}], IMAGE, None)
    shuffled = from_iterable([data[[5, 0, 3]], data[[1, 4, 2]]], IMAGE, None)
    assert [len(a) for a in arrays(singles)] == [1] * 6
    assert [len(a) for a in arrays(batches)] == [4, 2]
    assert [f.keys for f in batches.feeds()] == [("0", "1", "2", "3"), ("4", "5")]
    assert singles.digest == batches.digest == shuffled.digest
    assert singles.digest != from_iterable(list(data[1:]), IMAGE, None).digest


def test_a_fixed_batch_is_filled_up() -> None:
    data = RNG.standard_normal((5, 4)).astype(np.float32)
    for source in (list(data), [data], [data[:3], data[3:]]):
        feeds = list(from_iterable(source, (info("x", 2, 4),), None).feeds())
        assert [f.keys for f in feeds] == [("0", "1"), ("2", "3"), ("4",)]
        assert np.array_equal(feeds[2].arrays["x"], data[[4, 4]])


def test_a_batch_of_one_is_split() -> None:
    data = np.zeros((3, 4), np.float32)
    assert len(arrays(from_iterable([data], (info("x", 1, 4),), None))) == 3


def test_a_generator_may_be_gone_through_twice() -> None:
    def numbers() -> Iterator[dict[str, np.ndarray]]:
        for n in range(3):
            yield {"x": np.full((3, 8, 8), n, np.float32)}

    samples = from_iterable(numbers(), IMAGE, None)
    half = iter(samples)
    next(half)
    for _ in range(2):
        assert [int(a[0, 0, 0, 0]) for a in arrays(samples)] == [0, 1, 2]


def test_several_inputs_as_tuples() -> None:
    inputs = (info("ids", N, 5, dtype=DType.I64), info("mask", N, 5))
    entry = (np.arange(5), np.ones(5, np.float32))
    (feed,) = from_iterable([entry], inputs, None)
    assert feed["ids"].shape == (1, 5) and feed["mask"].dtype == np.float32


def test_inputs_without_a_batch() -> None:
    inputs = (info("x", 4, 4), info("scale"))
    feeds = list(from_iterable([{"x": np.eye(4), "scale": 2.0}] * 2, inputs, None).feeds())
    assert [f.keys for f in feeds] == [("0",), ("1",)]
    assert feeds[0].arrays["scale"].shape == ()


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"y": np.zeros((3, 8, 8))}, "the inputs are"),
        (np.zeros((3, 8, 9)), r"wants \[3, 8, 8\] a sample, found \[3, 8, 9\]"),
        (np.zeros((2, 3, 8, 9)), r"found \[2, 3, 8, 9\]"),
    ],
)
def test_what_does_not_fit(entry: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        list(from_iterable([entry], IMAGE, None))


def test_types_that_would_lose_something() -> None:
    inputs = (info("x", N, 2, dtype=DType.I8),)
    (feed,) = from_iterable([np.array([1, -3])], inputs, None)
    assert feed["x"].dtype == np.int8
    for wrong in (np.array([1, 300]), np.array([0.5, 1.0])):
        with pytest.raises(InputError, match="is i8, found"):
            list(from_iterable([wrong], inputs, None))


def test_nothing_is_said() -> None:
    with pytest.raises(InputError, match="holds no samples"):
        list(from_iterable([], IMAGE, None))


def test_a_function_is_called_for_each_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mydata.py").write_text(
        "import numpy as np\n"
        "def batches():\n"
        "    for n in range(2):\n"
        "        yield np.full((2, 3, 8, 8), n, np.float32)\n"
    )
    monkeypatch.chdir(tmp_path)
    samples = open_data("mydata:batches", IMAGE)
    assert [len(a) for a in arrays(samples)] == [len(a) for a in arrays(samples)] == [2, 2]
    with pytest.raises(InputError, match="has no 'other'"):
        open_data("mydata:other", IMAGE)
    with pytest.raises(InputError, match="cannot import 'nodata'"):
        open_data("nodata:batches", IMAGE)
    with pytest.raises(InputError, match="give a folder of pictures"):
        open_data(tmp_path / "missing.npz", IMAGE)


# ---- labels -------------------------------------------------------------------------------------


def test_labels_in_order(tmp_path: Path) -> None:
    classes = np.array([3, 1, 2])
    np.save(tmp_path / "l.npy", classes)
    np.savez(tmp_path / "l.npz", image=np.zeros((3, 2)), label=classes)
    np.savez(tmp_path / "one.npz", x=np.zeros((3, 2)), kind=classes)
    by_key = {"0": 3, "1": 1, "2": 2}
    files = [tmp_path / name for name in ("l.npy", "l.npz", "one.npz")]
    for source in (classes, [3, 1, 2], *files, by_key, Labels(by_key)):
        labels = open_labels(source)
        assert [labels.index(str(n)) for n in range(3)] == [3, 1, 2]


def test_labels_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a.png 1\nb.png one\n")
    with pytest.raises(InputError, match='line 2: expected "file class"'):
        open_labels(tmp_path / "l.txt")
    (tmp_path / "l.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no labels"):
        open_labels(tmp_path / "l.txt")
    with pytest.raises(InputError, match="cannot read the labels"):
        open_labels(tmp_path / "missing.txt")
    with pytest.raises(InputError, match="whole numbers, one a sample"):
        open_labels(np.zeros((2, 2)))
    np.savez(tmp_path / "l.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="expected an array named 'label'"):
        open_labels(tmp_path / "l.npz")
