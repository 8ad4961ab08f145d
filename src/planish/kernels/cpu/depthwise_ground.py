"""Where the data of a depthwise convolution of bytes lie: of the layer, of a block, of a tile."""

from __future__ import annotations

from dataclasses import dataclass

from planish.kernels.cpu.conv_depthwise import Columns
from planish.kernels.cpu.depthwise_quads import Axis, Depthwise
from planish.kernels.cpu.frame import Frame
from planish.kernels.workload import Operand
from planish.targets.ir import Module, Val, i64, vector


@dataclass(frozen=True)
class Block:
    """Where a unit's channels are.

    Attributes:
        number: Which block.
        channel: Its first channel.
        source: The image's first element of that channel.
        weights: The block's weights.
        count: Channels, of a vector's bytes.
    """

    number: Val
    channel: Val
    source: Val
    weights: Val
    count: int


@dataclass(frozen=True)
class Place:
    """Where a tile is.

    Attributes:
        image: Index of the image.
        outer: Output index along each outer axis.
        row: First row.
        column: First column.
        rows: Rows.
        run: Columns, and which input columns they have.
    """

    image: Val
    outer: tuple[Val, ...]
    row: Val
    column: Val
    rows: int
    run: Columns


class Ground:
    """What all of a layer's code stands on: its function, its operands, addresses in them.

    Attributes:
        d: The layer and its tile.
        frame: The phase.
        f: The phase's function.
        x: The input.
        y: The output.
        wide: Whether the target has masks for bytes.
        sum_type: LLVM type of a chunk's sums.
        zeros: Address of what tiles read in place of lines outside the input.
    """

    def __init__(self, module: Module, symbol: str, d: Depthwise) -> None:
        self.frame = Frame(module, symbol, d.w)
        self.f, self.d = self.frame.f, d
        self.x: Operand = d.w.inputs[0]
        self.y: Operand = d.w.outputs[0]
        self.wide = d.t.isa == "avx512"
        self.sum_type = vector("i32", d.lanes)
        self.zeros = self._zeros(module, symbol)

    def _zeros(self, module: Module, symbol: str) -> Val:
        """The address of what tiles read in place of lines outside the input."""
        h, width = self.d.horizontal, self.d.tile.width
        columns = (width - 1) * h.stride + h.reach
        size = columns * self.step(h) + self.d.tile.bytes
        name = f"@{symbol}_zeros"
        module.constants.append(f"{name} = hidden global [{size} x i8] zeroinitializer, align 64")
        return Val("ptr", name)

    def step(self, axis: Axis) -> int:
        """Bytes from column to column of the input; 0 along no axis."""
        stride = 0 if axis.number < 0 else self.x.strides[axis.number + 2]
        return stride if isinstance(stride, int) else 0

    def index_of(self, place: Place, channel: Val, pixel: tuple[int, int]) -> list[Val]:
        """The output index of a pixel of a tile."""
        f, d = self.f, self.d
        at = [i64(0)] * d.s.rank
        for axis, position in zip(d.outer, place.outer, strict=True):
            at[axis.number] = position
        at[d.vertical.number] = f.add(place.row, pixel[0])
        if d.horizontal.number >= 0:
            at[d.horizontal.number] = f.add(place.column, pixel[1])
        return [place.image, channel, *at]

    def address_of(self, base: Val, pixel: tuple[int, int]) -> Val:
        """The address of a pixel's output, given that of the tile's first."""
        d, place = self.d, self.frame.move(base, self.y, self.d.vertical.number + 2, pixel[0])
        if d.horizontal.number < 0:
            return place
        return self.frame.move(place, self.y, d.horizontal.number + 2, pixel[1])
