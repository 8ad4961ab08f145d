"""A convolution or a matmul with constant weights, as the register-tile templates see both.

The output is a box of pixels times output channels. Each pixel axis has a window of taps over the
input (one tap, for a batch axis and for a matmul's rows); the channels are reduced within each tap.
Where an operand's element lies is an affine map of the pixel indices and the channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from planish.base.expr import Call, Expr, Load, Var, children, loads_of
from planish.base.shapes import Dim, is_static
from planish.kernels.cpu.products import Product
from planish.kernels.loops.linear import address
from planish.kernels.workload import Operand, Workload


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
        multiple: Positions of the logical axis between neighbouring outputs.
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
    multiple: Dim = 1

    @property
    def plain(self) -> bool:
        """True for one tap that always lies inside the input."""
        return self.taps == 1 and not self.padded


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
        product: What one step of the reduction takes and does.
        joined: The taps of the last axis and their channels are one run of inputs, cut into steps
            as a whole.
    """

    workload: Workload
    windows: tuple[Window, ...]
    channel_axis: int
    channels: int
    x_channel: Dim
    group: int
    features: tuple[int, ...]
    product: Product
    joined: bool = False

    @property
    def taps(self) -> int:
        """Kernel elements of one channel."""
        total = 1
        for window in self.windows:
            total *= window.taps
        return total

    @property
    def run(self) -> int:
        """Inputs that are cut into steps together: the channels of a tap, or of a row of taps."""
        return self.channels * (self.windows[-1].taps if self.joined else 1)

    @property
    def run_steps(self) -> int:
        """Steps of a run."""
        return -(-self.run // self.product.depth)

    @property
    def steps(self) -> int:
        """Steps of the whole reduction: rows of the packed weights."""
        return self.taps * self.channels // self.run * self.run_steps

    def first_input(self, step: int) -> int:
        """Where in its run a step's inputs begin.

        The last step of a dense run ends where the run ends, and so takes some inputs again, with
        zero weights; else it would read beyond them.
        """
        depth = self.product.depth
        back = self.x_channel == 1 and self.run >= depth
        return min(step * depth, self.run - depth) if back else step * depth

    @property
    def epilogue(self) -> tuple[Expr | None, ...]:
        """The value stored to each output; None for the accumulator itself."""
        return self.workload.epilogue or (None,) * len(self.features)

    @property
    def channel_name(self) -> str:
        """The output's variable of channels in epilogues."""
        return f"o{self.channel_axis}"

    @cached_property
    def outputs(self) -> tuple[Access, ...]:
        """Where each output's elements lie."""
        return tuple(map(self._output_access, self.workload.outputs))

    def _output_access(self, output: Operand) -> Access:
        steps = tuple(output.strides[w.axis] * w.multiple for w in self.windows)
        return Access(0, steps, output.strides[self.channel_axis])

    def access(self, load: Load) -> Access | None:
        """Where an epilogue's operand is read; None when that is not affine in the output index."""
        place = address(load.index, self.workload.inputs[load.tensor].strides)
        if any(not isinstance(atom, Var) for atom, _ in place.terms):
            return None
        slopes = {atom.name: factor for atom, factor in place.terms if isinstance(atom, Var)}
        steps = tuple(slopes.get(f"o{w.axis}", 0) * w.multiple for w in self.windows)
        return Access(place.constant, steps, slopes.get(self.channel_name, 0))

    def loads(self) -> list[Load]:
        """Every operand that the epilogues read."""
        found = [load for e in self.epilogue if e is not None for load in loads_of(e)]
        return list(dict.fromkeys(found))

    def accesses(self) -> list[Access]:
        """Where the outputs and the affine operands of the epilogues lie."""
        return [*self.outputs, *(a for a in map(self.access, self.loads()) if a is not None)]

    def dims(self) -> list[Dim]:
        """Every size that addresses are made of."""
        found: list[Dim] = [self.x_channel]
        for window in self.windows:
            found += [window.extent, window.size, window.x, window.x * window.stride]
            found.append(window.multiple)
        for access in self.accesses():
            found += [access.base, *access.steps, access.channel]
        return found


def conv_contraction(w: Workload, product: Product) -> Contraction:
    """The problem of a `conv` workload with constant channel and kernel extents."""
    x, weights = w.inputs[0], w.inputs[1]
    per_group, *kernel = (_static(d) for d in weights.shape[1:])
    rank = len(kernel)
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
    problem = Contraction(
        workload=w,
        windows=tuple(windows),
        channel_axis=1,
        channels=per_group,
        x_channel=x.strides[1],
        group=_static(w.attr("group")),
        features=tuple(_static(output.shape[1]) for output in w.outputs),
        product=product,
    )
    return _simple(problem)


def matmul_contraction(w: Workload, product: Product) -> Contraction:
    """The problem of a `matmul` workload whose b does not vary along the batch axes."""
    a, b, out = w.inputs[0], w.inputs[1], w.outputs[0]
    rows = len(out.shape) - 1
    windows = tuple(
        Window(n, out.shape[n], out.shape[n], 1, 1, 1, 0, a.strides[n], False) for n in range(rows)
    )
    problem = Contraction(
        workload=w,
        windows=windows,
        channel_axis=rows,
        channels=_static(b.shape[-2]),
        x_channel=a.strides[-1],
        group=1,
        features=(_static(b.shape[-1]),),
        product=product,
    )
    return _simple(problem)


def always_read(expr: Expr) -> Iterator[Load]:
    """Operand accesses outside the arms of selects: only these surely lie inside the operand."""
    if isinstance(expr, Load):
        yield expr
    elif isinstance(expr, Call) and expr.fn == "select":
        yield from always_read(expr.args[0])
    else:
        for child in children(expr):
            yield from always_read(child)


# ---- simpler pixel axes -------------------------------------------------------------------------

_ENOUGH = 8  # pixels of a constant axis that fill a tile well, so that it is best left alone


def _simple(problem: Contraction) -> Contraction:
    """The same problem with as few and as constant pixel axes as can be.

    4 × 1 × 7 × 7     ->   4 × 49        neighbours that lie densely in every operand
    [8*N]             ->   [N] × 8       a constant factor of a symbolic extent
    """
    windows = [w for w in problem.windows if not (w.extent == 1 and w.plain)]
    windows = windows or [problem.windows[-1]]
    free = _free_axes(problem)
    at = len(windows) - 2
    while at >= 0:
        merged = _merged(problem, windows[at], windows[at + 1], free)
        if merged is not None:
            windows[at : at + 2] = [merged]
        at -= 1
    split = [part for window in windows for part in _split(window)]
    simple = replace(problem, windows=tuple(split))
    return replace(simple, joined=_joins(simple))


def _joins(problem: Contraction) -> bool:
    """Whether the last axis's taps, cut into steps together, need fewer steps than one by one."""
    last = problem.windows[-1]
    if last.taps == 1 or problem.channels % problem.product.depth == 0:
        return False
    if problem.x_channel != 1 or last.x * last.dilation != problem.channels:
        return False
    return is_static((last.extent, last.size)) or not last.padded


def _free_axes(problem: Contraction) -> set[int]:
    """Output axes that epilogues use in nothing but affine accesses."""
    bound: set[str] = set()
    affine: set[Load] = set()

    def visit(expr: Expr) -> None:
        if isinstance(expr, Load) and expr in affine:
            return
        if isinstance(expr, Var):
            bound.add(expr.name)
        for child in children(expr):
            visit(child)

    for expr in problem.epilogue:
        if expr is not None:
            affine = {load for load in always_read(expr) if problem.access(load) is not None}
            visit(expr)
    return {w.axis for w in problem.windows if f"o{w.axis}" not in bound}


def _merged(problem: Contraction, a: Window, b: Window, free: set[int]) -> Window | None:
    """One axis for two neighbours, if all operands run through both with one stride."""
    if not (a.plain and b.plain and a.axis in free and b.axis in free):
        return None
    mixed = isinstance(a.extent, int) != isinstance(b.extent, int)
    if mixed and isinstance(b.extent, int) and b.extent >= _ENOUGH:
        return None
    two = replace(problem, windows=(a, b))
    pairs = [(a.x * a.stride, b.x * b.stride), *(access.steps for access in two.accesses())]
    if any(outer != b.extent * inner for outer, inner in pairs):
        return None
    extent = a.extent * b.extent
    return replace(b, extent=extent, size=extent, stride=1, x=b.x * b.stride)


def _split(window: Window) -> list[Window]:
    """A symbolic axis as a symbolic and a constant one, if its extent has a constant factor."""
    extent = window.extent
    if isinstance(extent, int) or not window.plain:
        return [window]
    factor = max((f for f in range(_ENOUGH, 4097) if _divides(f, extent)), default=1)
    if factor == 1:
        return [window]
    step = window.x * window.stride
    outer = extent // factor
    return [
        replace(window, extent=outer, size=outer, stride=1, x=step * factor, multiple=factor),
        replace(window, extent=factor, size=factor, stride=1, x=step),
    ]


def _divides(factor: int, extent: Dim) -> bool:
    return not isinstance(extent, int) and all(f % factor == 0 for _, f in extent.terms)


def _static(value: object) -> int:
    """An extent that `refuse` found to be constant."""
    return int(str(value))


def _not_positive(value: Dim) -> bool:
    return isinstance(value, int) and value <= 0
