"""Sums of dequantised data as sums of integers, multiplied by the scale once.

    t0:f32 = sum r0<9: (mul (cast f32 (sub (cast i32 x) z)) s)            t1 = … t0 …
    →  t0:u16 = sum r0<9: (cast u16 x)          t1 = … (mul (cast f32 (sub (cast i32 t0) 9·z)) s) …

Where checks leave out some of the elements, z is subtracted from each. The sums are exact, and
rounded once instead of at each step. Sums that are stored as they are stay, and those whose number
of elements is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr, Load, Temp, call, const, transform
from planish.base.nest import Nest, Stage
from planish.base.shapes import product
from planish.kernels.loops.ranges import Range, range_of, whole_range

_SHORT = (DType.U16, DType.I16, DType.I32)  # types of sums, the best first
_BYTES = (DType.U8, DType.I8)


@dataclass(frozen=True)
class _Sum:
    """select(guard, (data - zero) * scale, 0), to be summed.

    Attributes:
        guard: Which elements count; None for all.
        data: An 8-bit operand.
        zero: Its zero point.
        scale: The scale, or None for 1.
    """

    guard: Expr | None
    data: Load
    zero: int
    scale: Const | None


def sum_integers(nest: Nest) -> Nest:
    """The nest with its sums of dequantised data as sums of integers."""
    for number, stage in enumerate(nest.stages):
        count = product(stage.reduce)
        if stage.combiner != "sum" or stage.store is not None or not isinstance(count, int):
            continue
        real = stage.dtype is DType.F32 and stage.expr.dtype is DType.F32
        found = _read(stage.expr) if real else None
        dtype = None if found is None else _type_of(found, count)
        if found is None or dtype is None:
            continue
        made = replace(stage, expr=_element(found, dtype), dtype=dtype)
        later = [_reread(s, number, found, dtype, count) for s in nest.stages[number + 1 :]]
        nest = Nest(nest.outer, (*nest.stages[:number], made, *later))
    return nest


def _read(expr: Expr) -> _Sum | None:
    guard: Expr | None = None
    match expr:
        case Call(fn="select", args=(condition, value, Const(value=0))):
            guard, expr = condition, value
    scale: Const | None = None
    match expr:
        case Call(fn="mul", args=(value, Const() as factor)):
            scale, expr = factor, value
    match expr:
        case Call(fn="cast", args=(Load() as data,)) if data.dtype in _BYTES:
            return _Sum(guard, data, 0, scale)
        case Call(
            fn="cast",
            args=(Call(fn="sub", args=(Call(fn="cast", args=(Load() as data,)), Const() as zero)),),
        ) if data.dtype in _BYTES and zero.dtype is DType.I32 and expr.dtype is DType.F32:
            return _Sum(guard, data, int(zero.value), scale)
    return None


def _type_of(found: _Sum, count: int) -> DType | None:
    """The shortest type that holds the sum and, where it is subtracted inside, the zero point."""
    known = range_of(found.data)
    if found.guard is not None:
        known = Range(known.low - found.zero, known.high - found.zero, nan=False)
    total = Range(min(0, count * known.low), max(0, count * known.high), nan=False)
    return next((t for t in _SHORT if total.within(whole_range(t))), None)


def _element(found: _Sum, dtype: DType) -> Expr:
    whole = call("cast", found.data, dtype=dtype)
    if found.guard is None:
        return whole
    if found.zero:
        whole = call("sub", whole, const(found.zero, dtype))
    return call("select", found.guard, whole, const(0, dtype))


def _reread(stage: Stage, number: int, found: _Sum, dtype: DType, count: int) -> Stage:
    """A later stage, its reads of the sum as what they were."""

    def visit(e: Expr) -> Expr:
        if not isinstance(e, Temp) or e.stage != number:
            return e
        total = call("cast", Temp(number, e.index, dtype), dtype=DType.I32)
        if found.guard is None and found.zero:
            total = call("sub", total, const(found.zero * count, DType.I32))
        value = call("cast", total, dtype=DType.F32)
        return value if found.scale is None else call("mul", value, found.scale)

    return replace(stage, expr=transform(stage.expr, visit))
