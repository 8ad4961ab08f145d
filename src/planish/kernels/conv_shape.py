"""What a convolution workload says, with names instead of positions."""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.shapes import Dim, Shape, is_static
from planish.kernels.workload import Workload


@dataclass(frozen=True)
class ConvShape:
    """Sizes of a `conv` workload; each tuple has one entry a spatial axis.

    Attributes:
        batch: N.
        channels: C, input channels.
        features: O, output channels of all outputs together.
        group: Number of groups.
        size: Input extents.
        out: Output extents.
        kernel: Kernel extents.
        stride: Steps of the window.
        dilation: Distances between taps.
        before: Padding before the first element of each axis.
    """

    batch: Dim
    channels: int
    features: int
    group: int
    size: Shape
    out: Shape
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Kernel elements of one channel."""
        total = 1
        for extent in self.kernel:
            total *= extent
        return total

    def padded(self, axis: int) -> bool:
        """True unless every tap of every output along the axis is known to lie in the input."""
        size, out = self.size[axis], self.out[axis]
        if self.before[axis] or not isinstance(size, int) or not isinstance(out, int):
            return True
        reach = (out - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis]
        return reach >= size


def refuse_shape(w: Workload) -> str | None:
    """Why the channels or the kernel of a `conv` are not sizes that code can be made for."""
    if not is_static(w.inputs[1].shape) or not is_static(w.inputs[0].shape[1:2]):
        return "the channels or the kernel extents are symbolic"
    return None


def refuse_depthwise(w: Workload) -> str | None:
    """Why a `conv` is not one constant filter a channel, over channels that are neighbours."""
    if not w.inputs[1].const:
        return "the weights are not constant"
    if reason := refuse_shape(w):
        return reason
    s = conv_shape(w)
    if s.group != s.channels or s.features != s.channels:
        return "not one filter a channel"
    if len(w.outputs) > 1:
        return "several outputs"
    if w.inputs[0].strides[1] != 1 or w.outputs[0].strides[1] != 1:
        return "channels are not the contiguous axis"
    return None


def conv_shape(w: Workload) -> ConvShape:
    """Read a `conv` workload that `refuse_shape` lets pass."""
    x, weights = w.inputs[0], w.inputs[1]
    rank = len(x.shape) - 2
    features, _, *kernel = map(int, map(str, weights.shape))
    return ConvShape(
        batch=x.shape[0],
        channels=int(str(x.shape[1])),
        features=features,
        group=int(str(w.attr("group"))),
        size=x.shape[2:],
        out=w.outputs[0].shape[2:],
        kernel=tuple(kernel),
        stride=w.ints("strides"),
        dilation=w.ints("dilations"),
        before=w.ints("pads")[:rank],
    )
