"""The preprocess spec: its text, and what it does to pictures."""

from __future__ import annotations

import numpy as np
import pytest

from planish.base.errors import BuildError, InputError
from planish.pipeline.preprocess import EXAMPLE, Preprocess, parse_preprocess

SPECS = [
    "",
    EXAMPLE,
    "resize=256x320 crop=224x300 scale=2/3 mean=127.5 std=127.5 order=bgr layout=nhwc",
    "order=gray scale=0.0039215 mean=.1307 std=.3081",
    "scale=1/3 mean=1e-3,-4,5 std=1/7,2,1e5",
]


@pytest.mark.parametrize("text", SPECS)
def test_text_reads_as_the_same_spec(text: str) -> None:
    made = parse_preprocess(text)
    assert parse_preprocess(str(made)) == made


def test_text_is_readable() -> None:
    assert str(parse_preprocess(EXAMPLE)) == (
        "order=rgb resize=256 crop=224 scale=1/255 mean=0.485,0.456,0.406 "
        "std=0.229,0.224,0.225 layout=nchw"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("size=224", "a NAME of order, resize, crop"),
        ("crop", "expected NAME=VALUE"),
        ("crop=224 crop=225", "given twice"),
        ("crop=1x2x3", "N (a side) or HxW"),
        ("crop=0", "N (a side) or HxW"),
        ("scale=1/0", "a fraction such as 1/255"),
        ("scale=inf", "a fraction such as 1/255"),
        ("std=1,0,1", "not 0"),
        ("mean=1,2", "expected one number, or 3"),
        ("mean=1,2,3 order=gray", "or 1 for order=gray"),
        ("order=yuv", "one of rgb, bgr, gray"),
        ("layout=nc4hw", "one of nchw, nhwc"),
    ],
)
def test_wrong_text_says_what_is_expected(text: str, says: str) -> None:
    with pytest.raises(BuildError, match="write it like") as caught:
        parse_preprocess(text)
    assert says in str(caught.value)


def test_scale_mean_and_deviation() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    made = parse_preprocess("scale=1/255 mean=.5,.4,.3 std=.1,.2,.4").apply(picture)
    wanted = (picture / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.4]
    assert made.dtype == np.float32 and made.shape == (3, 6, 8)
    np.testing.assert_allclose(made, wanted.transpose(2, 0, 1), rtol=1e-5, atol=1e-5)


def test_order_layout_and_gray() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    bgr = Preprocess(order="bgr", layout="nhwc").apply(picture)
    assert np.array_equal(bgr, picture[..., ::-1])
    gray = Preprocess(order="gray").apply(picture)
    assert gray.shape == (1, 4, 5)
    assert np.array_equal(gray[0], np.rint(picture @ np.float32([0.299, 0.587, 0.114])))
    assert np.array_equal(Preprocess(order="gray").apply(picture[..., 0])[0], picture[..., 0])
    assert Preprocess().apply(picture[..., 0]).shape == (3, 4, 5)


def test_the_middle_is_cut_out() -> None:
    picture = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)
    made = parse_preprocess("order=gray crop=2x4").apply(picture)
    assert np.array_equal(made[0], picture[2:4, 2:6])


def test_resizing() -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    picture = np.full((40, 60, 3), 7, np.uint8)
    assert parse_preprocess("resize=20").apply(picture).shape == (3, 20, 30)
    made = parse_preprocess("resize=10x15").apply(picture)
    assert made.shape == (3, 10, 15) and np.all(made == 7)
    ramp = np.repeat(np.arange(0, 64, dtype=np.uint8)[None], 8, 0)
    shrunk = parse_preprocess("order=gray resize=4x32").apply(ramp)[0, 0]
    assert np.all(np.diff(shrunk) > 0)  # averaged, not picked


def test_what_is_no_picture_or_too_small() -> None:
    with pytest.raises(InputError, match="expects pictures"):
        Preprocess().apply(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match="too small for crop=9x9"):
        parse_preprocess("crop=9").apply(np.zeros((8, 8), np.uint8))
