"""Weights rounded up or down by what the layer's results lose, not each to its nearest code.

What a layer loses by errors e of its weights is e·H·eᵀ for each output channel, H the second moment
of what the weights meet. Where inputs go together, as neighbouring pixels do, the error of one
weight can be made up for by the others: they are rounded one after the other, and the error made so
far is handed on to those that are still open. With H = L·Lᵀ the loss is a sum of squares

    Σ_j (Σ_{i ≥ j} e_i·L_ij)²      so weight j, the last one first, gets the code nearest to
                                   w_j + Σ_{i > j} e_i·L_ij / L_jj

This is the rounding of Frantar et al., "GPTQ: accurate post-training quantization for generative
pre-trained transformers" (2022), after Hassibi and Stork's optimal brain surgeon (1993); the
factor of H in place of that of its inverse gives the same codes in the reverse order. No
weight ends further than one code from its nearest, so a poor H can do little harm.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import numpy as np

from planish.base.errors import BuildError
from planish.graph.graph import Node
from planish.quantize.scales import WEIGHT_PEAK, quantize_weights, weight_scales

_BLOCK = 32  # weights whose errors are handed on one by one; to all others a block at a time
_SWEPT = 1 << 21  # weights at once, at most, where one channel is not more
_DAMPING = 0.01  # of the mean of H's diagonal, added to it
_TRITS = 3 ** np.arange(5)  # five numbers of three values are a byte


@dataclass(frozen=True)
class Rounding:
    """By how much the codes of a layer's weights are not the nearest ones.

    Attributes:
        digest: Of the nearest codes and of the offsets.
        packed: The offsets -1, 0, 1, five a byte.
    """

    digest: str
    packed: bytes

    @classmethod
    def of(cls, nearest: np.ndarray, offsets: np.ndarray) -> Rounding:
        """The offsets of some codes, both int8 and of the weights' shape."""
        flat = offsets.reshape(-1).astype(np.int64) + 1
        filled = np.pad(flat, (0, -flat.size % len(_TRITS)), constant_values=1)
        packed = (filled.reshape(-1, len(_TRITS)) @ _TRITS).astype(np.uint8)
        return cls(_digest(nearest, offsets), packed.tobytes())

    @classmethod
    def parse(cls, text: str) -> Rounding:
        """Read `text`.

        Raises:
            ValueError: It is none.
        """
        digest, _, packed = text.partition(" ")
        if not digest or not packed:
            raise ValueError("expected a digest and offsets in base64")
        data = base64.b64decode(packed, validate=True)
        if any(byte >= 3 ** len(_TRITS) for byte in data):
            raise ValueError("the offsets are no numbers -1, 0 and 1, five a byte")
        return cls(digest, data)

    @property
    def text(self) -> str:
        """In one line."""
        return f"{self.digest} {base64.b64encode(self.packed).decode('ascii')}"

    def offsets(self, nearest: np.ndarray, name: str) -> np.ndarray:
        """The offsets, in the shape of the codes that they belong to.

        Args:
            nearest: The codes, as `quantize_weights` gives them.
            name: Of the layer, for the error.

        Raises:
            BuildError: They were made for other codes, or were edited.
        """
        trits = np.frombuffer(self.packed, np.uint8)[:, None] // _TRITS % 3
        flat = trits.reshape(-1)[: nearest.size].astype(np.int8) - np.int8(1)
        made = flat.reshape(nearest.shape) if flat.size == nearest.size else None
        if made is None or _digest(nearest, made) != self.digest:
            raise BuildError(
                f"the calibration rounds other weights of {name!r} than these: scales or offsets "
                "are not those that it was made with",
                hint="calibrate again with data, or take the layer's line out of the calibration",
            )
        return made


def _digest(nearest: np.ndarray, offsets: np.ndarray) -> str:
    hasher = hashlib.sha256(repr(nearest.shape).encode())
    for array in (nearest, offsets):
        hasher.update(np.ascontiguousarray(array.astype(np.int8)).tobytes())
    return hasher.hexdigest()[:16]


def encode_weights(
    weights: np.ndarray,
    axis: int,
    per_channel: bool = True,
    rounding: Rounding | None = None,
    name: str = "",
    bias: np.ndarray | None = None,
    input_step: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights as s8 codes, and the scales of the output channels.

    Args:
        weights: Floats.
        axis: Of the output channels.
        per_channel: As for `weight_scales`.
        rounding: Which codes are not the nearest; None: all are.
        name: Of the layer, for errors.
        bias: As for `weight_scales`. Channels that get a larger scale by it have nearest codes.
        input_step: As for `weight_scales`.

    Raises:
        BuildError: The rounding is that of other weights.
    """
    scales = weight_scales(weights, axis, per_channel, bias, input_step)
    codes = quantize_weights(weights, scales, axis)
    if rounding is None:
        return codes, scales
    plain = weight_scales(weights, axis, per_channel)
    offsets = rounding.offsets(quantize_weights(weights, plain, axis), name)
    shape = [1] * weights.ndim
    shape[axis] = -1
    moved = codes + np.where((scales == plain).reshape(shape), offsets, np.int8(0))
    return np.clip(moved, -WEIGHT_PEAK, WEIGHT_PEAK).astype(np.int8), scales


def weight_rows(node: Node, weights: np.ndarray) -> np.ndarray:
    """What lies in the shape of a contraction's weights, as [groups, channels, weights]."""
    if node.op == "MatMul":
        return np.asarray(weights.T[None])
    groups = int(node.attrs.get("group", 1))
    return weights.reshape(groups, weights.shape[0] // groups, -1)


def from_rows(node: Node, rows: np.ndarray) -> np.ndarray:
    """The reverse of `weight_rows`."""
    held = node.inputs[1]
    assert held is not None and held.data is not None
    if node.op == "MatMul":
        return np.ascontiguousarray(rows[0].T)
    return rows.reshape(np.asarray(held.data).shape)


# ---- finding the codes --------------------------------------------------------------------------


def round_rows(rows: np.ndarray, moments: np.ndarray) -> np.ndarray | None:
    """Codes of weights that lose little of the layer's results.

    Args:
        rows: The weights in units of their scales: [groups, output channels, weights].
        moments: The second moments of what they meet: [groups, weights, weights].

    Returns:
        The codes, int8 in the shape of the rows, within one of the nearest; None where the moments
        are beyond arithmetic.
    """
    diagonal = np.diagonal(moments, axis1=1, axis2=2).astype(np.float64)
    if not np.all(np.isfinite(moments)):
        return None
    order = np.argsort(diagonal, axis=1, kind="stable")  # the last is rounded first
    lower = _factor(moments, order)
    if lower is None:
        return None
    groups, channels, size = rows.shape
    count = max(1, _SWEPT // max(1, groups * size))
    codes = np.empty(rows.shape, np.int8)
    for start in range(0, channels, count):
        part = slice(start, start + count)
        codes[:, part] = _sweep(rows[:, part], order, lower)
    return codes


def _sweep(rows: np.ndarray, order: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Round the weights of some channels one after the other, those of all channels together."""
    weights = np.take_along_axis(rows.astype(np.float64), order[:, None, :], axis=2)
    weights = np.ascontiguousarray(weights.transpose(0, 2, 1))  # [groups, weights, channels]
    nearest = np.clip(np.rint(weights), -WEIGHT_PEAK, WEIGHT_PEAK)
    least = np.maximum(nearest - 1, -WEIGHT_PEAK)
    most = np.minimum(nearest + 1, WEIGHT_PEAK)
    codes = np.zeros_like(weights)
    errors = np.zeros_like(weights)
    for stop in range(weights.shape[1], 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        handed = lower[:, stop:, start:stop].transpose(0, 2, 1) @ errors[:, stop:]
        wanted = weights[:, start:stop] + handed
        for k in range(stop - 1, start - 1, -1):
            codes[:, k] = np.clip(np.rint(wanted[:, k - start]), least[:, k], most[:, k])
            errors[:, k] = weights[:, k] - codes[:, k]
            wanted[:, : k - start] += lower[:, k, start:k, None] * errors[:, None, k]
    back = np.empty_like(codes)
    np.put_along_axis(back, order[:, :, None], codes, axis=1)
    return back.transpose(0, 2, 1)


def _factor(moments: np.ndarray, order: np.ndarray) -> np.ndarray | None:
    """The columns of L, each divided by its entry on the diagonal; L·Lᵀ the damped moments."""
    size = moments.shape[1]
    permuted = np.empty(moments.shape, np.float64)
    for group, places in enumerate(order):
        permuted[group] = moments[group][np.ix_(places, places)]
    diagonal = np.arange(size)
    mean = permuted[:, diagonal, diagonal].mean(axis=1, keepdims=True)
    permuted[:, diagonal, diagonal] += np.where(mean > 0.0, _DAMPING * mean, 1.0)
    try:
        lower = np.linalg.cholesky(permuted)
    except np.linalg.LinAlgError:
        return None
    return np.asarray(lower / lower[:, diagonal, diagonal][:, None, :])


def loss(errors: np.ndarray, moments: np.ndarray) -> float:
    """What errors of weights cost: e·H·eᵀ, summed over groups and channels."""
    wide = moments.astype(np.float64)
    count = max(1, _SWEPT // max(1, errors.shape[0] * errors.shape[2]))
    total = 0.0
    for start in range(0, errors.shape[1], count):
        part = errors[:, start : start + count].astype(np.float64)
        total += float(np.sum((part @ wide) * part))
    return total
