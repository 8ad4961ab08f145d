"""Times contraction kernels on the layers of known networks, as a share of the core's FMA peak.

    python bench/kernels.py resnet50                     every config of every layer, best one shown
    python bench/kernels.py resnet50 --layer 3x3 --all   every config of the layers that match
    python bench/kernels.py bert --threads 2 --isa avx2 --cold

Each timing is interleaved with a loop of register-only FMAs on the same workers, so that what else
runs on the machine slows both. `--cold` cycles through copies of the constants that together exceed
the last-level cache, as layers of a large network find theirs.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Expr, Load, Temp, Var, call, const
from planish.base.shapes import evaluate
from planish.kernels.catalogue import KERNELS
from planish.kernels.kernel import Config, Kernel, config_text
from planish.kernels.workload import Operand, Workload, channels_last_strides, dense_strides
from planish.targets.cpu import CpuTarget, compile_object, host_target
from planish.targets.ir import Module, real, vector
from planish.targets.link import LinkedCode

# conv: input NxCxspatial, weights OxCxkernel; matmul: a x b. `add` adds a residual; `x9` counts the
# layer's occurrences.
NETWORKS = {
    "resnet50": """
        conv 1x3x224x224 64x3x7x7 stride=2 pad=3 nchw
        conv 1x64x3136 64x64x1
        conv 1x64x56x56 64x64x3x3 pad=1 x3
        conv 1x64x3136 256x64x1
        conv 1x64x3136 256x64x1 add x3
        conv 1x256x3136 64x256x1 x2
        conv 1x256x3136 128x256x1
        conv 1x128x56x56 128x128x3x3 stride=2 pad=1
        conv 1x128x784 512x128x1 add x4
        conv 1x256x56x56 512x256x1x1 stride=2
        conv 1x512x784 128x512x1 x3
        conv 1x128x28x28 128x128x3x3 pad=1 x3
        conv 1x512x784 256x512x1
        conv 1x256x28x28 256x256x3x3 stride=2 pad=1
        conv 1x256x196 1024x256x1 add x6
        conv 1x512x28x28 1024x512x1x1 stride=2
        conv 1x1024x196 256x1024x1 x5
        conv 1x256x14x14 256x256x3x3 pad=1 x5
        conv 1x1024x196 512x1024x1
        conv 1x512x14x14 512x512x3x3 stride=2 pad=1
        conv 1x512x49 2048x512x1 add x3
        conv 1x1024x14x14 2048x1024x1x1 stride=2
        conv 1x2048x49 512x2048x1 x2
        conv 1x512x7x7 512x512x3x3 pad=1 x2
        matmul 1x2048 2048x1000""",
    "googlenet": """
        conv 1x3x224x224 64x3x7x7 stride=2 pad=3 nchw
        conv 1x64x3136 64x64x1
        conv 1x64x56x56 192x64x3x3 pad=1
        conv 1x192x784 176x192x1 split=64,96,16
        conv 1x96x28x28 128x96x3x3 pad=1
        conv 1x16x28x28 32x16x5x5 pad=2
        conv 1x192x784 32x192x1
        conv 1x256x784 288x256x1 split=128,128,32
        conv 1x128x28x28 192x128x3x3 pad=1
        conv 1x32x28x28 96x32x5x5 pad=2
        conv 1x480x196 304x480x1 split=192,96,16
        conv 1x96x14x14 208x96x3x3 pad=1
        conv 1x112x14x14 224x112x3x3 pad=1
        conv 1x128x14x14 256x128x3x3 pad=1
        conv 1x144x14x14 288x144x3x3 pad=1
        conv 1x160x14x14 320x160x3x3 pad=1
        conv 1x32x14x14 128x32x5x5 pad=2
        conv 1x832x49 448x832x1 split=256,160,32
        conv 1x160x7x7 320x160x3x3 pad=1
        conv 1x192x7x7 384x192x3x3 pad=1
        conv 1x48x7x7 128x48x5x5 pad=2
        matmul 1x1024 1024x1000""",
    "vgg19": """
        conv 1x3x224x224 64x3x3x3 pad=1 nchw
        conv 1x64x224x224 64x64x3x3 pad=1
        conv 1x64x112x112 128x64x3x3 pad=1
        conv 1x128x112x112 128x128x3x3 pad=1
        conv 1x128x56x56 256x128x3x3 pad=1
        conv 1x256x56x56 256x256x3x3 pad=1 x3
        conv 1x256x28x28 512x256x3x3 pad=1
        conv 1x512x28x28 512x512x3x3 pad=1 x3
        conv 1x512x14x14 512x512x3x3 pad=1 x4
        matmul 1x25088 25088x4096
        matmul 1x4096 4096x4096
        matmul 1x4096 4096x1000""",
    "bert": """
        matmul 128x768 768x768 x48
        matmul 128x768 768x2304
        matmul 128x768 768x3072 x12
        matmul 128x3072 3072x768 x12""",
    "vit": """
        conv 1x3x224x224 768x3x16x16 stride=16 nchw
        matmul 197x768 768x2304 x12
        matmul 197x768 768x768 x12
        matmul 197x768 768x3072 x12
        matmul 197x3072 3072x768 x12""",
    "small": """
        conv 1x3x224x224 32x3x3x3 stride=2 pad=1 nchw
        conv 1x32x12544 16x32x1
        conv 1x16x12544 96x16x1
        conv 1x96x3136 24x96x1
        conv 1x24x3136 144x24x1
        conv 1x192x784 32x192x1
        conv 1x64x196 384x64x1
        conv 1x96x196 576x96x1
        conv 1x576x49 160x576x1
        conv 1x160x49 960x160x1
        conv 1x320x49 1280x320x1
        conv 1x16x3025 64x16x1 split=64
        conv 1x16x55x55 64x16x3x3 pad=1
        conv 1x64x13x13 256x64x3x3 pad=1
        conv 1x512x169 1000x512x1""",
}
_PEAK_STEPS = 2000
Times = Callable[[int, int, int, int, int], None]
_TIMES = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64
)


@dataclass(frozen=True)
class Layer:
    """A layer of a network."""

    text: str
    workload: Workload
    flops: int
    count: int


def parse_layer(text: str) -> Layer:
    """Read one line of `NETWORKS`."""
    op, first, second, *rest = text.split()
    a, b = (tuple(map(int, word.split("x"))) for word in (first, second))
    words = dict(word.split("=") for word in rest if "=" in word)
    count = next((int(word[1:]) for word in rest if re.fullmatch(r"x\d+", word)), 1)
    if op == "matmul":
        out = (*a[:-1], b[-1])
        outputs: tuple[tuple[int, ...], ...] = (out,)
        attrs: tuple[tuple[str, int | tuple[int, ...]], ...] = ()
        flops = 2 * int(np.prod(out)) * b[0]
    else:
        rank = len(a) - 2
        stride, pad = int(words.get("stride", 1)), int(words.get("pad", 0))
        spatial = tuple((a[n + 2] + 2 * pad - b[n + 2]) // stride + 1 for n in range(rank))
        widths = tuple(map(int, words.get("split", str(b[0])).split(",")))
        outputs = tuple((a[0], width, *spatial) for width in widths)
        attrs = (
            ("dilations", (1,) * rank),
            ("group", a[1] // b[1]),
            ("pads", (pad,) * 2 * rank),
            ("strides", (stride,) * rank),
        )
        flops = 2 * a[0] * int(np.prod(spatial)) * int(np.prod(b))
    channel = 1 if op == "conv" else len(outputs[0]) - 1
    x = Operand(DType.F32, a, dense_strides(a) if "nchw" in rest else channels_last_strides(a))
    biases = [Operand(DType.F32, (o[channel],), (1,), True) for o in outputs]
    layouts = [Operand(DType.F32, o, channels_last_strides(o)) for o in outputs]
    added = layouts if "add" in rest else []
    workload = Workload(
        op=op,
        inputs=(x, Operand(DType.F32, b, dense_strides(b), True), *biases, *added),
        outputs=tuple(layouts),
        attrs=attrs,
        epilogue=tuple(
            _epilogue(2 + n, channel, 2 + len(outputs) + n if added else 0, len(o))
            for n, o in enumerate(outputs)
        ),
    )
    return Layer(text.strip(), workload, flops, count)


def _epilogue(bias: int, channel: int, added: int, rank: int) -> Expr:
    """relu(acc + bias [+ operand `added`])."""
    total = Temp(0, (), DType.F32)
    total = call("add", total, Load(bias, (Var(f"o{channel}"),), DType.F32))
    if added:
        index = tuple(Var(f"o{axis}") for axis in range(rank))
        total = call("add", total, Load(added, index, DType.F32))
    return call("max", total, const(0, DType.F32))


class Workers:
    """Runs a native function on several pinned threads at once and takes the time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._cores = sorted(os.sched_getaffinity(0))

    def time(self, calls: Sequence[Callable[[], None]]) -> float:
        """CPU seconds of the worker that took longest; what else the cores do does not count."""
        if len(calls) == 1:
            start = time.thread_time()
            calls[0]()
            return time.thread_time() - start
        gate = threading.Barrier(len(calls))
        spans: list[float] = []

        def run(number: int) -> None:
            os.sched_setaffinity(0, {self._cores[number % len(self._cores)]})
            gate.wait()
            start = time.thread_time()
            calls[number]()
            spans.append(time.thread_time() - start)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(spans)


def peak_function(target: CpuTarget) -> tuple[LinkedCode, Callable[[int, int], None], int]:
    """A loop of independent FMAs, and the operations that a call with n steps does."""
    module, sums = Module(), 12 if target.registers < 32 else 24
    f = module.function("peak", [("ptr", "out"), ("i64", "steps")])
    ty = vector("float", target.lanes())
    a, b = f.load(ty, f.params["out"]), f.load(ty, f.offset(f.params["out"], 64))
    with f.loop(0, f.params["steps"], init=[real(n, ty) for n in range(sums)]) as loop:
        loop.carry([f.fma(a, b, value, fused=target.fma) for value in loop.carried])
    for n, value in enumerate(loop.results):
        f.store(value, f.offset(f.params["out"], 64 * n))
    f.ret()
    linked = LinkedCode([compile_object(module.text(), target)])
    call_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    function = call_type(linked.address("peak"))
    return linked, function, 2 * sums * target.lanes()


def times_wrapper(address: int, copies: int, slots: int) -> str:
    """IR of a function that calls a phase `times` times, each on the next copy of the operands."""
    return f"""
define void @times(ptr %args, i64 %begin, i64 %end, ptr %private, i64 %times) {{
entry:
  br label %loop
loop:
  %n = phi i64 [0, %entry], [%next, %loop]
  %copy = urem i64 %n, {copies}
  %at = mul i64 %copy, {slots * 8}
  %mine = getelementptr i8, ptr %args, i64 %at
  %phase = inttoptr i64 {address} to ptr
  call void %phase(ptr %mine, i64 %begin, i64 %end, ptr %private)
  %next = add i64 %n, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""


def aligned(data: np.ndarray, align: int = 64) -> np.ndarray:
    """A copy that starts at a multiple of `align` bytes."""
    raw = np.empty(data.nbytes + align, np.uint8)
    start = -raw.ctypes.data % align
    view = raw[start : start + data.nbytes].view(data.dtype).reshape(data.shape)
    view[...] = data
    return view


class Tactic:
    """One config of one kernel, ready to run."""

    def __init__(
        self, kernel: Kernel, layer: Layer, config: Config, target: CpuTarget, cold: bool
    ) -> None:
        w = layer.workload
        started = time.perf_counter()
        source = kernel.emit(w, config, target)
        emitted = time.perf_counter()
        code = compile_object(source.text, target)
        self.emit_ms = (emitted - started) * 1e3
        self.compile_ms = (time.perf_counter() - emitted) * 1e3
        self.linked = [LinkedCode([code])]
        rng = np.random.default_rng(0)
        arrays = []
        for number, operand in enumerate(w.inputs):
            shape = tuple(int(str(d)) for d in operand.shape)
            data = rng.standard_normal(shape, np.float32)
            if operand.const and kernel.pack is not None:
                data = kernel.pack(w, config, target, number, data)
            arrays.append(data.reshape(-1))
        arrays += [np.zeros(int(np.prod(o.shape)), np.float32) for o in w.outputs]
        constant = [operand.const for operand in (*w.inputs, *w.outputs)]
        total = sum(a.nbytes for a, const in zip(arrays, constant, strict=True) if const)
        copies = max(1, min(256, -(-2 * target.l3 // total))) if cold else 1
        scratch = max(1, evaluate(source.scratch, {}))
        self.kept = [[aligned(a) for a in arrays]]
        for _ in range(copies - 1):
            first = zip(self.kept[0], constant, strict=True)
            self.kept.append([aligned(a) if const else a for a, const in first])
        self.scratch = np.zeros(scratch + 64, np.uint8)
        self.private = [
            np.zeros(source.worker_scratch + 64, np.uint8) for _ in range(target.threads)
        ]
        slots = []
        for copy in self.kept:
            slots += [a.ctypes.data for a in copy]
            slots.append(-(-self.scratch.ctypes.data // 64) * 64)
        self.slots = (ctypes.c_int64 * len(slots))(*slots)
        self.phases = []
        for phase in source.phases:
            address = self.linked[0].address(phase.symbol)
            wrapper = times_wrapper(address, copies, len(arrays) + 1)
            linked = LinkedCode([compile_object(wrapper, target)])
            units = evaluate(phase.units, {})
            bounds = [units * n // target.threads for n in range(target.threads + 1)]
            self.linked.append(linked)
            self.phases.append((_TIMES(linked.address("times")), bounds))

    def time(self, workers: Workers, times: int) -> float:
        """Seconds of a run, phase by phase."""
        total = 0.0
        for function, bounds in self.phases:
            calls = [self._call(function, worker, bounds, times) for worker in range(workers.count)]
            total += workers.time(calls) / times
        return total

    def _call(
        self, function: Times, worker: int, bounds: list[int], times: int
    ) -> Callable[[], None]:
        private = -(-self.private[worker].ctypes.data // 64) * 64
        begin, end = bounds[worker], bounds[worker + 1]
        return lambda: function(ctypes.addressof(self.slots), begin, end, private, times)


def share_of_peak(
    tactics: Sequence[Tactic],
    layer: Layer,
    target: CpuTarget,
    peak: tuple[LinkedCode, Callable[[int, int], None], int],
    rounds: int,
) -> list[tuple[float, float, float]]:
    """Each tactic's best (GFLOP/s a core, share of the peak, seconds), in interleaved rounds."""
    _, peak_call, peak_flops = peak
    workers = Workers(target.threads)
    outs = [aligned(np.ones(512, np.float32)) for _ in range(target.threads)]
    peak_steps = _PEAK_STEPS * 30

    def peak_time() -> float:
        calls = [(lambda out=out: peak_call(out.ctypes.data, peak_steps)) for out in outs]
        return workers.time(calls) / (peak_flops * peak_steps)

    repeats = []
    for tactic in tactics:
        once = min(tactic.time(workers, 1) for _ in range(2))
        repeats.append(max(1, int(3e-3 / max(once, 1e-6))))
    best_peak = min(peak_time() for _ in range(3))
    best = [float("inf")] * len(tactics)
    for _ in range(rounds):
        best_peak = min(best_peak, peak_time())
        for n, tactic in enumerate(tactics):
            best[n] = min(best[n], tactic.time(workers, repeats[n]))
    per_core = layer.flops / target.threads
    return [(per_core / t / 1e9, per_core / t * best_peak, t) for t in best]


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=[*NETWORKS, "all"])
    parser.add_argument("--layer", default="", help="only layers whose text contains this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", default="")
    parser.add_argument("--kernel", default="", help="only kernels whose name contains this")
    parser.add_argument("--config", action="append", default=[], help="only configs with this word")
    parser.add_argument("--all", action="store_true", help="show every config")
    parser.add_argument("--cold", action="store_true", help="constants out of the cache")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    target = host_target(isa=options.isa, threads=options.threads)
    peak = peak_function(target)
    names = list(NETWORKS) if options.network == "all" else [options.network]
    total = ideal = 0.0
    for name in names:
        print(f"{name} on {target}")
        for line in NETWORKS[name].strip().splitlines():
            layer = parse_layer(line)
            if options.layer not in layer.text:
                continue
            layer = replace(layer, workload=replace(layer.workload, threads=options.threads))
            tactics, labels = [], []
            for kernel in KERNELS:
                if kernel.op != layer.workload.op or options.kernel not in kernel.name:
                    continue
                if kernel.refuse(layer.workload, target):
                    continue
                for config in kernel.configs(layer.workload, target):
                    text = config_text(config)
                    if all(word in text.split() for word in options.config):
                        tactics.append(Tactic(kernel, layer, config, target, options.cold))
                        cost = kernel.cost(layer.workload, config, target) if kernel.cost else 0
                        labels.append((kernel.name, text, cost))
            figures = share_of_peak(tactics, layer, target, peak, options.rounds)
            order = sorted(range(len(tactics)), key=lambda n: figures[n][2])
            for rank, n in enumerate(order if options.all else order[:1]):
                gflops, share, spent = figures[n]
                t, (kernel_name, text, cost) = tactics[n], labels[n]
                print(
                    f"{layer.text if not rank else '':44} {spent * 1e6:9.1f} us {gflops:7.1f} "
                    f"GF/s/core {share:6.1%}  {kernel_name} {text}  est {cost * 1e6:.0f} "
                    f"[{t.emit_ms:.0f}+{t.compile_ms:.0f} ms]",
                    flush=True,
                )
            best = figures[order[0]]
            total += best[2] * layer.count
            ideal += best[2] * best[1] * layer.count
    if total:
        print(f"total {total * 1e3:.3f} ms, {ideal / total:.1%} of the peak")


if __name__ == "__main__":
    main()
