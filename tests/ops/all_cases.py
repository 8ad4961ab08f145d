"""Every case of the room."""

from __future__ import annotations

from case import Case
from cases_attention import ATTENTION_CASES, ROTARY_CASES
from cases_contraction import CONTRACTION_CASES, EINSUM_CASES, INTEGER_CASES
from cases_moves import MOVE_CASES
from cases_pointwise import POINTWISE_CASES
from cases_reduction import REDUCTION_CASES
from cases_rest import REST_CASES

CASES: list[Case] = [
    *POINTWISE_CASES,
    *MOVE_CASES,
    *REDUCTION_CASES,
    *CONTRACTION_CASES,
    *REST_CASES,
    *ATTENTION_CASES,
    *ROTARY_CASES,
    *EINSUM_CASES,
    *INTEGER_CASES,
]
