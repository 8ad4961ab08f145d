"""Convolutions and matmuls with constant weights, at and around the limits of tiles, by name."""

from __future__ import annotations

from contractions import EPILOGUES, conv_workload, matmul_workload

from planish.base.shapes import symbol
from planish.kernels.workload import Workload

N, H, W, M, B = map(symbol, ("N", "H", "W", "M", "B"))
SIZES = {"N": 3, "H": 7, "W": 23, "M": 17, "B": 3}  # values of the symbolic sizes
TINY = {"N": 1, "H": 1, "W": 2, "M": 1, "B": 1}

CONVS: dict[str, Workload] = {
    "1x1": conv_workload((1, 7, 50), (33, 7, 1)),
    "one_of_all": conv_workload((1, 1, 1), (1, 1, 1)),
    "3x3": conv_workload((2, 5, 9, 13), (17, 5, 3, 3), pads=1),
    "3x3_odd_pads": conv_workload((1, 4, 8, 7), (16, 4, 3, 3), pads=(0, 2, 1, 0)),
    "3x3_stride": conv_workload((1, 6, 11, 15), (48, 6, 3, 3), stride=2, pads=1),
    "3x3_dilated": conv_workload((1, 3, 9, 14), (8, 3, 3, 3), dilation=(2, 3), pads=3),
    "stride_over_kernel": conv_workload((1, 6, 9, 9), (16, 6, 1, 1), stride=(3, 2)),
    "kernel_over_input": conv_workload((1, 4, 3, 2), (9, 4, 5, 5), pads=2),
    "padding_alone": conv_workload((1, 4, 3, 3), (9, 4, 1, 1), pads=2),
    "short_rows": conv_workload((1, 4, 9, 2), (36, 4, 3, 3), pads=1),
    "one_column": conv_workload((1, 4, 30, 1), (36, 4, 3, 1), pads=(1, 0, 1, 0)),
    "7x7_nchw": conv_workload((2, 3, 14, 20), (20, 3, 7, 7), stride=2, pads=3, nchw_in=True),
    "1d": conv_workload((2, 6, 31), (10, 6, 5), pads=(4, 0), dilation=2),
    "3d": conv_workload((1, 3, 4, 5, 6), (18, 3, 2, 3, 3), pads=(0, 1, 1, 1, 1, 1)),
    "groups": conv_workload((1, 12, 6, 7), (40, 3, 3, 3), group=4, pads=1),
    "groups_of_one": conv_workload((1, 6, 5, 9), (6, 1, 3, 3), group=6, pads=1),
    "split": conv_workload((1, 9, 5, 7), (53, 9, 1, 1), split=(20, 16, 1, 16), epilogue="residual"),
    "split_groups": conv_workload((1, 8, 30), (36, 4, 1), group=2, split=(10, 26)),
    "split_plain": conv_workload((1, 8, 30), (36, 8, 1), split=(18, 18), epilogue="none"),
    "slices": conv_workload((2, 6, 7, 8), (19, 6, 3, 3), pads=1, wide_in=11, wide_out=40),
    "nchw_out": conv_workload(
        (2, 6, 7, 8), (19, 6, 3, 3), pads=1, nchw_out=True, epilogue="residual"
    ),
    "batch": conv_workload((N, 6, 5, 9), (19, 6, 3, 3), pads=1, epilogue="residual"),
    "batch_1x1": conv_workload((N, 6, 49), (19, 6, 1), epilogue="masked"),
    "width": conv_workload((N, 6, W), (19, 6, 1), epilogue="residual"),
    "height_width": conv_workload((1, 6, H, W), (19, 6, 3, 3), pads=1),
    "height_width_stride": conv_workload(
        (N, 3, H, W), (18, 3, 5, 5), stride=2, pads=2, nchw_in=True
    ),
    "height": conv_workload((1, 6, H, 12), (19, 6, 3, 3), pads=2, dilation=(2, 1)),
    **{
        f"then_{name}": conv_workload((1, 5, 4, 9), (21, 5, 1, 1), epilogue=name)
        for name in EPILOGUES
    },
}
MATMULS: dict[str, Workload] = {
    "vector": matmul_workload((1, 70), (70, 50)),
    "square": matmul_workload((48, 48), (48, 48)),
    "odd": matmul_workload((13, 31), (31, 37)),
    "narrow": matmul_workload((13, 31), (31, 1)),
    "one_step": matmul_workload((7, 1), (1, 18)),
    "batches": matmul_workload((3, 5, 20), (20, 33)),
    "more_batches": matmul_workload((2, 3, 5, 20), (20, 33), epilogue="residual"),
    "bound_batches": matmul_workload((2, 3, 5, 20), (20, 33), epilogue="masked"),
    "transposed_a": matmul_workload((11, 20), (20, 33), a_strides=(1, 11)),
    "gap_in_a": matmul_workload((3, 5, 20), (20, 33), a_strides=(200, 32, 1)),
    "rows": matmul_workload((M, 20), (20, 33)),
    "batch": matmul_workload((B, 5, 20), (20, 33), epilogue="residual"),
    "product": matmul_workload((B * 8, 20), (20, 33), epilogue="pixel_mask"),
    "batch_rows": matmul_workload((B, M, 20), (20, 33), epilogue="pixel_mask"),
    "then_gelu": matmul_workload((9, 12), (12, 37), epilogue="gelu"),
    "then_masked": matmul_workload((9, 12), (12, 37), epilogue="masked"),
}
