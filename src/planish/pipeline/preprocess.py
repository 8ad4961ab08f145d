"""What is done to a picture before the network sees it, as a line of text.

    resize=256 crop=224 scale=1/255 mean=.485,.456,.406 std=.229,.224,.225 order=rgb layout=nchw

Each part may be left out; they act in this order:

    order   rgb (default), bgr or gray: the channels and their order
    resize  N: the shorter side becomes N, bilinear, with antialiasing; HxW: exactly that
    crop    N or HxW: the middle part
    scale   a factor, 1 by default; may be written as a fraction
    mean    subtracted after scaling: one number, or one a channel; 0 by default
    std     divided by after that: one number, or one a channel; 1 by default
    layout  nchw (default) or nhwc

`str(spec)` is text that parses to the same spec.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np

from planish.base.errors import BuildError, InputError

ORDERS = ("rgb", "bgr", "gray")
LAYOUTS = ("nchw", "nhwc")
EXAMPLE = "resize=256 crop=224 scale=1/255 mean=.485,.456,.406 std=.229,.224,.225"

Size = tuple[int, ...]  # (shorter side,) or (height, width)


@dataclass(frozen=True)
class Preprocess:
    """A parsed spec.

    Attributes:
        order: Of the channels, one of `ORDERS`.
        resize: (shorter side,) or (height, width); () leaves the size alone.
        crop: (side,) or (height, width) of the middle part; () takes all.
        scale: Factor on the bytes 0…255.
        mean: Subtracted from the scaled values; one, or one a channel.
        std: Divided by; one, or one a channel.
        layout: Of the result, one of `LAYOUTS`.
    """

    order: str = "rgb"
    resize: Size = ()
    crop: Size = ()
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "nchw"

    def __str__(self) -> str:
        parts = [f"order={self.order}"]
        parts += [f"{n}={'x'.join(map(str, s))}" for n, s in self._sizes() if s]
        parts.append(f"scale={_number_text(self.scale)}")
        parts.append(f"mean={','.join(map(_number_text, self.mean))}")
        parts.append(f"std={','.join(map(_number_text, self.std))}")
        parts.append(f"layout={self.layout}")
        return " ".join(parts)

    def _sizes(self) -> tuple[tuple[str, Size], ...]:
        return (("resize", self.resize), ("crop", self.crop))

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return 1 if self.order == "gray" else 3

    def apply(self, picture: np.ndarray, what: str = "a picture") -> np.ndarray:
        """A picture as the network wants it.

        Args:
            picture: [height, width] or [height, width, channels], bytes or floats of 0…255.
            what: The picture's name, for errors.

        Returns:
            f32 [channels, height, width], or [height, width, channels] for nhwc.

        Raises:
            InputError: It is no picture, or smaller than the part to be cut out.
        """
        pixels = _channels(picture, self.order, what)
        if self.resize:
            pixels = _resized(pixels, self.resize, what)
        if self.crop:
            pixels = _cropped(pixels, self.crop, what)
        made = pixels.astype(np.float32)
        if self.scale != 1.0:
            made *= np.float32(self.scale)
        if any(self.mean):
            made -= np.array(self.mean, np.float32)
        if any(s != 1.0 for s in self.std):
            made /= np.array(self.std, np.float32)
        return np.ascontiguousarray(made.transpose(2, 0, 1) if self.layout == "nchw" else made)


def parse_preprocess(text: str) -> Preprocess:
    """Read a spec.

    Raises:
        BuildError: A part is unknown, given twice, or has an illegal value.
    """
    found: dict[str, Any] = {}
    for part in text.split():
        name, given, value = part.partition("=")
        rule = _RULES.get(name)
        if rule is None or not given:
            raise _error(part, f"expected NAME=VALUE with a NAME of {', '.join(_RULES)}")
        if name in found:
            raise _error(part, f"{name} is given twice")
        read, expects = rule
        try:
            found[name] = read(value)
        except (ValueError, ZeroDivisionError):
            raise _error(part, f"expected {expects}") from None
    made = Preprocess(**found)
    for name in ("mean", "std"):
        count = len(getattr(made, name))
        if count not in (1, made.channels):
            raise _error(
                f"{name}={','.join(map(_number_text, getattr(made, name)))}",
                f"expected one number, or {made.channels} for order={made.order}; found {count}",
            )
    return made


def _error(part: str, why: str) -> BuildError:
    return BuildError(f"preprocess {part!r}: {why}", hint=f'write it like "{EXAMPLE}"')


# ---- reading and writing the parts --------------------------------------------------------------


def _word(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return read


def _size(text: str) -> Size:
    made = tuple(int(side) for side in text.split("x"))
    if len(made) > 2 or min(made) < 1:
        raise ValueError(text)
    return made


def _number(text: str) -> float:
    over, _, under = text.partition("/")
    made = float(over) / float(under) if under else float(text)
    if not np.isfinite(made):
        raise ValueError(text)
    return made


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(_number, text.split(",")))


def _divisors(text: str) -> tuple[float, ...]:
    made = _numbers(text)
    if 0.0 in made:
        raise ValueError(text)
    return made


_SIDES = "N (a side) or HxW, in pixels"
_NUMBERS = "a number, or one a channel with commas between"
_RULES: dict[str, tuple[Callable[[str], Any], str]] = {
    "order": (_word(*ORDERS), f"one of {', '.join(ORDERS)}"),
    "resize": (_size, _SIDES),
    "crop": (_size, _SIDES),
    "scale": (_number, "a number or a fraction such as 1/255"),
    "mean": (_numbers, _NUMBERS),
    "std": (_divisors, f"{_NUMBERS}, not 0"),
    "layout": (_word(*LAYOUTS), f"one of {', '.join(LAYOUTS)}"),
}
assert list(_RULES) == [field.name for field in fields(Preprocess)]


def _number_text(number: float) -> str:
    """The shortest text that reads as the same number; fractions of small whole numbers as such."""
    if number.is_integer():
        return str(int(number))
    near = Fraction(number).limit_denominator(1024)
    if near.numerator == 1 and near.numerator / near.denominator == number:
        return f"{near.numerator}/{near.denominator}" if near.denominator > 10 else repr(number)
    return repr(number)


# ---- what the parts do --------------------------------------------------------------------------


def _channels(picture: np.ndarray, order: str, what: str) -> np.ndarray:
    """[height, width, channels] in the order asked for."""
    pixels = picture[..., None] if picture.ndim == 2 else picture
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise InputError(
            f"{what} has the shape {list(picture.shape)}: preprocessing expects pictures, "
            "[height, width] or [height, width, channels] with 1, 3 or 4 channels"
        )
    pixels = pixels[..., :3]
    if order == "gray":
        return pixels if pixels.shape[2] == 1 else _luma(pixels)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[..., ::-1] if order == "bgr" else pixels


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Brightness after ITU-R BT.601, rounded for bytes."""
    made = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return (np.rint(made) if pixels.dtype == np.uint8 else made)[..., None]


def _resized(pixels: np.ndarray, sides: Size, what: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    if len(sides) == 1:
        factor = sides[0] / min(height, width)
        target = (max(1, round(height * factor)), max(1, round(width * factor)))
    else:
        target = (sides[0], sides[1])
    if target == (height, width):
        return pixels
    image = pillow(f"resizing {what}")
    planes = [
        np.asarray(
            image.fromarray(np.ascontiguousarray(plane)).resize(
                (target[1], target[0]), image.Resampling.BILINEAR
            )
        )
        for plane in np.moveaxis(_resizable(pixels), 2, 0)
    ]
    return np.stack(planes, axis=2)


def _resizable(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def _cropped(pixels: np.ndarray, sides: Size, what: str) -> np.ndarray:
    height, width = sides[0], sides[-1]
    top, left = pixels.shape[0] - height, pixels.shape[1] - width
    if top < 0 or left < 0:
        raise InputError(
            f"{what} is {pixels.shape[0]}x{pixels.shape[1]}, too small for crop={height}x{width}",
            hint="put a resize= before it that makes it large enough",
        )
    return pixels[top // 2 : top // 2 + height, left // 2 : left // 2 + width]


def pillow(what: str) -> Any:
    """The module PIL.Image.

    Args:
        what: What needs it, for the error.

    Raises:
        InputError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise InputError(
            f"{what} needs Pillow, which is not installed",
            hint="pip install 'planish[pictures]'",
        ) from None
    return Image
