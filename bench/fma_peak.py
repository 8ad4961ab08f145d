"""Measures how many single-precision FMAs a second the cores can do at all.

    python bench/fma_peak.py --threads 2

A generated loop keeps enough independent vector accumulators in registers to hide the latency of an
FMA, and touches no memory. What it reaches is the ceiling that the share of peak is taken of.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import threading
import time

import llvmlite.binding as llvm

ACCUMULATORS = 12  # latency 4 x two units a cycle = 8, and some to spare
STEPS = 1_000_000  # of the loop, a call: some milliseconds
UNROLL = 4
# A feature of the host -> floats in its widest vector; the first that is there counts.
WIDTHS = (("avx512f", 16), ("avx", 8), ("neon", 4), ("sse", 4))


def vector_width() -> int:
    """Floats in the widest vector of this CPU."""
    features = llvm.get_host_cpu_features()
    return next((width for name, width in WIDTHS if features.get(name)), 4)


def _source(width: int) -> str:
    vector = f"<{width} x float>"
    chains = range(ACCUMULATORS)
    lines = [
        f"declare {vector} @llvm.fma.v{width}f32({vector}, {vector}, {vector})",
        f"define float @peak(i64 %steps, {vector} %factor, {vector} %summand) {{",
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
            before = f"%a{c}" if turn == 0 else f"%a{c}.{turn - 1}"
            call = f"@llvm.fma.v{width}f32({vector} {before}, {vector} %factor, {vector} %summand)"
            lines.append(f"  %a{c}.{turn} = call {vector} {call}")
    lines += [
        f"  %next = add i64 %step, {UNROLL}",
        "  %more = icmp ult i64 %next, %steps",
        "  br i1 %more, label %loop, label %done",
        "done:",
    ]
    total = f"%a0.{last}"
    for c in chains[1:]:
        lines.append(f"  %s{c} = fadd {vector} {total}, %a{c}.{last}")
        total = f"%s{c}"
    lines += [f"  %first = extractelement {vector} {total}, i32 0", "  ret float %first", "}"]
    # Called from ctypes, which passes no vectors: this entry makes them from two floats.
    lines += [
        "define float @run(i64 %steps, float %factor, float %summand) {",
        f"  %f0 = insertelement {vector} poison, float %factor, i32 0",
        f"  %f = shufflevector {vector} %f0, {vector} poison, <{width} x i32> zeroinitializer",
        f"  %s0 = insertelement {vector} poison, float %summand, i32 0",
        f"  %s = shufflevector {vector} %s0, {vector} poison, <{width} x i32> zeroinitializer",
        f"  %r = call float @peak(i64 %steps, {vector} %f, {vector} %s)",
        "  ret float %r",
        "}",
    ]
    return "\n".join(lines)


class PeakLoop:
    """The compiled loop; `gflops` runs it on several threads at once."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        wide = [features.flatten()] + (["-prefer-256-bit"] if features.get("avx512f") else [])
        self._machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=",".join(wide), opt=2
        )
        self.width = vector_width()
        module = llvm.parse_assembly(_source(self.width))
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, self._machine)
        self._engine.finalize_object()
        signature = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float, ctypes.c_float)
        self._run = signature(self._engine.get_function_address("run"))
        self._run(STEPS, 0.5, 1.0)

    def gflops(self, threads: int, seconds: float) -> float:
        """The best rate that `threads` threads reached together, in GFLOP/s, an FMA being two."""
        rates: list[list[float]] = [[] for _ in range(threads)]
        start = threading.Barrier(threads)

        def work(mine: list[float]) -> None:
            start.wait()
            deadline = time.perf_counter() + seconds
            while (begin := time.perf_counter()) < deadline:
                self._run(STEPS, 0.5, 1.0)
                flops = 2 * STEPS * ACCUMULATORS * self.width
                mine.append(flops / (time.perf_counter() - begin) / 1e9)

        workers = [threading.Thread(target=work, args=(mine,)) for mine in rates]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(max(mine, default=0.0) for mine in rates)


def main(arguments: list[str] | None = None) -> int:
    """Prints the peak of one thread and of all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description="Measure the FMA peak of this machine.")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args(arguments)
    loop = PeakLoop()
    for threads in sorted({1, options.threads}):
        rate = loop.gflops(threads, options.seconds)
        print(f"{threads} threads: {rate:.0f} GFLOP/s f32, vectors of {loop.width}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
