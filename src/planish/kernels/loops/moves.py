"""Copies of short floats as copies of bits: what is only moved is not converted.

map: (select inside (load:f16 0 …) 0x1p+0:f16)    →    (select inside (load:u16 0 …) 15360:u16)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr, Load, Temp, walk
from planish.base.nest import Stage
from planish.kernels.workload import Operand, Workload

_SHORT = (DType.F16, DType.BF16)


def moved_as_bits(w: Workload) -> Workload:
    """The nest over u16 where it only moves f16 or bf16; else the nest itself."""
    nest = w.nest
    if nest is None or not all(map(_moves, nest.stages)):
        return w
    stages = tuple(replace(s, expr=_bits(s.expr), dtype=DType.U16) for s in nest.stages)
    return replace(
        w,
        inputs=tuple(map(_retyped, w.inputs)),
        outputs=tuple(map(_retyped, w.outputs)),
        nest=replace(nest, stages=stages),
    )


def _moves(stage: Stage) -> bool:
    """Whether a stage stores elements or literals of a short float, whichever a check says."""
    if stage.combiner or stage.store is None or stage.dtype not in _SHORT:
        return False
    indices = [e for at in stage.store.index for e in walk(at)]
    return _is_moved(stage.expr, stage.dtype) and not any(map(_reads_short, indices))


def _is_moved(expr: Expr, dtype: DType) -> bool:
    match expr:
        case Load(index=at):
            inside = (e for position in at for e in walk(position))
            return expr.dtype is dtype and not any(map(_reads_short, inside))
        case Const():
            return expr.dtype is dtype
        case Call(fn="select", args=(condition, yes, no)):
            plain = not any(map(_reads_short, walk(condition)))
            return plain and _is_moved(yes, dtype) and _is_moved(no, dtype)
    return False


def _reads_short(e: Expr) -> bool:
    return isinstance(e, Load | Temp) and e.dtype in _SHORT


def _bits(expr: Expr) -> Expr:
    match expr:
        case Load():
            return replace(expr, dtype=DType.U16)
        case Const(value=value, dtype=dtype):
            raw = np.array(value, np.float32).astype(dtype.numpy).view(np.uint16)
            return Const(int(raw), DType.U16)
        case Call(fn=fn, args=(condition, yes, no)):
            return Call(fn, (condition, _bits(yes), _bits(no)), DType.U16)
    return expr


def _retyped(operand: Operand) -> Operand:
    return replace(operand, dtype=DType.U16) if operand.dtype in _SHORT else operand
