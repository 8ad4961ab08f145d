"""The passes in order: the builder's log prints their stages in this order too."""

from __future__ import annotations

from planish.passes import (
    distribute_pointwise,
    expand_operators,
    fold_constants,
    fold_expands,
    fold_pads,
    fold_scales,
    fold_shuffles,
    fold_sizes,
    fuse_activations,
    fuse_attention,
    fuse_norms,
    fuse_softmax,
    inline_branches,
    join_pairs,
    join_views,
    merge_duplicates,
    remove_dead,
    remove_noops,
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
