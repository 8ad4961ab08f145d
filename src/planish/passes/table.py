"""The passes in order: the builder's log prints their stages in this order too.

Between the two tables a float graph may be quantised: the second makes integer contractions of what
is quantised then, or was in the file. It finds nothing in a graph of floats.
"""

from __future__ import annotations

from planish.passes import (
    distribute_pointwise,
    expand_operators,
    fold_constants,
    fold_expands,
    fold_pads,
    fold_requants,
    fold_scales,
    fold_shuffles,
    fold_sizes,
    fold_weights,
    fuse_activations,
    fuse_attention,
    fuse_integers,
    fuse_norms,
    fuse_softmax,
    inline_branches,
    join_pairs,
    join_views,
    merge_duplicates,
    move_quants,
    remove_dead,
    remove_noops,
    repeat_dequants,
    retype_signed,
    simplify_concats,
    sink_transposes,
    sink_views,
    slice_gathers,
    split_outputs,
)
from planish.passes.rewrite import Pass

_NOOPS = (
    remove_noops.PASS,
    join_pairs.PASS,
    join_views.PASS,
    slice_gathers.PASS,
    simplify_concats.PASS,
)
_CONSTANTS = (fold_constants.PASS, inline_branches.PASS, fold_sizes.PASS, fold_expands.PASS)
_SINKING = (sink_views.PASS, sink_transposes.PASS, distribute_pointwise.PASS)

PASSES: tuple[Pass, ...] = (
    remove_dead.PASS,
    fold_constants.PASS,
    inline_branches.PASS,
    *_NOOPS,
    expand_operators.PASS,
    *_CONSTANTS,
    merge_duplicates.PASS,
    *_NOOPS,
    fuse_softmax.PASS,
    fuse_norms.PASS,
    fuse_activations.PASS,
    fuse_attention.PASS,
    fold_pads.PASS,
    *_SINKING,
    *_NOOPS,
    *_SINKING,
    *_NOOPS,
    fold_constants.PASS,
    fold_scales.PASS,
    *_NOOPS,
    fold_shuffles.PASS,
    merge_duplicates.PASS,
    split_outputs.PASS,
    *_NOOPS,
    remove_dead.PASS,
)

INTEGER_PASSES: tuple[Pass, ...] = (
    move_quants.PASS,
    fuse_integers.PASS,
    fold_weights.PASS,
    *_CONSTANTS,
    fold_requants.PASS,
    retype_signed.PASS,
    expand_operators.PASS,
    fold_constants.PASS,
    *_NOOPS,
    fold_pads.PASS,
    *_SINKING,
    *_NOOPS,
    merge_duplicates.PASS,
    repeat_dequants.PASS,
    remove_dead.PASS,
)
