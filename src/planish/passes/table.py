"""The passes in order: the builder's log prints their stages in this order too."""

from __future__ import annotations

from planish.passes import (
    expand_operators,
    fold_constants,
    fold_scales,
    merge_duplicates,
    remove_dead,
    remove_noops,
)
from planish.passes.rewrite import Pass

PASSES: tuple[Pass, ...] = (
    remove_dead.PASS,
    remove_noops.PASS,
    fold_constants.PASS,
    expand_operators.PASS,
    fold_constants.PASS,
    merge_duplicates.PASS,
    fold_scales.PASS,
    remove_noops.PASS,
    remove_dead.PASS,
)
