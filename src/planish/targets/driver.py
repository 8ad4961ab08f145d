"""The native driver: every worker walks its own table of calls, meeting the others at barriers.

Worker 0 is the thread that calls `RUN`; the others sit inside `WORK`, which returns only after
`STOP`. A waiting worker spins, then yields its core, then sleeps in the kernel, so that a short
wait costs a tenth of a microsecond and a long one costs no CPU.

    control block   one for a team of workers, layout in `CONTROL`; starts zeroed, 64-byte aligned
    job             `JOB_BYTES` for each worker: table, its entries, private scratch, stamps or 0,
                    all share records, their number (the last two in worker 0's alone)
    table entry     `ENTRY_BYTES`: function or 0, args, begin, end, flags (1: a barrier first);
                    with flag 2 or 4: function, args, this worker's share record, 0, flags
    share record    `SHARE_BYTES`, one a worker of a shared step: pieces taken, begin, end, units of
                    a piece, the next worker's record (they form a ring)
    stamps          two i64 an entry, nanoseconds: before and after the call (profiling)

The units of a long step are dealt out in equal parts, but each part in pieces: a worker takes those
of its own part first (flag 2), then those that are left of the others' (flag 4). So a core that
something else slows down delays a step by a piece, not by its part. Taking is an atomic addition;
the counts start every job at zero.

A barrier counts arrivals; the last one to arrive starts the next phase. Whoever sleeps announces it
before it asks the kernel to compare the word, and whoever changes the word looks for sleepers after
it; both orders are sequentially consistent, so no wake-up is lost.

Native code runs in the IEEE default floating-point environment (round to nearest, no flushing of
denormals, no traps) whatever the calling thread has set; the caller's is restored afterwards.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from planish.targets.cpu import CpuTarget, compile_object
from planish.targets.ir import Function, Module, Val, integer

# The names carry the layout's version: change a layout, change them.
RUN = (
    "planish_run_v2"  # void(control*, job*): worker 0's part of one job; returns when all are done
)
WORK = "planish_work_v2"  # void(control*, i64 worker): another worker's life
STOP = "planish_stop_v2"  # void(control*): every WORK of this control block returns

ENTRY_BYTES = 40
JOB_BYTES = 48
SHARE_BYTES = 64
BARRIER, OWN, OTHERS = 1, 2, 4  # flags of a table entry

# Byte offsets in the control block. Each word that threads spin on has a cache line of its own, and
# the count of its sleepers, an i32, 4 bytes behind it.
CONTROL = {
    "generation": 0,  # i32, counts jobs; idle workers wait on it
    "phase": 64,  # i32, counts barriers passed; workers within a job wait on it
    "arrived": 128,  # i32, workers that reached the current barrier
    "workers": 192,  # i32, set by the owner
    "stop": 196,  # i32
    "job": 200,  # pointer
    "spin_ns": 208,  # i64, how long to spin before yielding; the owner may change it at any time
    "yield_ns": 216,  # i64, how long to yield after that before sleeping
}
CONTROL_BYTES = 256
_SLEEPERS = 4  # from a word to its count of sleepers

_SPINS = 64  # looks at the word between two looks at the clock
_WAIT_PRIVATE, _WAKE_PRIVATE = 128, 129
_EVERYONE = 0x7FFFFFFF


@dataclass(frozen=True)
class _System:
    """What the driver needs to know of a machine and its kernel."""

    machine: str  # architecture in the LLVM triple
    kernel: str  # what the triple's system part contains
    futex: int  # number of the futex system call; 0: none, sleep by polling
    clock: int  # number of the monotonic clock
    pause: str  # intrinsic that tells the core it is spinning; "" for none
    pause_args: tuple[int, ...]


_X86_PAUSE = ("llvm.x86.sse2.pause", ())
_ARM_PAUSE = ("llvm.aarch64.isb", (15,))
_SYSTEMS = (
    _System("x86_64", "linux", 202, 1, *_X86_PAUSE),
    _System("aarch64", "linux", 98, 1, *_ARM_PAUSE),
    _System("x86_64", "darwin", 0, 6, *_X86_PAUSE),
    _System("arm64", "darwin", 0, 6, *_ARM_PAUSE),
)
_OTHER = _System("", "", 0, 1, "", ())


@functools.cache
def driver_object(target: CpuTarget) -> bytes:
    """The driver as object code; every plan carries it among its objects."""
    return compile_object(driver_text(target), target)


def driver_text(target: CpuTarget) -> str:
    """The driver as LLVM IR."""
    system = _system(target.triple)
    module = Module()
    _emit_clock(module, system)
    _emit_sleep(module, system)
    _emit_wake(module, system)
    _emit_wait(module, system)
    _emit_barrier(module)
    _emit_take(module)
    _emit_execute(module)
    _emit_run(module, system)
    _emit_work(module, system)
    _emit_stop(module)
    return module.text()


def _system(triple: str) -> _System:
    machine, _, rest = triple.partition("-")
    kernel = "darwin" if "darwin" in rest or "macos" in rest else rest
    for row in _SYSTEMS:
        if row.machine == machine and row.kernel in kernel:
            return row
    return _OTHER


# ---- atomics ------------------------------------------------------------------------------------


def _load(f: Function, pointer: Val, order: str, ty: str = "i32") -> Val:
    align = 8 if ty == "i64" else 4
    return f.emit(ty, f"load atomic {ty}, ptr {pointer.ref} {order}, align {align}")


def _add(f: Function, pointer: Val, count: int, order: str) -> Val:
    """Adds and gives the value before."""
    return f.emit("i32", f"atomicrmw add ptr {pointer.ref}, i32 {count} {order}, align 4")


def _field(f: Function, control: Val, name: str) -> Val:
    return f.offset(control, CONTROL[name])


# ---- waiting ------------------------------------------------------------------------------------


def _emit_clock(module: Module, system: _System) -> None:
    """`i64 clock_ns()`: monotonic nanoseconds."""
    f = module.function("clock_ns", [], returns="i64", internal=True, inline=False)
    parts = f.variable("i64", 2, align=16)
    f.call("clock_gettime", "i32", [integer(system.clock, "i32"), parts])
    seconds = f.load("i64", parts)
    f.ret(f.add(f.mul(seconds, 1_000_000_000), f.load("i64", f.offset(parts, 8))))


def _emit_sleep(module: Module, system: _System) -> None:
    """`sleep_on(word*, i32 expected)` returns after the word differs, or earlier."""
    f = module.function(
        "sleep_on", [("ptr", "word"), ("i32", "expected")], internal=True, inline=False
    )
    if system.futex:
        _futex(f, system, _WAIT_PRIVATE, f.params["expected"])
    else:
        f.call("usleep", "i32", [integer(100, "i32")])
    f.ret()


def _emit_wake(module: Module, system: _System) -> None:
    """`wake_all(word*)` ends all sleep on the word. Call it after the word changed."""
    f = module.function("wake_all", [("ptr", "word")], internal=True)
    f.line("fence seq_cst")
    sleepers = _load(f, f.offset(f.params["word"], _SLEEPERS), "seq_cst")
    with f.when(f.icmp("ne", sleepers, 0)):
        if system.futex:
            _futex(f, system, _WAKE_PRIVATE, integer(_EVERYONE, "i32"))
    f.ret()


def _futex(f: Function, system: _System, operation: int, value: Val) -> None:
    f.module.declarations["syscall"] = "declare i64 @syscall(i64, ...)"
    f.emit(
        "i64",
        f"call i64 (i64, ...) @syscall(i64 {system.futex}, ptr {f.params['word'].ref}, "
        f"i64 {operation}, {value.ty} {value.ref}, ptr null, ptr null, i64 0)",
    )


def _emit_wait(module: Module, system: _System) -> None:
    """`wait_change(control*, word*, i32 expected)` returns when the word differs (acquire)."""
    f = module.function(
        "wait_change",
        [("ptr", "control"), ("ptr", "word"), ("i32", "expected")],
        internal=True,
        inline=False,
    )
    word, expected = f.params["word"], f.params["expected"]
    since, spins = f.variable("i64", align=8), f.variable("i64", align=8)
    f.store(integer(0), since)
    rounds, spin, again, timed = (f.label(x) for x in ("round", "spin", "again", "timed"))
    patient, give, sleep, doze = (f.label(x) for x in ("patient", "give", "sleep", "doze"))
    nap, awake, done = (f.label(x) for x in ("nap", "awake", "done"))
    f.branch(rounds)

    f.start(rounds)
    f.store(integer(0), spins)
    f.branch(spin)
    f.start(spin)
    f.branch_if(f.icmp("ne", _load(f, word, "acquire"), expected), done, again)
    f.start(again)
    if system.pause:
        f.call(system.pause, "void", [integer(arg, "i32") for arg in system.pause_args])
    count = f.add(f.load("i64", spins), 1)
    f.store(count, spins)
    f.branch_if(f.icmp("slt", count, _SPINS), spin, timed)

    f.start(timed)
    now = f.call("clock_ns", "i64", [], local=True)
    before = f.load("i64", since)
    start = f.select(f.icmp("eq", before, 0), now, before)
    f.store(start, since)
    waited = f.sub(now, start)
    limit = _load(f, _field(f, f.params["control"], "spin_ns"), "monotonic", "i64")
    f.branch_if(f.icmp("slt", waited, limit), rounds, patient)
    f.start(patient)
    extra = _load(f, _field(f, f.params["control"], "yield_ns"), "monotonic", "i64")
    f.branch_if(f.icmp("slt", waited, f.add(limit, extra)), give, sleep)
    f.start(give)
    f.call("sched_yield", "i32", [])
    f.branch(rounds)

    f.start(sleep)
    sleepers = f.offset(word, _SLEEPERS)
    _add(f, sleepers, 1, "seq_cst")
    f.line("fence seq_cst")
    f.branch(doze)
    f.start(doze)
    f.branch_if(f.icmp("ne", _load(f, word, "seq_cst"), expected), awake, nap)
    f.start(nap)
    f.call("sleep_on", "void", [word, expected], local=True)
    f.branch(doze)
    f.start(awake)
    _add(f, sleepers, -1, "seq_cst")
    f.branch(done)
    f.start(done)
    f.ret()


def _emit_barrier(module: Module) -> None:
    """`meet(control*, i32 workers, i1 stay)`: arrive; stay until all have, or go on at once."""
    f = module.function(
        "meet", [("ptr", "control"), ("i32", "workers"), ("i1", "stay")], internal=True
    )
    control = f.params["control"]
    word = _field(f, control, "phase")
    # Nobody can start the next phase before this worker arrives, so the plain order will do.
    phase = _load(f, word, "monotonic")
    before = _add(f, _field(f, control, "arrived"), 1, "acq_rel")
    last, wait, stay, done = (f.label(x) for x in ("last", "wait", "stay", "done"))
    f.branch_if(f.icmp("eq", f.add(before, integer(1, "i32")), f.params["workers"]), last, wait)
    f.start(last)
    arrived = _field(f, control, "arrived")
    f.line(f"store atomic i32 0, ptr {arrived.ref} monotonic, align 4")
    _add(f, word, 1, "seq_cst")
    f.call("wake_all", "void", [word], local=True)
    f.branch(done)
    f.start(wait)
    f.branch_if(f.params["stay"], stay, done)
    f.start(stay)
    f.call("wait_change", "void", [control, word, phase], local=True)
    f.branch(done)
    f.start(done)
    f.ret()


# ---- working ------------------------------------------------------------------------------------


def _emit_take(module: Module) -> None:
    """`take(function, args, record*, scratch)` does the pieces of a record that nobody took yet."""
    params = [("ptr", name) for name in ("function", "args", "record", "scratch")]
    f = module.function("take", params, internal=True, inline=False)
    function, args, record, scratch = (f.params[name] for _, name in params)
    begin, end = f.load("i64", f.offset(record, 8)), f.load("i64", f.offset(record, 16))
    units = f.load("i64", f.offset(record, 24))
    again, work, done = (f.label(x) for x in ("again", "work", "done"))
    f.branch(again)
    f.start(again)
    piece = f.emit("i64", f"atomicrmw add ptr {record.ref}, i64 1 monotonic, align 8")
    first = f.add(begin, f.mul(piece, units))
    f.branch_if(f.icmp("slt", first, end), work, done)
    f.start(work)
    last = f.min(f.add(first, units), end)
    _call(f, function, args, first, last, scratch)
    f.branch(again)
    f.start(done)
    f.ret()


def _call(f: Function, function: Val, args: Val, begin: Val, end: Val, scratch: Val) -> None:
    """A kernel on some of its units."""
    f.line(
        f"call void {function.ref}(ptr {args.ref}, i64 {begin.ref}, i64 {end.ref}, "
        f"ptr {scratch.ref})"
    )


def _emit_execute(module: Module) -> None:
    """`execute(control*, job of this worker*, i32 workers)` walks the table."""
    f = module.function(
        "execute", [("ptr", "control"), ("ptr", "job"), ("i32", "workers")], internal=True
    )
    job = f.params["job"]
    table, scratch = f.load("ptr", job), f.load("ptr", f.offset(job, 16))
    count, stamps = f.load("i64", f.offset(job, 8)), f.load("ptr", f.offset(job, 24))
    timed = f.icmp("ne", stamps, Val("ptr", "null"))
    with f.loop(0, count) as entries:
        entry = f.offset(table, f.mul(entries.index, ENTRY_BYTES))
        stamp = f.offset(stamps, f.mul(entries.index, 16))
        flags = f.load("i64", f.offset(entry, 32))
        with f.when(f.icmp("ne", f.binary("and", flags, integer(BARRIER)), 0)):
            stay = Val("i1", "true")
            f.call("meet", "void", [f.params["control"], f.params["workers"], stay], local=True)
        with f.when(timed):
            f.store(f.call("clock_ns", "i64", [], local=True), stamp)
        function = f.load("ptr", entry)
        with f.when(f.icmp("ne", function, Val("ptr", "null"))):
            args = f.load("ptr", f.offset(entry, 8))
            with f.when(f.icmp("ult", flags, OWN)):
                begin, end = f.load("i64", f.offset(entry, 16)), f.load("i64", f.offset(entry, 24))
                _call(f, function, args, begin, end, scratch)
            with f.when(f.icmp("eq", flags, OWN)):
                own = f.load("ptr", f.offset(entry, 16))
                f.call("take", "void", [function, args, own, scratch], local=True)
            with f.when(f.icmp("eq", flags, OTHERS)):
                own = f.load("ptr", f.offset(entry, 16))
                _take_others(f, function, args, own, scratch)
        with f.when(timed):
            f.store(f.call("clock_ns", "i64", [], local=True), f.offset(stamp, 8))
    f.ret()


def _take_others(f: Function, function: Val, args: Val, own: Val, scratch: Val) -> None:
    """What is left of the other workers' parts, from the next worker's on."""
    at = f.variable("ptr", align=8)
    f.store(f.load("ptr", f.offset(own, 32)), at)
    look, help_, done = (f.label(x) for x in ("look", "help", "helped"))
    f.branch(look)
    f.start(look)
    record = f.load("ptr", at)
    f.branch_if(f.icmp("eq", record, own), done, help_)
    f.start(help_)
    f.call("take", "void", [function, args, record, scratch], local=True)
    f.store(f.load("ptr", f.offset(record, 32)), at)
    f.branch(look)
    f.start(done)


def _emit_run(module: Module, system: _System) -> None:
    f = module.function(RUN, [("ptr", "control"), ("ptr", "job")])
    control, job = f.params["control"], f.params["job"]
    saved = _enter_default_floats(f, system)
    workers = f.load("i32", _field(f, control, "workers"))
    shared = f.icmp("sgt", workers, 1)
    with f.when(shared):
        records, count = f.load("ptr", f.offset(job, 32)), f.load("i64", f.offset(job, 40))
        with f.loop(0, count) as record:
            f.store(integer(0), f.offset(records, f.mul(record.index, SHARE_BYTES)))
        f.store(job, _field(f, control, "job"), align=8)
        word = _field(f, control, "generation")
        _add(f, word, 1, "seq_cst")
        f.call("wake_all", "void", [word], local=True)
    f.call("execute", "void", [control, job, workers], local=True)
    with f.when(shared):
        f.call("meet", "void", [control, workers, Val("i1", "true")], local=True)
    _leave_default_floats(f, system, saved)
    f.ret()


def _emit_work(module: Module, system: _System) -> None:
    f = module.function(WORK, [("ptr", "control"), ("i64", "worker")])
    control = f.params["control"]
    _enter_default_floats(f, system)
    word = _field(f, control, "generation")
    seen = f.variable("i32", align=4)
    f.store(integer(0, "i32"), seen)
    again, work, leave = f.label("again"), f.label("work"), f.label("leave")
    f.branch(again)
    f.start(again)
    f.call("wait_change", "void", [control, word, f.load("i32", seen)], local=True)
    f.store(_load(f, word, "acquire"), seen)
    stop = _load(f, _field(f, control, "stop"), "monotonic")
    f.branch_if(f.icmp("ne", stop, 0), leave, work)
    f.start(work)
    jobs = f.load("ptr", _field(f, control, "job"), align=8)
    workers = f.load("i32", _field(f, control, "workers"))
    own = f.offset(jobs, f.mul(f.params["worker"], JOB_BYTES))
    f.call("execute", "void", [control, own, workers], local=True)
    f.call("meet", "void", [control, workers, Val("i1", "false")], local=True)
    f.branch(again)
    f.start(leave)
    f.ret()


def _emit_stop(module: Module) -> None:
    f = module.function(STOP, [("ptr", "control")])
    stop = _field(f, f.params["control"], "stop")
    f.line(f"store atomic i32 1, ptr {stop.ref} monotonic, align 4")
    word = _field(f, f.params["control"], "generation")
    _add(f, word, 1, "seq_cst")
    f.call("wake_all", "void", [word], local=True)
    f.ret()


# ---- floating-point environment -----------------------------------------------------------------

_MXCSR_DEFAULT = 0x1F80  # all exceptions masked, round to nearest, denormals as they are


def _enter_default_floats(f: Function, system: _System) -> Val:
    """Sets the IEEE default environment; gives what `_leave_default_floats` needs."""
    if system.machine == "x86_64":
        saved, fresh = f.variable("i32", align=4), f.variable("i32", align=4)
        f.call("llvm.x86.sse.stmxcsr", "void", [saved])
        f.store(integer(_MXCSR_DEFAULT, "i32"), fresh)
        f.call("llvm.x86.sse.ldmxcsr", "void", [fresh])
        return saved
    if system.machine in ("aarch64", "arm64"):
        state = f.call("llvm.aarch64.get.fpcr", "i64", [])
        f.call("llvm.aarch64.set.fpcr", "void", [integer(0)])
        return state
    return integer(0)


def _leave_default_floats(f: Function, system: _System, saved: Val) -> None:
    if system.machine == "x86_64":
        f.call("llvm.x86.sse.ldmxcsr", "void", [saved])
    elif system.machine in ("aarch64", "arm64"):
        f.call("llvm.aarch64.set.fpcr", "void", [saved])
