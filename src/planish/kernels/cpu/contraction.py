"""A convolution or a matmul with constant weights, as the register-tile templates see both.

The output is a box of pixels times output channels. Each pixel axis has a window of taps over the
input (one tap, for a batch axis and for a matmul's rows); the channels are reduced within each tap.
Where an operand's element lies is an affine map of the pixel indices and the channel.
"""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.expr import Expr, Load, Var, loads_of
from planish.base.shapes import Dim
from planish.kernels.loops.linear import address
from planish.kernels.workload import Workload


@dataclass(frozen=True)
class Window:
    """A pixel axis: the outputs along it and the inputs that each of them reads.

    Attributes:
        axis: The output's logical axis.
        extent: Outputs.
        size: Inputs.
        taps: Inputs that one output reads.
        stride: Input positions between neighbouring outputs.
        dilation: Input positions between neighbouring taps.
        before: Input positions of padding before the first.
        x: Elements between neighbouring inputs.
        padded: Some tap of some output may lie outside the input.
    """

    axis: int
    extent: Dim
    size: Dim
    taps: int
    stride: int
    dilation: int
    before: int
    x: Dim
    padded: bool


@dataclass(frozen=True)
class Access:
    """Where an operand's element lies, in elements: base + pixels · steps + channel · step.

    Attributes:
        base: Offset of the element at pixel 0, channel 0.
        steps: Elements along each pixel axis.
        channel: Elements between neighbouring channels.
    """

    base: Dim
    steps: tuple[Dim, ...]
    channel: Dim


@dataclass(frozen=True)
class Contraction:
    """The problem of one layer.

    Attributes:
        workload: What it was made from; x is its input 0, the weights its input 1.
        windows: The pixel axes, outermost first.
        channel_axis: The output's logical axis of channels.
        channels: Input channels that one output reads.
        x_channel: Elements between neighbouring input channels.
        group: Groups of channels.
        features: Channels of each output.
        outputs: Where each output's elements lie.
    """

    workload: Workload
    windows: tuple[Window, ...]
    channel_axis: int
    channels: int
    x_channel: Dim
    group: int
    features: tuple[int, ...]
    outputs: tuple[Access, ...]

    @property
    def taps(self) -> int:
        """Kernel elements of one channel."""
        total = 1
        for window in self.windows:
            total *= window.taps
        return total

    @property
    def epilogue(self) -> tuple[Expr | None, ...]:
        """The value stored to each output; None for the accumulator itself."""
        return self.workload.epilogue or (None,) * len(self.outputs)

    def access(self, load: Load) -> Access | None:
        """Where an epilogue's operand is read; None when that is not affine in the output index."""
        place = address(load.index, self.workload.inputs[load.tensor].strides)
        if any(not isinstance(atom, Var) for atom, _ in place.terms):
            return None
        slopes = {atom.name: factor for atom, factor in place.terms if isinstance(atom, Var)}
        steps = tuple(slopes.get(f"o{window.axis}", 0) for window in self.windows)
        return Access(place.constant, steps, slopes.get(self.channel_name, 0))

    @property
    def channel_name(self) -> str:
        """The output's variable of channels in epilogues."""
        return f"o{self.channel_axis}"

    def loads(self) -> list[Load]:
        """Every operand that the epilogues read."""
        found = [load for e in self.epilogue if e is not None for load in loads_of(e)]
        return list(dict.fromkeys(found))

    def dims(self) -> list[Dim]:
        """Every size that addresses are made of."""
        found: list[Dim] = [self.x_channel]
        for window in self.windows:
            found += [window.extent, window.size, window.x, window.x * window.stride]
        accesses = [*self.outputs, *(a for a in map(self.access, self.loads()) if a is not None)]
        for access in accesses:
            found += [access.base, *access.steps, access.channel]
        return found


def conv_contraction(w: Workload) -> Contraction:
    """The problem of a `conv` workload with constant channel and kernel extents."""
    x, weights = w.inputs[0], w.inputs[1]
    per_group, *kernel = (_static(d) for d in weights.shape[1:])
    rank = len(kernel)
    group = _static(w.attr("group"))
    strides, dilations, pads = w.ints("strides"), w.ints("dilations"), w.ints("pads")
    out = w.outputs[0].shape
    windows = [Window(0, out[0], out[0], 1, 1, 1, 0, x.strides[0], False)]
    for n in range(rank):
        reach = (out[n + 2] - 1) * strides[n] + (kernel[n] - 1) * dilations[n] + 1
        beyond = reach - x.shape[n + 2] - pads[n]
        inside = pads[n] == 0 and (pads[rank + n] == 0 or _not_positive(beyond))
        windows.append(
            Window(
                axis=n + 2,
                extent=out[n + 2],
                size=x.shape[n + 2],
                taps=kernel[n],
                stride=strides[n],
                dilation=dilations[n],
                before=pads[n],
                x=x.strides[n + 2],
                padded=not inside,
            )
        )
    return Contraction(
        workload=w,
        windows=tuple(windows),
        channel_axis=1,
        channels=per_group,
        x_channel=x.strides[1],
        group=group,
        features=tuple(_static(output.shape[1]) for output in w.outputs),
        outputs=tuple(Access(0, (o.strides[0], *o.strides[2:]), o.strides[1]) for o in w.outputs),
    )


def matmul_contraction(w: Workload) -> Contraction:
    """The problem of a `matmul` workload whose b does not vary along the batch axes."""
    a, b, out = w.inputs[0], w.inputs[1], w.outputs[0]
    rows = len(out.shape) - 1
    windows = tuple(
        Window(n, out.shape[n], out.shape[n], 1, 1, 1, 0, a.strides[n], False) for n in range(rows)
    )
    return Contraction(
        workload=w,
        windows=windows,
        channel_axis=rows,
        channels=_static(b.shape[-2]),
        x_channel=a.strides[-1],
        group=1,
        features=(_static(b.shape[-1]),),
        outputs=(Access(0, tuple(out.strides[:rows]), out.strides[rows]),),
    )


def _static(value: object) -> int:
    """An extent that `refuse` found to be constant."""
    return int(str(value))


def _not_positive(value: Dim) -> bool:
    return isinstance(value, int) and value <= 0
