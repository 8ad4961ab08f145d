"""Compiles one expression, or one elementary function, over whole arrays: for tests of code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Expr, Var
from planish.kernels.cpu.expression import ExprEmitter, Memory
from planish.targets.cpu import CpuTarget, compile_object
from planish.targets.ir import Function, Module, Val, i64
from planish.targets.launch import GuardedBuffer
from planish.targets.link import LinkedCode


def run_expr(
    target: CpuTarget, expr: Expr, operands: Sequence[np.ndarray], count: int
) -> np.ndarray:
    """`expr` at m0 = 0 … count - 1 by vectors, the last one masked. Operands are one row each.

    Vectors start at an address that is not aligned, between guard pages.
    """
    lanes = target.lanes(4)
    module = Module()
    names = ["out", *(f"a{n}" for n in range(len(operands)))]
    f = module.function("run", [("ptr", name) for name in names])
    memory = [
        Memory(f.params[f"a{n}"], (1,), DType.from_numpy(a.dtype)) for n, a in enumerate(operands)
    ]
    out = Memory(f.params["out"], (1,), expr.dtype)

    def at(start: Val, mask: Val | None) -> None:
        emitter = ExprEmitter(
            f, target, lambda dim: i64(int(str(dim))), lanes=lanes, lane_var="m0",
            vars={"m0": start}, operands=memory, mask=mask,
        )  # fmt: skip
        emitter.store(out, (Var("m0"),), emitter.emit(expr))

    whole = count // lanes * lanes
    if whole:
        with f.loop(0, whole, lanes) as loop:
            at(loop.index, None)
    if count > whole:
        at(i64(whole), f.first_lanes(lanes, count - whole))
    f.ret()
    buffers = [_guarded(a) for a in operands]
    result = GuardedBuffer(count * expr.dtype.size, align=expr.dtype.size)
    _call(module, target, [result, *buffers])
    return result.array(expr.dtype.numpy, count).copy()


def run_function(
    target: CpuTarget,
    lanes: int,
    body: Callable[[Function, Sequence[Val]], Val],
    arguments: Sequence[np.ndarray],
    element: str,
) -> np.ndarray:
    """`body` on vectors of arrays whose length is a multiple of the lanes."""
    module = Module()
    names = ["out", *(f"a{n}" for n in range(len(arguments)))]
    f = module.function("run", [("ptr", name) for name in names])
    size, ty = arguments[0].itemsize, f"<{lanes} x {element}>"
    with f.loop(0, arguments[0].size, lanes) as loop:
        place = f.mul(loop.index, size)
        values = [f.load(ty, f.offset(f.params[name], place)) for name in names[1:]]
        f.store(body(f, values), f.offset(f.params["out"], place))
    f.ret()
    result = GuardedBuffer(arguments[0].nbytes, align=size)
    _call(module, target, [result, *map(_guarded, arguments)])
    return result.array(arguments[0].dtype, arguments[0].size).copy()


def _guarded(array: np.ndarray) -> GuardedBuffer:
    buffer = GuardedBuffer(array.nbytes, align=array.itemsize)
    buffer.write(array)
    return buffer


def _call(module: Module, target: CpuTarget, buffers: Sequence[GuardedBuffer]) -> None:
    linked = LinkedCode([compile_object(module.text(), target)])
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(buffers))
    signature(linked.address("run"))(*(buffer.address for buffer in buffers))
