"""Small plans made by hand, with kernels written straight in IR, for the tests of the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.shapes import Dim, Shape, product, symbol
from planish.plan import (
    HeapBuffer,
    NativeStep,
    PhaseCall,
    Plan,
    Profile,
    Ref,
    Step,
    TensorInfo,
)
from planish.targets.cpu import compile_object, host_target
from planish.targets.driver import driver_object
from planish.targets.ir import Module, Val, real
from planish.targets.requirements import requirements

TARGET = host_target(threads=2)
N = symbol("N")

_KERNEL = [("ptr", "args"), ("i64", "begin"), ("i64", "end"), ("ptr", "scratch")]


def _kernels() -> str:
    module = Module()
    # add1: unit u adds 1 to element u. args: in, out
    f = module.function("add1", _KERNEL)
    args = f.params["args"]
    source, target = f.load("ptr", args), f.load("ptr", f.offset(args, 8))
    with f.loop(f.params["begin"], f.params["end"]) as units:
        at = f.mul(units.index, 4)
        value = f.fadd(f.load("float", f.offset(source, at)), real(1.0))
        f.store(value, f.offset(target, at))
    f.ret()
    # mirror: element u of the output is element size-1-u of the input. args: in, out; param: size
    f = module.function("mirror", _KERNEL)
    args = f.params["args"]
    source, target = f.load("ptr", args), f.load("ptr", f.offset(args, 8))
    last = f.sub(f.load("i64", f.offset(args, 16)), 1)
    with f.loop(f.params["begin"], f.params["end"]) as units:
        value = f.load("float", f.offset(source, f.mul(f.sub(last, units.index), 4)))
        f.store(value, f.offset(target, f.mul(units.index, 4)))
    f.ret()
    # add: out[u] = a[u] + b[u]. args: a, b, out
    f = module.function("add", _KERNEL)
    args = f.params["args"]
    a, b, out = (f.load("ptr", f.offset(args, 8 * n)) for n in range(3))
    with f.loop(f.params["begin"], f.params["end"]) as units:
        at = f.mul(units.index, 4)
        total = f.fadd(f.load("float", f.offset(a, at)), f.load("float", f.offset(b, at)))
        f.store(total, f.offset(out, at))
    f.ret()
    # through: as add1, by way of the worker's scratch. args: in, out
    f = module.function("through", _KERNEL)
    args, scratch = f.params["args"], f.params["scratch"]
    source, target = f.load("ptr", args), f.load("ptr", f.offset(args, 8))
    with f.loop(f.params["begin"], f.params["end"]) as units:
        at = f.mul(units.index, 4)
        f.store(f.load("float", f.offset(source, at)), scratch)
        f.line("fence seq_cst")
        f.store(f.fadd(f.load("float", scratch), real(1.0)), f.offset(target, at))
    f.ret()
    # half: out[u] = in[u] * 0.5, a denormal where in[u] is the least normal. args: in, out
    f = module.function("half", _KERNEL)
    args = f.params["args"]
    source, target = f.load("ptr", args), f.load("ptr", f.offset(args, 8))
    with f.loop(f.params["begin"], f.params["end"]) as units:
        at = f.mul(units.index, 4)
        value = f.fmul(f.load("float", f.offset(source, at)), real(0.5))
        f.store(value, f.offset(target, at))
    f.ret()
    # spin: reads memory `rounds` times on each unit, to take long. args: in, out; param: rounds
    f = module.function("spin", _KERNEL)
    args = f.params["args"]
    target, rounds = f.load("ptr", f.offset(args, 8)), f.load("i64", f.offset(args, 16))
    with f.loop(f.params["begin"], f.params["end"]) as units:
        with f.loop(0, rounds):
            f.emit("i64", f"load volatile i64, ptr {args.ref}, align 8")
        f.store(Val("float", "0x3FF0000000000000"), f.offset(target, f.mul(units.index, 4)))
    f.ret()
    return module.text()


OBJECTS = (driver_object(TARGET), compile_object(_kernels(), TARGET))


def step(
    function: str | Sequence[PhaseCall],
    args: Sequence[Ref | None],
    units: Dim,
    *,
    params: Sequence[Dim] = (),
    group: int = 0,
    weight: float = 1.0,
    barrier: bool = True,
    name: str = "",
) -> NativeStep:
    """A step of one phase, or of the phases given."""
    phases = (
        (PhaseCall(function, units, barrier),) if isinstance(function, str) else tuple(function)
    )
    return NativeStep(
        name=name or f"{phases[0].symbol}_{group}",
        origin=("node",),
        args=tuple(args),
        params=tuple(params),
        phases=phases,
        group=group,
        weight=weight,
        kernel="test.kernel",
        tactic="a=1",
        reason=("the only one",),
        workload="test",
        flops=10,
    )


def plan(
    steps: Sequence[Step],
    *,
    inputs: Sequence[tuple[str, Shape]] = (("x", (N,)),),
    outputs: Sequence[tuple[str, Shape]] = (("y", (N,)),),
    **fields: Any,
) -> Plan:
    """A plan over f32 tensors."""
    values: dict[str, Any] = {
        "name": "tiny",
        "inputs": tuple(TensorInfo(n, DType.F32, s) for n, s in inputs),
        "outputs": tuple(TensorInfo(n, DType.F32, s) for n, s in outputs),
        "profiles": (Profile((("N", 0, 16, 1 << 20),)),),
        "steps": tuple(steps),
        "objects": OBJECTS,
        "weights": (),
        "arena": 0,
        "worker_scratch": 64,
        "heap": (),
        "threads": 2,
        "target": requirements(TARGET),
        "provenance": {"made_by": "a test"},
    }
    if not any(not isinstance(d, int) for _, s in inputs for d in s):
        values["profiles"] = ()
    return Plan(**{**values, **fields})


X, Y = Ref("input", 0), Ref("output", 0)


def add1_plan(**fields: Any) -> Plan:
    """y = x + 1, one step."""
    return plan([step("add1", [X, Y], N)], **fields)


def static_plan(shape: Shape = (1, 8), **fields: Any) -> Plan:
    """y = x + 1 with fixed shapes."""
    units = product(shape)
    return plan(
        [step("add1", [X, Y], units)], inputs=[("x", shape)], outputs=[("y", shape)], **fields
    )


def chain_plan(length: int = 6, size: int = 64, **fields: Any) -> Plan:
    """`length` mirrors in the arena, each needing all of the one before, then y = x' + 1.

    A missing barrier gives wrong values. With an even `length` y = x + 1.
    """
    spots = [Ref("arena", 0, 0), Ref("arena", 0, 4 * size)]
    refs = [X, *(spots[n % 2] for n in range(length))]
    steps: list[Step] = [
        step("mirror", refs[n : n + 2], N, params=[N], group=n) for n in range(length)
    ]
    steps.append(step("add1", [refs[-1], Y], N, group=length, barrier=True))
    profiles = (Profile((("N", 0, 16, size),)),)
    return plan(steps, arena=8 * size, profiles=profiles, **fields)


def heap_plan() -> Plan:
    """y = x + 2, through a heap buffer."""
    h = Ref("heap", 0)
    return plan(
        [step("add1", [X, h], N), step("add1", [h, Y], N, group=1)], heap=(HeapBuffer(N * 4),)
    )


def ramp(size: int, seed: int = 0) -> np.ndarray:
    """Values that all differ."""
    return np.arange(size, dtype=np.float32) + np.float32(seed)
