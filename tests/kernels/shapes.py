"""What the conformance test runs: for each workload op, a table of workloads by name.

Sizes lie below, at, above, and at no multiple of the tiles; inputs and outputs are strided; each
epilogue occurs. A kernel that joins the catalogue is tested by the rows of its op; an op joins by
a row in `WORKLOADS`.
"""

from __future__ import annotations

from collections.abc import Mapping

import byte_shapes
import contraction_shapes
import specialised_shapes
from nests import ENVS, NESTS

from planish.kernels.workload import Workload

WORKLOADS: dict[str, Mapping[str, Workload]] = {
    "nest": NESTS,
    "conv": {**contraction_shapes.CONVS, **specialised_shapes.CONVS, **byte_shapes.BYTE_CONVS},
    "conv_transpose": specialised_shapes.TRANSPOSED,
    "matmul": {
        **contraction_shapes.MATMULS,
        **specialised_shapes.MATMULS,
        **byte_shapes.BYTE_MATMULS,
    },
    "attention": specialised_shapes.ATTENTIONS,
}
_SIZES = {**specialised_shapes.SIZES, **contraction_shapes.SIZES}


def environments(workload: Workload) -> tuple[Mapping[str, int], ...]:
    """Values of the symbolic sizes to run a workload with."""
    if not workload.params:
        return ({},)
    return ENVS if workload.op == "nest" else (_SIZES,)
