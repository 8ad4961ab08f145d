"""Measures how many multiply-adds a second the cores can do at all: FP32, and 8-bit integers.

    python bench/fma_peak.py --threads 2

A generated loop keeps enough independent vector accumulators in registers to hide the latency of
the instruction, and touches no memory. What it reaches is the ceiling that the share of peak is
taken of. The instruction for integers is the best one that sums products of u8 and s8 exactly:
vpdpbusd where there is one, else vpmaddwd on values widened to 16 bits.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import threading
import time
from dataclasses import dataclass

import llvmlite.binding as llvm

ACCUMULATORS = 12  # latency 4 x two units a cycle = 8, and some to spare
STEPS = 1_000_000  # of the loop, a call: some milliseconds
UNROLL = 4


@dataclass(frozen=True)
class Instruction:
    """A row: what the loop consists of.

    Attributes:
        name: As the CPU's manual calls it.
        kind: "f32" or "int8".
        needs: The CPU's features, as LLVM calls them.
        lanes: Elements of an accumulator.
        macs: Multiply-adds a step.
        step: IR that gives {new} of {old} and the vectors %f and %s, of type {v}.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    lanes: int
    macs: int
    step: str

    @property
    def element(self) -> str:
        """LLVM type of an accumulator's elements."""
        return "float" if self.kind == "f32" else "i32"


_FMA = "{new} = call {v} @llvm.fma.v{n}f32({v} {old}, {v} %f, {v} %s)"
_DOT = '{new} = call {v} asm "vpdpbusd $2, $1, $0", "=v,v,v,0"({v} %f, {v} %s, {v} {old})'
# Encoded by VEX: without the prefix an assembler may take the AVX-512 form, which not all have.
_DOT_VEX = (
    '{new} = call {v} asm "{{vex}} vpdpbusd $2, $1, $0", "=x,x,x,0"({v} %f, {v} %s, {v} {old})'
)
_PAIRS = (
    '{new}.p = call {v} asm sideeffect "vpmaddwd $2, $1, $0", "=v,v,v"({v} %f, {v} %s)\n'
    "  {new} = add {v} {old}, {new}.p"
)
_PRODUCTS = "{new}.p = mul {v} {old}, %f\n  {new} = add {v} {new}.p, %s"

# Of each kind the first whose features are there counts.
INSTRUCTIONS = (
    Instruction("vfmadd zmm", "f32", ("avx512f",), 16, 16, _FMA),
    Instruction("vfmadd ymm", "f32", ("avx", "fma"), 8, 8, _FMA),
    Instruction("fmla", "f32", ("neon",), 4, 4, _FMA),
    Instruction("128-bit fma", "f32", (), 4, 4, _FMA),
    Instruction("vpdpbusd zmm", "int8", ("avx512vnni",), 16, 64, _DOT),
    Instruction("vpdpbusd ymm", "int8", ("avxvnni",), 8, 32, _DOT_VEX),
    Instruction("vpmaddwd zmm", "int8", ("avx512bw",), 16, 32, _PAIRS),
    Instruction("vpmaddwd ymm", "int8", ("avx2",), 8, 16, _PAIRS),
    Instruction("128-bit mul", "int8", (), 4, 4, _PRODUCTS),
)
KINDS = ("f32", "int8")


def instruction(kind: str) -> Instruction:
    """The row of `kind` that this CPU gets."""
    features = llvm.get_host_cpu_features()
    fitting = (
        row
        for row in INSTRUCTIONS
        if row.kind == kind and all(features.get(name) for name in row.needs)
    )
    return next(fitting)


def source(row: Instruction) -> str:
    """LLVM text of the loop, with an entry `run(steps, factor, summand)`."""
    vector = f"<{row.lanes} x {row.element}>"
    chains = range(ACCUMULATORS)
    declared = f"declare {vector} @llvm.fma.v{row.lanes}f32({vector}, {vector}, {vector})"
    lines = [
        declared if row.kind == "f32" else "",
        f"define {row.element} @peak(i64 %steps, {vector} %f, {vector} %s) {{",
        "entry:",
        "  br label %loop",
        "loop:",
        "  %step = phi i64 [0, %entry], [%next, %loop]",
    ]
    last = f"{UNROLL - 1}"
    for c in chains:
        start = f"[zeroinitializer, %entry], [%a{c}.{last}, %loop]"
        lines.append(f"  %a{c} = phi {vector} {start}")
    for turn in range(UNROLL):
        for c in chains:
            old = f"%a{c}" if turn == 0 else f"%a{c}.{turn - 1}"
            step = row.step.format(new=f"%a{c}.{turn}", old=old, v=vector, n=row.lanes)
            lines.append(f"  {step}")
    lines += [
        f"  %next = add i64 %step, {UNROLL}",
        "  %more = icmp ult i64 %next, %steps",
        "  br i1 %more, label %loop, label %done",
        "done:",
    ]
    total = f"%a0.{last}"
    plus = "fadd" if row.kind == "f32" else "add"
    for c in chains[1:]:
        lines.append(f"  %s{c} = {plus} {vector} {total}, %a{c}.{last}")
        total = f"%s{c}"
    lines += [
        f"  %first = extractelement {vector} {total}, i32 0",
        f"  ret {row.element} %first",
        "}",
        # Called from ctypes, which passes no vectors: this entry makes them from two numbers.
        f"define {row.element} @run(i64 %steps, {row.element} %factor, {row.element} %summand) {{",
    ]
    for name, scalar in (("f", "factor"), ("s", "summand")):
        zeros = f"<{row.lanes} x i32> zeroinitializer"
        lines += [
            f"  %{name}0 = insertelement {vector} poison, {row.element} %{scalar}, i32 0",
            f"  %{name} = shufflevector {vector} %{name}0, {vector} poison, {zeros}",
        ]
    lines += [
        f"  %r = call {row.element} @peak(i64 %steps, {vector} %f, {vector} %s)",
        f"  ret {row.element} %r",
        "}",
    ]
    return "\n".join(lines)


class PeakLoop:
    """The compiled loop of a kind; `gflops` runs it on several threads at once."""

    def __init__(self, kind: str = "f32") -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()  # of the instructions spelled out
        features = llvm.get_host_cpu_features()
        wide = [features.flatten()] + (["-prefer-256-bit"] if features.get("avx512f") else [])
        self._machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=",".join(wide), opt=2
        )
        self.row = instruction(kind)
        module = llvm.parse_assembly(source(self.row))
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, self._machine)
        self._engine.finalize_object()
        number = ctypes.c_float if kind == "f32" else ctypes.c_int32
        signature = ctypes.CFUNCTYPE(number, ctypes.c_int64, number, number)
        self._run = signature(self._engine.get_function_address("run"))
        self._arguments = (0.5, 1.0) if kind == "f32" else (0x01020304, 0x01010101)
        self._run(STEPS, *self._arguments)

    def gflops(self, threads: int, seconds: float) -> float:
        """The best rate that `threads` threads reached together, in 10^9 operations a second.

        A multiply-add is two operations, of floats or of integers.
        """
        rates: list[list[float]] = [[] for _ in range(threads)]
        start = threading.Barrier(threads)

        def work(mine: list[float]) -> None:
            start.wait()
            deadline = time.perf_counter() + seconds
            while (begin := time.perf_counter()) < deadline:
                self._run(STEPS, *self._arguments)
                operations = 2 * STEPS * ACCUMULATORS * self.row.macs
                mine.append(operations / (time.perf_counter() - begin) / 1e9)

        workers = [threading.Thread(target=work, args=(mine,)) for mine in rates]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(max(mine, default=0.0) for mine in rates)


def main(arguments: list[str] | None = None) -> int:
    """Prints the peaks of one thread and of all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description="Measure the multiply-add peaks of this machine.")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args(arguments)
    for kind in KINDS:
        loop = PeakLoop(kind)
        for threads in sorted({1, options.threads}):
            rate = loop.gflops(threads, options.seconds)
            print(f"{threads} threads: {rate:.0f} G operations/s {kind}, by {loop.row.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
