"""Constant weights as the register tile reads them: block by block, tap by tap, step by step.

    [block of output channels][taps][steps][columns of the block][channels of a step]

A step takes one input channel, or some (`Product`); channels that a run lacks have zero weights. A
block never straddles two outputs or two groups. Its columns are whole vectors; columns beyond the
last channel are zero. Each block starts on a 64-byte boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planish.kernels.cpu.contraction import Contraction
from planish.kernels.workload import Operand, dense_strides

_WORD = 4  # bytes in which offsets are counted
_ALIGN = 16  # words in 64 bytes


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
        weights: Offset of the block in the packed weights, in words of 4 bytes.
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
                weights += _words(problem, columns)
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


def _words(problem: Contraction, columns: Columns) -> int:
    """Words of a block."""
    words = -(-problem.steps * columns.width * problem.product.column // _WORD)
    return -(-words // _ALIGN) * _ALIGN


def pack_weights(
    problem: Contraction, blocks: tuple[Block, ...], weights: np.ndarray
) -> np.ndarray:
    """The packed bytes of weights [features, channels, taps]."""
    product = problem.product
    unit = product.weights.size
    last = blocks[-1]
    size = (last.weights + _words(problem, last.columns)) * _WORD // unit
    packed = np.zeros(size, product.weights.numpy)
    rows = _steps(problem, weights.transpose(0, 2, 1).reshape(len(weights), -1))
    for block in blocks:
        used, width = block.columns.used, block.columns.width
        own = np.zeros((problem.steps, width, product.depth), product.weights.numpy)
        own[:, :used] = rows[block.feature : block.feature + used].transpose(1, 0, 2)
        start = block.weights * _WORD // unit
        packed[start : start + own.size] = product.pack(own)
    return packed


def _steps(problem: Contraction, rows: np.ndarray) -> np.ndarray:
    """Weights [features, taps · channels] as [features, steps, channels of a step]."""
    depth, run, count = problem.product.depth, problem.run, problem.run_steps
    runs = rows.reshape(len(rows), -1, run)
    if run == count * depth:
        return rows.reshape(len(rows), -1, depth)
    made = np.zeros((*runs.shape[:2], count, depth), rows.dtype)
    for step in range(count):
        start = problem.first_input(step)
        first, stop = step * depth, min(step * depth + depth, run)
        made[:, :, step, first - start : stop - start] = runs[:, :, first:stop]
    return made.reshape(len(rows), -1, depth)


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
