"""Instructions that multiply bytes or 16-bit numbers and add up neighbouring products as i32."""

from __future__ import annotations

from planish.targets.ir import Function, Val, element_bytes, vector

_PAIRS = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}  # by lanes


def add_quads(f: Function, total: Val, x: Val, weights: Val) -> Val:
    """Four products u8 · s8 a lane (vpdpbusd); sums wrap, products are never saturated."""
    lanes = total.lanes
    bytes_ = [f.cast("bitcast", v, vector("i8", 4 * lanes)) for v in (x, weights)]
    return f.call(f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", total.ty, [total, *bytes_])


def sum_pairs(f: Function, x: Val, weights: Val) -> Val:
    """Two products s16 · s16 a lane (pmaddwd). LLVM joins it with an addition where it can."""
    lanes = x.lanes * element_bytes(x.ty) // 4
    pairs = [f.cast("bitcast", v, vector("i16", 2 * lanes)) for v in (x, weights)]
    return f.call(f"llvm.x86.{_PAIRS[lanes]}", vector("i32", lanes), pairs)
