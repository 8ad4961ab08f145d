"""Constant weights as the register tile reads them: block by block, tap by tap, channel by channel.

    [block of output channels][taps][input channels][columns of the block]

A block never straddles two outputs or two groups. Its columns are whole vectors; columns beyond the
last channel are zero. Each block starts on a 64-byte boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planish.kernels.cpu.contraction import Contraction
from planish.kernels.workload import Operand, dense_strides

_ALIGN = 16  # f32 elements in 64 bytes


@dataclass(frozen=True)
class Columns:
    """The columns of a block: vectors, all full but the last.

    Attributes:
        lanes: Lanes of each vector.
        valid: Lanes of the last vector that are channels.
    """

    lanes: tuple[int, ...]
    valid: int

    @property
    def width(self) -> int:
        """Columns with padding."""
        return sum(self.lanes)

    @property
    def used(self) -> int:
        """Columns that are channels."""
        return self.width - self.lanes[-1] + self.valid

    def first(self, vector: int) -> int:
        """The first column of a vector."""
        return sum(self.lanes[:vector])

    def masked(self, vector: int) -> bool:
        """True when some lanes of a vector are padding."""
        return vector == len(self.lanes) - 1 and self.valid < self.lanes[vector]


@dataclass(frozen=True)
class Block:
    """Output channels that a tile computes together.

    Attributes:
        output: Number of the output.
        channel: First channel within that output.
        feature: First channel of all outputs' channels together: the row of the weights.
        group: Group of all of them.
        columns: How they lie in vectors.
        weights: Offset of the block in the packed weights, in elements.
    """

    output: int
    channel: int
    feature: int
    group: int
    columns: Columns
    weights: int


def channel_blocks(problem: Contraction, lanes: int, nr: int) -> tuple[Block, ...]:
    """Cut the output channels into blocks of at most `nr` vectors, as even as can be."""
    per_group = sum(problem.features) // problem.group
    steps = problem.taps * problem.channels
    blocks: list[Block] = []
    feature = weights = 0
    for output, count in enumerate(problem.features):
        start = feature
        while feature < start + count:
            group = feature // per_group
            stop = min(start + count, (group + 1) * per_group)
            for columns in _split(stop - feature, lanes, nr):
                blocks.append(Block(output, feature - start, feature, group, columns, weights))
                feature += columns.used
                weights += -(-steps * columns.width // _ALIGN) * _ALIGN
    return tuple(blocks)


def _split(channels: int, lanes: int, nr: int) -> list[Columns]:
    """Columns of each block of a run of channels of one output and group."""
    vectors = -(-channels // lanes)
    count = -(-vectors // nr)
    small, larger = divmod(vectors, count)
    rest = channels - (vectors - 1) * lanes
    tail = max(min(4, lanes), 1 << (rest - 1).bit_length())
    blocks = []
    for n in range(count):
        width = small + (n < larger)
        last = n == count - 1
        blocks.append(
            Columns((lanes,) * (width - 1) + (tail if last else lanes,), rest if last else lanes)
        )
    return blocks


def pack_weights(
    problem: Contraction, blocks: tuple[Block, ...], weights: np.ndarray
) -> np.ndarray:
    """The packed bytes of weights [features, channels, taps]."""
    steps = problem.taps * problem.channels
    last = blocks[-1]
    size = last.weights + -(-steps * last.columns.width // _ALIGN) * _ALIGN
    packed = np.zeros(size, np.float32)
    for block in blocks:
        used, width = block.columns.used, block.columns.width
        rows = weights[block.feature : block.feature + used].transpose(2, 1, 0)
        into = packed[block.weights : block.weights + steps * width].reshape(steps, width)
        into[:, :used] = rows.reshape(steps, used)
    return packed


def lay_out(operand: Operand, array: np.ndarray) -> np.ndarray:
    """A constant that the kernel reads by its strides, as it lies in memory."""
    if operand.strides == dense_strides(operand.shape):
        return np.ascontiguousarray(array)
    strides = [int(str(stride)) for stride in operand.strides]
    span = 1 + sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True))
    memory = np.zeros(span, array.dtype)
    steps = [stride * array.itemsize for stride in strides]
    np.lib.stride_tricks.as_strided(memory, array.shape, steps)[...] = array
    return memory
