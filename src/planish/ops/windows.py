"""Sliding windows: kernel, strides, dilations and pads of convolutions and pools, an axis each."""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.errors import ModelError
from planish.base.expr import Expr, index
from planish.base.shapes import Dim, Shape, ceildiv, floordiv
from planish.ops.checks import equal, flag_attr, ints_attr, str_attr, text
from planish.ops.op import Attrs, Fact
from planish.ops.scalar import Index, add, ge, lt, mul, size, sub
from planish.ops.sizes import size_max, size_min

_LARGEST = 1 << 30  # step of a window
AUTO_PAD = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Windows:
    """Where the windows lie, a tuple entry a spatial axis.

    Attributes:
        sizes: Spatial sizes of the input.
        kernel: Elements of a window.
        strides: Distance between windows.
        dilations: Distance between the elements of a window.
        begin: Padding before the first element.
        end: Padding after the last.
        out: Number of windows.
    """

    sizes: Shape
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: Shape
    end: Shape
    out: Shape

    def places(self, at: Index, inside: Index) -> tuple[list[Expr], list[Expr]]:
        """Where in the input element `inside` of window `at` lies.

        Returns:
            An index, and the conditions under which it is inside the data.
        """
        places: list[Expr] = []
        conditions: list[Expr] = []
        for n, extent in enumerate(self.sizes):
            offset = mul(inside[n], index(self.dilations[n])) if self.kernel[n] > 1 else index(0)
            place = sub(add(mul(at[n], index(self.strides[n])), offset), size(self.begin[n]))
            low, high = self._reaches_out(n)
            if low:
                conditions.append(ge(place, index(0)))
            if high:
                conditions.append(lt(place, size(extent)))
            places.append(place)
        return places, conditions

    def _reaches_out(self, n: int) -> tuple[bool, bool]:
        """Whether some window covers padding before and after the data."""
        reach = (self.kernel[n] - 1) * self.dilations[n] - self.begin[n]
        last = (self.out[n] - 1) * self.strides[n] + reach
        return self.begin[n] != 0, size_max(last - self.sizes[n] + 1, 0) != 0


def windows_of(sizes: Shape, kernel: tuple[int, ...], attrs: Attrs) -> Windows:
    """The windows that the attributes of a convolution or pool describe.

    Reads `strides`, `dilations`, `pads`, `auto_pad` and `ceil_mode`.

    Raises:
        ModelError: An attribute has the wrong length, or a kernel is larger than the padded input.
    """
    count = len(sizes)
    if len(kernel) != count:
        raise ModelError(f"kernel {text(kernel)} over {count} spatial axes {text(sizes)}")
    strides = per_axis(attrs, "strides", count)
    dilations = per_axis(attrs, "dilations", count)
    begin, end = pads_attr(attrs, count)
    auto = str_attr(attrs, "auto_pad", "NOTSET", AUTO_PAD)
    ceil_mode = flag_attr(attrs, "ceil_mode", 0)
    out: list[Dim] = []
    for n in range(count):
        reach = (kernel[n] - 1) * dilations[n] + 1
        if auto.startswith("SAME"):
            windows = ceildiv(sizes[n], strides[n])
            total = size_max((windows - 1) * strides[n] + reach - sizes[n], 0)
            half = floordiv(total, 2)
            begin[n] = half if auto == "SAME_UPPER" else total - half
            end[n] = total - begin[n]
        else:
            windows = _count(sizes[n], begin[n], end[n], reach, strides[n], ceil_mode)
        if isinstance(windows, int) and windows < 1 and sizes[n] != 0:
            raise ModelError(
                f"a window of {reach} does not fit spatial axis {n} of {text(sizes)} "
                f"padded by {begin[n]} and {end[n]}"
            )
        out.append(size_max(windows, 0) if isinstance(windows, int) else windows)
    return Windows(sizes, kernel, strides, dilations, tuple(begin), tuple(end), tuple(out))


def _count(size: Dim, begin: Dim, end: Dim, reach: int, stride: int, ceil_mode: bool) -> Dim:
    spare = size + begin + end - reach
    if not ceil_mode:
        return floordiv(spare, stride) + 1
    windows = ceildiv(spare, stride) + 1
    if isinstance(end, int) and end - reach + stride <= 0:
        return windows
    return size_min(windows, ceildiv(size + begin, stride))  # none starts in the padding at the end


def per_axis(attrs: Attrs, name: str, count: int) -> tuple[int, ...]:
    """One positive number a spatial axis; 1 where the attribute is left out.

    Raises:
        ModelError: Their number is wrong, or one is below 1 or absurd.
    """
    values = ints_attr(attrs, name) or (1,) * count
    if len(values) != count or any(not 1 <= value <= _LARGEST for value in values):
        raise ModelError(f"{name} is {values}, expected {count} numbers from 1 to {_LARGEST}")
    return values


def pads_attr(attrs: Attrs, count: int) -> tuple[list[Dim], list[Dim]]:
    """The explicit pads before and after the data; 0 under any `auto_pad`.

    Raises:
        ModelError: Their number is wrong.
    """
    pads = ints_attr(attrs, "pads") or (0,) * (2 * count)
    if len(pads) != 2 * count:
        raise ModelError(f"pads is {pads}, expected {2 * count} numbers")
    if str_attr(attrs, "auto_pad", "NOTSET", AUTO_PAD) != "NOTSET":
        pads = (0,) * (2 * count)
    return list(pads[:count]), list(pads[count:])


def kernel_of(attrs: Attrs, spatial: Shape | None, what: str) -> tuple[int, ...]:
    """The kernel size from `kernel_shape`, or from the weight's spatial axes.

    Raises:
        ModelError: They differ, or neither is known.
    """
    kernel, _ = kernel_and_facts(attrs, spatial, what)
    if kernel is None:
        lacks = f"the kernel's size {text(spatial)} is not known" if spatial else _MISSING
        raise ModelError(f"{what}: {lacks}")
    return kernel


_MISSING = "attribute 'kernel_shape' is missing"


def kernel_and_facts(
    attrs: Attrs, spatial: Shape | None, what: str
) -> tuple[tuple[int, ...] | None, tuple[Fact, ...]]:
    """The kernel size, None where it is known at run time only, and what has to hold for it.

    Raises:
        ModelError: `kernel_shape` and the weight's spatial axes differ.
    """
    given = ints_attr(attrs, "kernel_shape")
    if spatial is None:
        return given, ()
    if given is None:
        known = tuple(dim for dim in spatial if isinstance(dim, int))
        return (known if len(known) == len(spatial) else None), ()
    told = f"{what}: kernel_shape is {given}, the weight has {text(spatial)}"
    if len(given) != len(spatial):
        raise ModelError(told)
    facts = [fact for pair in zip(spatial, given, strict=True) for fact in equal(*pair, told)]
    return given, tuple(facts)
