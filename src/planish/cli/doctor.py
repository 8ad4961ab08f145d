"""planish doctor: what planish finds on this machine, and what is odd about it."""

from __future__ import annotations

import importlib.util
import os
import platform
import stat
from importlib import metadata
from pathlib import Path
from typing import Any

from planish.cli import arguments

_OPTIONAL = (
    ("onnxruntime", "the reference of `planish compare`; a peer of the benchmarks"),
    ("openvino", "a peer of the benchmarks"),
    ("ncnn", "a peer of the benchmarks"),
    ("torch", "a peer of the benchmarks; exports models for them"),
)
_NEEDED = ("numpy", "onnx", "ml_dtypes", "llvmlite", "rich", "typer", "platformdirs")


def doctor(json: arguments.Json = "", quiet: arguments.Quiet = False) -> None:
    """Show the CPU, the code planish makes for it, cores and limits, packages, knobs, caches."""
    import planish
    from planish.base import knobs
    from planish.cli.terminal import Terminal, size_text

    terminal = Terminal(json, quiet)
    cpu, isas, cores = cpu_facts(), isa_rows(), core_facts()
    packages, paths, problems = package_rows(), path_rows(), []
    rows = knobs.knob_rows()
    problems += [f"{r.name}={r.value}" for r in rows if "is illegal" in r.value]
    problems += [f"{n} is set, but is no knob of planish" for n in knobs.unknown_variables()]
    problems += [r["problem"] for r in paths if r["problem"]]
    problems += [f"{r['name']} is missing" for r in packages if r["needed"] and not r["version"]]
    terminal.say(f"planish {planish.__version__} on Python {platform.python_version()}")
    terminal.say(
        f"CPU: {cpu['model']} ({cpu['llvm_name']}), L1 {size_text(cpu['l1'])}, "
        f"L2 {size_text(cpu['l2'])}, L3 {size_text(cpu['l3'])}; LLVM {cpu['llvm']}"
    )
    quota = f"{cores['quota']:.2f} CPUs" if cores["quota"] else "none"
    terminal.say(
        f"cores: {cores['usable']} used by default; {cores['online']} online, "
        f"{cores['affinity']} in the affinity mask, cgroup quota {quota}"
    )
    terminal.table(
        "Instruction sets",
        ("isa", "here", "vector bytes", "registers", "lacks"),
        [(r["isa"], r["state"], r["vector_bytes"], r["registers"], ", ".join(r["lacks"]) or None)
         for r in isas],
        ("vector bytes", "registers"),
    )  # fmt: skip
    terminal.table(
        "Packages",
        ("package", "version", "what for"),
        [(r["name"], r["version"] or "not installed", r["use"]) for r in packages],
    )
    terminal.table(
        "Knobs (environment)",
        ("name", "value", "set", "what it does"),
        [(r.name, r.value or None, "yes" if r.is_set else None, r.help) for r in rows],
    )
    terminal.table(
        "Files",
        ("what", "path", "mode", "size"),
        [(r["what"], r["path"], r["mode"], r["size"]) for r in paths],
        ("size",),
    )
    for problem in problems:
        terminal.warn(problem)
    if not problems:
        terminal.say("nothing is wrong")
    terminal.finish(
        {
            "planish": planish.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "cpu": cpu,
            "isas": isas,
            "cores": cores,
            "packages": packages,
            "knobs": [vars(row) for row in rows],
            "files": paths,
            "problems": problems,
        }
    )


def cpu_facts() -> dict[str, Any]:
    """Model, LLVM's name for it, cache sizes."""
    import llvmlite.binding as llvm

    from planish.targets.cpu import host_target

    target = host_target()
    return {
        "model": _cpu_model(),
        "machine": platform.machine(),
        "llvm_name": llvm.get_host_cpu_name(),
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "l1": target.l1,
        "l2": target.l2,
        "l3": target.l3,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def isa_rows() -> list[dict[str, Any]]:
    """Each instruction set of this architecture: used, possible, or what it lacks."""
    from planish.targets.cpu import ISAS, host_features, host_target

    target = host_target()
    machine = target.triple.partition("-")[0]
    rows = []
    for isa in ISAS:
        if isa.machine != machine:
            continue
        lacks = [need for need in isa.needs if need not in host_features()]
        state = "used" if isa.name == target.isa else "--isa" if not lacks else "no"
        rows.append(
            {
                "isa": isa.name,
                "state": state,
                "vector_bytes": isa.vector_bytes,
                "registers": isa.registers,
                "lacks": lacks,
            }
        )
    return rows


def core_facts() -> dict[str, Any]:
    """Cores online, in the affinity mask, granted by the cgroup, and used."""
    from planish.targets.cpu import cgroup_quota, usable_cores

    has_mask = hasattr(os, "sched_getaffinity")
    return {
        "online": os.cpu_count() or 1,
        "affinity": len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1,
        "quota": cgroup_quota(),
        "usable": usable_cores(),
    }


def package_rows() -> list[dict[str, Any]]:
    """What planish needs, and what it can use."""
    rows = [(name, "needed", True) for name in _NEEDED]
    rows += [(name, use, False) for name, use in _OPTIONAL]
    return [
        {"name": name, "version": _version(name), "use": use, "needed": needed}
        for name, use, needed in rows
    ]


def _version(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        return ""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def path_rows() -> list[dict[str, Any]]:
    """The timing cache and its folder, with who may do what."""
    from planish.tune.cache import default_cache_path

    cache = default_cache_path()
    return [_path_row("cache folder", cache.parent), _path_row("timing cache", cache)]


def _path_row(what: str, path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "what": what,
        "path": str(path),
        "mode": None,
        "size": None,
        "problem": "",
    }
    try:
        found = path.stat()
    except OSError:
        return row
    row["mode"] = stat.filemode(found.st_mode)
    row["size"] = None if path.is_dir() else found.st_size
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        row["problem"] = f"others may write to {path}: chmod go-w {path}"
    elif hasattr(os, "getuid") and found.st_uid != os.getuid():
        row["problem"] = f"{path} belongs to another user"
    return row
