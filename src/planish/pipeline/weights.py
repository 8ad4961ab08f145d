"""Rounds weights by second moments of what they meet on the samples that calibration kept.

The moments are those of the float network, at places spread over each layer's results. A part of
the samples serves to round; on the others it is judged, layer by layer, whether that loses clearly
less than the nearest codes, which stay where it does not. Layers whose moments do not fit in memory
together are done in several goes over the samples; those of very many weights a channel are cut
into pieces, between which no errors are handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from planish.graph.graph import Node
from planish.pipeline.options import Progress
from planish.pipeline.samples import Arrays
from planish.quantize.correct import sample_patches
from planish.quantize.insert import channel_axis
from planish.quantize.rounding import Rounding, from_rows, loss, round_rows, weight_rows
from planish.quantize.scales import WEIGHT_PEAK, quantize_weights, weight_scales

_PLACES = 160  # of each sample
_JUDGED = 3  # every so manieth sample is one to judge on
_WIDEST = 4608  # weights a channel whose moments are held: 3 × 3 × 512
_MEMORY = 400 << 20  # bytes of moments at once, if one piece alone is not more
_CLEARLY = 0.95  # of the nearest codes' loss, which rounding must leave at most

Reads = Callable[[Arrays], Mapping[str, np.ndarray]]  # a sample -> contraction -> what it reads


@dataclass
class _Piece:
    """Some of the weights of each channel, and the moments of what they meet.

    Attributes:
        node: The contraction.
        span: Which of a channel's weights.
        shape: Of the moments: groups, weights, weights.
        found, judged: The moments on the samples to round by, and on those to judge on.
    """

    node: Node
    span: slice
    shape: tuple[int, int, int]
    found: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    judged: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def bytes(self) -> int:
        """Of both moments."""
        return 2 * 4 * int(np.prod(self.shape))


def round_weights(
    contractions: Sequence[Node],
    kept: Sequence[Arrays],
    reads: Reads,
    means: Mapping[str, np.ndarray],
    per_channel: bool,
    progress: Progress,
) -> dict[str, Rounding]:
    """The rounding of each contraction that gains by it.

    Args:
        contractions: Those that compute on 8 bits.
        kept: Samples, in an order that does not depend on that of the data.
        reads: Runs the float network on one of them.
        means: Contraction -> the mean of what its weights meet, where the error that it makes is
            taken out of the bias; others are not there.
        per_channel: A scale for each output channel of the weights.
        progress: Called with the number of contractions done.
    """
    offsets: dict[str, np.ndarray] = {}
    done = 0
    for chunk in _chunks(_pieces(contractions)):
        _gather(chunk, kept, reads, means)
        for piece in chunk:
            made = _offsets(piece, per_channel)
            piece.found = piece.judged = np.zeros(0, np.float32)
            if made is not None:
                node, rows = piece.node, weight_rows(piece.node, _weights(piece.node))
                held = offsets.setdefault(node.name, np.zeros(rows.shape, np.int8))
                held[:, :, piece.span] = made
            last = piece.span.stop == weight_rows(piece.node, _weights(piece.node)).shape[2]
            done += last
            progress("rounding weights", done, len(contractions))
    return {
        node.name: Rounding.of(_nearest(node, per_channel), from_rows(node, offsets[node.name]))
        for node in contractions
        if node.name in offsets
    }


def _weights(node: Node) -> np.ndarray:
    weights = node.inputs[1]
    assert weights is not None and weights.data is not None
    return np.asarray(weights.data)


def _nearest(node: Node, per_channel: bool) -> np.ndarray:
    data, axis = _weights(node), channel_axis(node)
    return quantize_weights(data, weight_scales(data, axis, per_channel), axis)


def _pieces(contractions: Sequence[Node]) -> Iterator[_Piece]:
    for node in contractions:
        groups, _, size = weight_rows(node, _weights(node)).shape
        count = -(-size // _WIDEST)
        ends = [size * n // count for n in range(count + 1)] if count else [0]
        for start, stop in pairwise(ends):
            yield _Piece(node, slice(start, stop), (groups, stop - start, stop - start))


def _chunks(pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
    chunk: list[_Piece] = []
    for piece in pieces:
        if chunk and sum(p.bytes for p in chunk) + piece.bytes > _MEMORY:
            yield chunk
            chunk = []
        chunk.append(piece)
    if chunk:
        yield chunk


def _gather(
    chunk: Sequence[_Piece],
    kept: Sequence[Arrays],
    reads: Reads,
    means: Mapping[str, np.ndarray],
) -> None:
    """Fill in the moments of some pieces."""
    for piece in chunk:
        piece.found = np.zeros(piece.shape, np.float32)
        piece.judged = np.zeros(piece.shape, np.float32)
    for number, arrays in enumerate(kept):
        seen = reads(arrays)
        patches: dict[str, np.ndarray] = {}
        for piece in chunk:
            name = piece.node.name
            if name not in patches:
                rows = sample_patches(piece.node, seen[name], _PLACES, number * _PLACES)
                mean = means.get(name)
                patches = {name: rows if mean is None else rows - mean[:, None].astype(rows.dtype)}
            part = patches[name][:, :, piece.span]
            judging = len(kept) > 1 and number % _JUDGED == _JUDGED - 1
            total = piece.judged if judging else piece.found
            with np.errstate(over="ignore", invalid="ignore"):
                total += part.transpose(0, 2, 1) @ part


def _offsets(piece: _Piece, per_channel: bool) -> np.ndarray | None:
    """By how much codes differ from the nearest; None where they do not, or had better not."""
    data = _weights(piece.node)
    rows = weight_rows(piece.node, data)[:, :, piece.span].astype(np.float64)
    steps = weight_scales(data, channel_axis(piece.node), per_channel).astype(np.float64)
    steps = steps.reshape(*rows.shape[:2], 1)
    rows /= steps
    codes = round_rows(rows, piece.found)
    if codes is None:
        return None
    nearest = np.clip(np.rint(rows), -WEIGHT_PEAK, WEIGHT_PEAK).astype(np.int8)
    moments = piece.judged if np.any(piece.judged) else piece.found
    made, plain = (loss((rows - one) * steps, moments) for one in (codes, nearest))
    if not made < _CLEARLY * plain:
        return None
    return codes - nearest
