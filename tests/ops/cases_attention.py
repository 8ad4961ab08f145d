"""Attention in its many spellings, and rotary embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from case import Case, bools, f32, i64, ints


def _four(heads: int = 4, kv: int = 4, q: int = 5, k: int = 7, width: int = 8) -> list[np.ndarray]:
    return [f32(2, heads, q, width), f32(2, kv, k, width), f32(2, kv, k, 6)]


def _attention(
    inputs: list[Any], outputs: int = 1, opset: int = 23, symbolic: bool = True, **attrs: Any
) -> Case:
    heads = [(n, 1) for n in range(3)] + [(n, 3) for n in range(3)]
    packed = [(n, 2) for n in range(3)]
    past = [(4, 1), (4, 3), (5, 1), (5, 3)]
    fixed = [*(packed if inputs[0].ndim == 3 else heads), *past]
    return Case("Attention", inputs, attrs, outputs, (), 1e-5, "onnx", symbolic, fixed, opset)


_PACKED = [f32(2, 5, 32), f32(2, 7, 32), f32(2, 7, 24)]
_GROUPED = [f32(2, 5, 32), f32(2, 7, 16), f32(2, 7, 12)]
_PAST = [None, f32(2, 4, 3, 8), f32(2, 4, 3, 6)]
_SOME = np.array([[True, False, True, True, False, True, True]])
ATTENTION_CASES: list[Case] = [
    _attention(_four()),
    _attention(_four(), scale=0.3, softcap=2.0),
    _attention(_four(), is_causal=1),
    _attention(_four(kv=2)),
    _attention(_four(kv=2), is_causal=1),
    _attention([*_four(), f32(5, 7)]),
    _attention([*_four(), _SOME]),
    _attention([*_four(), bools(2, 1, 5, 7)], is_causal=1),
    _attention([*_four(), np.zeros((5, 7), bool)]),
    _attention([*_four(kv=2), f32(2, 4, 5, 7)]),
    _attention([*_four(kv=2), f32(2, 1, 5, 7)]),
    _attention([*_four(kv=2), f32(4, 5, 7)]),
    _attention([*_four(), *_PAST], outputs=3),
    _attention([*_four(), *_PAST], outputs=3, is_causal=1),
    *(
        _attention([*_four(), f32(5, 7)], outputs=4, qk_matmul_output_mode=m, softcap=cap)
        for m, cap in ((0, 0.0), (1, 1.5), (2, 1.5), (3, 1.5))
    ),
    _attention([*_four(kv=2), f32(5, 7)], outputs=4, qk_matmul_output_mode=2),
    _attention(_PACKED, q_num_heads=4, kv_num_heads=4),
    _attention(_PACKED, q_num_heads=4, kv_num_heads=4, is_causal=1),
    _attention(_GROUPED, q_num_heads=4, kv_num_heads=2),
    _attention([*_four(), None, None, None, i64(7, 4)], opset=24),
    _attention([*_four(), None, None, None, i64(7, 5)], opset=24, is_causal=1),
    _attention([*_four(), f32(5, 6)], opset=24, symbolic=False),
    _attention(_four(), opset=25, left_window_size=2, right_window_size=1),
    _attention(_four(), softmax_precision=11),
]
_ANGLES = [f32(9, 4), f32(9, 4), ints(2, 5, low=0, high=9)]
ROTARY_CASES: list[Case] = [
    Case(
        "RotaryEmbedding",
        [x, *angles],
        {"interleaved": i, "num_heads": 3} if x.ndim == 3 else {"interleaved": i},
        fixed=[(0, x.ndim - 1)],
    )
    for x in (f32(2, 3, 5, 8), f32(2, 5, 24))
    for angles in (_ANGLES, [f32(2, 5, 4), f32(2, 5, 4)])
    for i in (0, 1)
] + [
    Case(
        "RotaryEmbedding",
        [f32(2, 3, 5, 12), *_ANGLES],
        {"rotary_embedding_dim": 8},
        fixed=[(0, 3)],
    )
]
