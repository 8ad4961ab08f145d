"""The operator that planish puts in the place of attention that is spelled out."""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun


class ScaledAttention(OpRun):
    """The reference implementation of `planish::ScaledAttention`."""

    op_domain = "planish"

    def _run(
        self,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None = None,
        keep: np.ndarray | None = None,
        fill: np.ndarray | None = None,
        scale: float = 1.0,
    ) -> tuple[np.ndarray]:
        scores = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(scale)
        scores = scores if mask is None else scores + mask
        if keep is not None and fill is not None:
            scores = np.where(keep, scores, fill)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return (np.matmul(weights, v).astype(q.dtype),)
