"""The CPU as a target: what it can do, and how IR text becomes object code for it."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import llvmlite.binding as llvm

from planish.base.errors import BuildError, CompileError


@dataclass(frozen=True)
class Isa:
    """A level of vector instructions that code can be generated for. A row of `ISAS`."""

    name: str
    machine: str  # LLVM architecture this row belongs to
    needs: tuple[str, ...]  # host features without which the code would fault
    cpu: str  # LLVM CPU for capped builds; "" keeps the host's
    features: str  # LLVM feature string
    vector_bytes: int
    registers: int  # vector registers a kernel may hold live
    fma: bool
    dots: tuple[tuple[str, str], ...] = ()  # (host feature, what it brings) of `CpuTarget.dot`


_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "fma", "bmi2")
_AVX2 = ("avx2", "fma", "bmi2", "f16c")
_DOTS_AVX512 = (("avx512vnni", "bytes"), ("avx512bw", "pairs"))
_DOTS_AVX2 = (("avxvnni", "bytes"), ("avx2", "pairs"))
_BYTE_TABLES = "avx512vbmi"
ISAS = (
    Isa("avx512", "x86_64", _AVX512, "", "-prefer-256-bit", 64, 32, True, _DOTS_AVX512),
    Isa("avx2", "x86_64", _AVX2, "x86-64-v3", "", 32, 16, True, _DOTS_AVX2),
    Isa("generic", "x86_64", ("sse2",), "x86-64", "", 16, 16, False, (("sse2", "pairs"),)),
    Isa("neon", "aarch64", ("neon",), "generic", "+neon", 16, 32, True),
    Isa("generic", "aarch64", (), "generic", "+neon", 16, 32, True),
)


@dataclass(frozen=True)
class CpuTarget:
    """What kernels are generated for. Kernels may read every field; equal targets give equal code.

    Attributes:
        isa: Row name of `ISAS`.
        triple: LLVM triple.
        cpu: LLVM CPU name.
        features: LLVM feature string.
        vector_bytes: Width of a vector register.
        registers: Vector registers that a kernel may keep live.
        fma: Multiply-add rounds once.
        threads: Workers that share each layer.
        l1, l2, l3: Data cache bytes: a core's, a core's, shared by all.
        dot: The instruction that adds integer products to i32 lanes: "bytes" takes four u8·s8 a
            lane (vpdpbusd), "pairs" two i16·i16 (pmaddwd); "" for neither.
        byte_tables: One instruction picks bytes out of two registers (vpermi2b).
    """

    isa: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    fma: bool
    threads: int
    l1: int
    l2: int
    l3: int
    dot: str = ""
    byte_tables: bool = False

    def lanes(self, element_bytes: int = 4) -> int:
        """Elements in a vector register."""
        return max(1, self.vector_bytes // element_bytes)

    def __str__(self) -> str:
        dot = f"/{self.dot}" if self.dot else ""
        tables = "/tables" if self.byte_tables else ""
        return f"{self.isa}/{self.cpu}{dot}{tables}/{self.threads}"


def host_target(isa: str = "", threads: int = 0) -> CpuTarget:
    """The machine this runs on.

    Args:
        isa: Cap to a row of `ISAS`; "" takes the best the host has.
        threads: Workers a layer is split for; 0 takes every core the process may use.

    Raises:
        BuildError: The host lacks the instructions asked for, or the architecture is not known.
    """
    machine = _machine()
    features = host_features()
    rows = [row for row in ISAS if row.machine == machine]
    if not rows:
        known = sorted({row.machine for row in ISAS})
        raise BuildError(f"CPU architecture {machine!r} is not one of {known}")
    if isa:
        named = [row for row in rows if row.name == isa]
        if not named:
            raise BuildError(
                f"ISA {isa!r} is not one of {[row.name for row in rows]}", hint="see planish doctor"
            )
        rows = named
    for row in rows:
        missing = [need for need in row.needs if need not in features]
        if not missing:
            break
    else:
        raise BuildError(f"this CPU lacks {missing} that ISA {rows[-1].name!r} needs")
    l1, l2, l3 = _caches()
    need, dot = next((entry for entry in row.dots if entry[0] in features), ("", ""))
    byte_tables = row.name == "avx512" and _BYTE_TABLES in features
    extra = f",+{_BYTE_TABLES}" * byte_tables
    return CpuTarget(
        isa=row.name,
        triple=llvm.get_default_triple(),
        cpu=row.cpu or llvm.get_host_cpu_name(),
        features=_with_feature(row, need) + extra,
        vector_bytes=row.vector_bytes,
        registers=row.registers,
        fma=row.fma,
        threads=threads or usable_cores(),
        l1=l1,
        l2=l2,
        l3=l3,
        dot=dot,
        byte_tables=byte_tables,
    )


def _with_feature(row: Isa, need: str) -> str:
    """The LLVM features of a row and one more, unless the row's CPU is known to have it."""
    if not row.cpu or need in ("", *row.needs):
        return row.features
    return ",".join(filter(None, (row.features, f"+{need}")))


def with_threads(target: CpuTarget, threads: int) -> CpuTarget:
    """The same CPU, each layer split for another number of workers."""
    return replace(target, threads=threads)


@functools.cache
def host_features() -> frozenset[str]:
    """Instruction-set features of this CPU, in LLVM's names."""
    return frozenset(name for name, has in llvm.get_host_cpu_features().items() if has)


def usable_cores() -> int:
    """Cores the process may use: the affinity mask, cut by the cgroup's CPU quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cgroup_quota()
    return max(1, min(count or 1, int(quota)) if quota else (count or 1))


def cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float:
    """CPUs' worth of time that the cgroup (v2 or v1) grants; 0.0 for no limit."""
    limits = []
    for folder in _cgroup_folders(root, membership):
        try:
            limit, period = (folder / "cpu.max").read_text().split()
            if limit != "max":
                limits.append(int(limit) / int(period))
        except (OSError, ValueError):
            continue
    try:
        limit_v1 = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_v1 = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        if limit_v1 > 0:
            limits.append(limit_v1 / period_v1)
    except (OSError, ValueError):
        pass
    return min(limits, default=0.0)


def _cgroup_folders(root: Path, membership: Path) -> list[Path]:
    """The process's cgroup v2 folder and its parents, up to the root."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return [root]
    for line in lines:
        if line.startswith("0::"):
            folder = root / line[3:].strip().lstrip("/")
            return [folder, *(p for p in folder.parents if p.is_relative_to(root))]
    return [root]


def _machine() -> str:
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


@functools.cache
def _caches() -> tuple[int, int, int]:
    """L1d, L2 and L3 bytes of core 0; usual sizes where the system does not tell."""
    sizes = {1: 32 << 10, 2: 1 << 20, 3: 16 << 20}
    for entry in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (entry / "type").read_text().strip() == "Instruction":
                continue
            text = (entry / "size").read_text().strip()
            unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1], 1)
            sizes[int((entry / "level").read_text())] = int(text.rstrip("KM")) * unit
        except (OSError, ValueError):
            continue
    return sizes[1], sizes[2], sizes[3]


@functools.cache
def _start_llvm() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.cache
def _machine_for(triple: str, cpu: str, features: str) -> llvm.TargetMachine:
    _start_llvm()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=2, reloc="pic", codemodel="small", jit=False
    )


def compile_object(text: str, target: CpuTarget) -> bytes:
    """Turn LLVM IR text into a relocatable object.

    LLVM's own loop unrolling and vectorisers are off: the generators decide both.

    Raises:
        CompileError: LLVM refused the text.
    """
    machine = _machine_for(target.triple, target.cpu, target.features)
    module = _optimise(text, machine)
    return bytes(machine.emit_object(module))


def assembly(text: str, target: CpuTarget) -> str:
    """The machine code of IR text, for people to read."""
    machine = _machine_for(target.triple, target.cpu, target.features)
    return str(machine.emit_assembly(_optimise(text, machine)))


def _optimise(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refused generated code: {error}") from error
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = False
    options.loop_vectorization = False
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module
