"""Writes LLVM IR as text: values, arithmetic, loops. The one way in which native code is made here.

A `Module` holds functions; a `Function` appends instructions to its current block. Integers fold on
the way when both sides are literals, so index arithmetic over constant shapes costs no code.
Pointers are opaque; addresses are computed in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from planish.targets.ir_values import (
    Int,
    Val,
    as_value,
    element_bytes,
    i64,
    integer,
    literal_of,
    real,
    suffix,
    type_of,
    typed,
    vector,
    zero,
)

__all__ = [
    "Function",
    "Int",
    "Loop",
    "Module",
    "Val",
    "element_bytes",
    "i64",
    "integer",
    "real",
    "suffix",
    "vector",
    "zero",
]


@dataclass
class Module:
    """A translation unit: declarations, constants, functions."""

    functions: list[Function] = field(default_factory=list)
    declarations: dict[str, str] = field(default_factory=dict)
    constants: list[str] = field(default_factory=list)

    def function(
        self,
        name: str,
        params: Sequence[tuple[str, str]],
        *,
        returns: str = "void",
        internal: bool = False,
        inline: bool | None = None,
        noalias: Sequence[str] = (),
    ) -> Function:
        """Start a function.

        Args:
            name: Symbol.
            params: (type, name) pairs.
            returns: Return type.
            internal: Not visible outside the module.
            inline: True forces inlining, False forbids it, None leaves it to LLVM.
            noalias: Names of pointer parameters that no other pointer reaches.
        """
        made = Function(self, name, tuple(params), returns, internal, inline, frozenset(noalias))
        self.functions.append(made)
        return made

    def constant(self, element: str, values: Sequence[str]) -> Val:
        """A private constant array; `values` are literals of `element`. Gives its address."""
        name = f"@const{len(self.constants)}"
        body = ", ".join(f"{element} {value}" for value in values)
        self.constants.append(
            f"{name} = private unnamed_addr constant [{len(values)} x {element}] [{body}], align 64"
        )
        return Val("ptr", name)

    def zeros(self) -> Val:
        """The address of 1 KiB of constant zeros: what a masked-off load may read."""
        name = "@zeros"
        line = f"{name} = private unnamed_addr constant [1024 x i8] zeroinitializer, align 64"
        if line not in self.constants:
            self.constants.append(line)
        return Val("ptr", name)

    def declare(self, name: str, returns: str, params: Sequence[str]) -> None:
        """Declare an external function or intrinsic once."""
        self.declarations.setdefault(name, f"declare {returns} @{name}({', '.join(params)})")

    def text(self) -> str:
        """The module as LLVM IR."""
        parts = [*self.constants, *self.declarations.values()]
        parts += [function.text() for function in self.functions]
        return "\n".join(parts) + "\n"


class Function:
    """Appends instructions to its current block. Make one with `Module.function`."""

    def __init__(
        self,
        module: Module,
        name: str,
        params: tuple[tuple[str, str], ...],
        returns: str,
        internal: bool,
        inline: bool | None,
        noalias: frozenset[str],
    ) -> None:
        self.module = module
        self.name = name
        self.params = {n: Val(ty, f"%{n}") for ty, n in params}
        marks = {n: " noalias" if n in noalias else "" for _, n in params}
        signature = ", ".join(f"{ty}{marks[n]} %{n}" for ty, n in params)
        linkage = "internal " if internal else ""
        attribute = {True: " alwaysinline", False: " noinline", None: ""}[inline]
        self._head = f"define {linkage}{returns} @{name}({signature}){attribute} nounwind {{"
        self._lines: list[str] = []
        self._entry: list[str] = []
        self._count = 0
        self._block = "entry"
        self._closed = False

    # ---- plumbing -------------------------------------------------------------------------------

    def text(self) -> str:
        """The function as LLVM IR."""
        return "\n".join([self._head, "entry:", *self._entry, *self._lines, "}"])

    def emit(self, ty: str, instruction: str) -> Val:
        """Append an instruction that gives a value of type `ty`."""
        self._count += 1
        self._lines.append(f"  %v{self._count} = {instruction}")
        return Val(ty, f"%v{self._count}")

    def line(self, instruction: str) -> None:
        """Append an instruction that gives nothing."""
        self._lines.append(f"  {instruction}")

    def label(self, hint: str) -> str:
        """A fresh block name."""
        self._count += 1
        return f"{hint}{self._count}"

    def start(self, label: str) -> None:
        """Begin a block; the one before must have ended in a branch."""
        self._lines.append(f"{label}:")
        self._block = label

    @property
    def block(self) -> str:
        """The name of the current block, as a phi needs it."""
        return self._block

    def branch(self, label: str) -> None:
        """Jump."""
        self.line(f"br label %{label}")

    def branch_if(self, condition: Val, yes: str, no: str) -> None:
        """Jump on an i1."""
        self.line(f"br i1 {condition.ref}, label %{yes}, label %{no}")

    def ret(self, value: Val | None = None) -> None:
        """Return."""
        self.line("ret void" if value is None else f"ret {value.ty} {value.ref}")

    def call(self, name: str, returns: str, args: Sequence[Val], *, local: bool = False) -> Val:
        """Call a function or intrinsic, declaring it unless it is defined in this module."""
        if not local:
            self.module.declare(name, returns, [a.ty for a in args])
        body = f"call {returns} @{name}({', '.join(f'{a.ty} {a.ref}' for a in args)})"
        if returns == "void":
            self.line(body)
            return Val("void", "")
        return self.emit(returns, body)

    # ---- integers -------------------------------------------------------------------------------

    def _int(self, op: str, a: Int, b: Int, flags: str = "") -> Val:
        left = a if isinstance(a, Val) else integer(a, b.ty if isinstance(b, Val) else "i64")
        right = b if isinstance(b, Val) else integer(b, left.ty)
        return self.emit(left.ty, f"{op}{flags} {left.ty} {left.ref}, {right.ref}")

    def add(self, a: Int, b: Int) -> Val:
        """Integer sum."""
        x, y = literal_of(a), literal_of(b)
        if x is not None and y is not None:
            return integer(x + y, type_of(a, b))
        if x == 0 or y == 0:
            return as_value(b if x == 0 else a)
        return self._int("add", a, b)

    def sub(self, a: Int, b: Int) -> Val:
        """Integer difference."""
        x, y = literal_of(a), literal_of(b)
        if x is not None and y is not None:
            return integer(x - y, type_of(a, b))
        return as_value(a) if y == 0 else self._int("sub", a, b)

    def mul(self, a: Int, b: Int) -> Val:
        """Integer product."""
        x, y = literal_of(a), literal_of(b)
        if x is not None and y is not None:
            return integer(x * y, type_of(a, b))
        if x == 0 or y == 0:
            return integer(0, type_of(a, b))
        if x == 1 or y == 1:
            return as_value(b if x == 1 else a)
        return self._int("mul", a, b)

    def udiv(self, a: Int, b: Int) -> Val:
        """Quotient of two integers that are not negative."""
        x, y = literal_of(a), literal_of(b)
        if x is not None and y is not None:
            return integer(x // y, type_of(a, b))
        return as_value(a) if y == 1 else self._int("udiv", a, b)

    def urem(self, a: Int, b: Int) -> Val:
        """Remainder of two integers that are not negative."""
        x, y = literal_of(a), literal_of(b)
        if x is not None and y is not None:
            return integer(x % y, type_of(a, b))
        return integer(0, type_of(a, b)) if y == 1 else self._int("urem", a, b)

    def min(self, a: Int, b: Int) -> Val:
        """Signed minimum."""
        x, y = literal_of(a), literal_of(b)
        if x is not None and y is not None:
            return integer(min(x, y), type_of(a, b))
        return self.select(self.icmp("slt", a, b), typed(a, b), typed(b, a))

    def max(self, a: Int, b: Int) -> Val:
        """Signed maximum."""
        x, y = literal_of(a), literal_of(b)
        if x is not None and y is not None:
            return integer(max(x, y), type_of(a, b))
        return self.select(self.icmp("sgt", a, b), typed(a, b), typed(b, a))

    def icmp(self, predicate: str, a: Int, b: Int) -> Val:
        """Integer comparison: eq ne slt sle sgt sge ult ule ugt uge. Works lane by lane."""
        left, right = typed(a, b), typed(b, a)
        ty = vector("i1", left.lanes)
        return self.emit(ty, f"icmp {predicate} {left.ty} {left.ref}, {right.ref}")

    def binary(self, op: str, a: Val, b: Val, flags: str = "") -> Val:
        """Any LLVM binary instruction on two values of one type, e.g. `binary("and", a, b)`."""
        return self.emit(a.ty, f"{op}{' ' + flags if flags else ''} {a.ty} {a.ref}, {b.ref}")

    # ---- floats ---------------------------------------------------------------------------------

    def fadd(self, a: Val, b: Val) -> Val:
        """Sum; may be contracted into an fma."""
        return self.binary("fadd", a, b, "contract")

    def fsub(self, a: Val, b: Val) -> Val:
        """Difference; may be contracted into an fma."""
        return self.binary("fsub", a, b, "contract")

    def fmul(self, a: Val, b: Val) -> Val:
        """Product; may be contracted into an fma."""
        return self.binary("fmul", a, b, "contract")

    def fdiv(self, a: Val, b: Val) -> Val:
        """Quotient, correctly rounded."""
        return self.binary("fdiv", a, b)

    def fma(self, a: Val, b: Val, c: Val, *, fused: bool = True) -> Val:
        """a*b + c: one rounding when `fused`, else multiply and add (for targets without FMA)."""
        if not fused:
            return self.binary("fadd", self.binary("fmul", a, b), c)
        return self.intrinsic("fma", a.ty, [a, b, c])

    def fcmp(self, predicate: str, a: Val, b: Val) -> Val:
        """Floating comparison: oeq one olt ole ogt oge uno …. Works lane by lane."""
        return self.emit(vector("i1", a.lanes), f"fcmp {predicate} {a.ty} {a.ref}, {b.ref}")

    def intrinsic(self, name: str, ty: str, args: Sequence[Val]) -> Val:
        """An overloaded LLVM intrinsic, e.g. `intrinsic("sqrt", "<16 x float>", [x])`."""
        return self.call(f"llvm.{name}.{suffix(ty)}", ty, args)

    # ---- vectors, casts -------------------------------------------------------------------------

    def select(self, condition: Val, a: Val, b: Val) -> Val:
        """`a` where the condition holds, else `b`."""
        return self.emit(
            a.ty, f"select {condition.ty} {condition.ref}, {a.ty} {a.ref}, {b.ty} {b.ref}"
        )

    def splat(self, scalar: Val, lanes: int) -> Val:
        """A vector with the scalar in each lane; the scalar itself for one lane."""
        if lanes == 1:
            return scalar
        ty = vector(scalar.ty, lanes)
        one = self.emit(ty, f"insertelement {ty} poison, {scalar.ty} {scalar.ref}, i64 0")
        return self.shuffle(one, one, [0] * lanes)

    def shuffle(self, a: Val, b: Val, lanes: Sequence[int]) -> Val:
        """Lanes of a (0…) and b (n…) in any order; -1 is a lane that nobody reads."""
        mask = ", ".join("i32 poison" if lane < 0 else f"i32 {lane}" for lane in lanes)
        ty = vector(a.element, len(lanes)) if len(lanes) > 1 else f"<1 x {a.element}>"
        return self.emit(
            ty, f"shufflevector {a.ty} {a.ref}, {b.ty} {b.ref}, <{len(lanes)} x i32> <{mask}>"
        )

    def extract(self, value: Val, lane: Int) -> Val:
        """One lane."""
        at = as_value(lane)
        return self.emit(value.element, f"extractelement {value.ty} {value.ref}, i64 {at.ref}")

    def insert(self, value: Val, scalar: Val, lane: Int) -> Val:
        """The vector with one lane replaced."""
        at = as_value(lane)
        return self.emit(
            value.ty,
            f"insertelement {value.ty} {value.ref}, {scalar.ty} {scalar.ref}, i64 {at.ref}",
        )

    def cast(self, op: str, value: Val, ty: str) -> Val:
        """An LLVM conversion: sext zext trunc sitofp uitofp fptosi fpext fptrunc bitcast …."""
        if value.ty == ty:
            return value
        return self.emit(ty, f"{op} {value.ty} {value.ref} to {ty}")

    # ---- memory ---------------------------------------------------------------------------------

    def offset(self, pointer: Val, count: Int) -> Val:
        """An address moved by bytes."""
        at = as_value(count)
        if at.literal == 0:
            return pointer
        return self.emit("ptr", f"getelementptr i8, ptr {pointer.ref}, i64 {at.ref}")

    def load(self, ty: str, pointer: Val, *, align: int = 0, note: str = "") -> Val:
        """Read; `align` in bytes, 0 for the size of one element (always true of tensors)."""
        align = align or element_bytes(ty)
        return self.emit(ty, f"load {ty}, ptr {pointer.ref}, align {align}{note}")

    def store(self, value: Val, pointer: Val, *, align: int = 0, note: str = "") -> None:
        """Write; `align` as in `load`."""
        align = align or element_bytes(value.ty)
        self.line(f"store {value.ty} {value.ref}, ptr {pointer.ref}, align {align}{note}")

    def first_lanes(self, lanes: int, count: Int) -> Val:
        """A mask whose first `count` lanes are set."""
        if isinstance(count, int) or count.literal is not None:
            n = literal_of(count) or 0
            bits = ", ".join(f"i1 {'true' if i < n else 'false'}" for i in range(lanes))
            return Val(f"<{lanes} x i1>", f"<{bits}>")
        steps = ", ".join(f"i64 {i}" for i in range(lanes))
        iota = Val(f"<{lanes} x i64>", f"<{steps}>")
        return self.icmp("slt", iota, self.splat(count, lanes))

    def masked_load(self, ty: str, pointer: Val, mask: Val, otherwise: Val | None = None) -> Val:
        """Read the masked lanes only; the others are `otherwise`, default 0. Never over-reads."""
        fill = otherwise or zero(ty)
        name = f"llvm.masked.load.{suffix(ty)}.p0"
        self.module.declare(name, ty, ["ptr", "i32", mask.ty, ty])
        return self.emit(
            ty,
            f"call {ty} @{name}(ptr {pointer.ref}, i32 {element_bytes(ty)}, "
            f"{mask.ty} {mask.ref}, {ty} {fill.ref})",
        )

    def masked_store(self, value: Val, pointer: Val, mask: Val) -> None:
        """Write the masked lanes only.

        The first lane alone is written as a scalar: LLVM 22 turns a masked store of one narrowed
        lane into one of the lane before it was narrowed.
        """
        alone = mask.ref.startswith("<i1 true") and mask.ref.count("true") == 1
        if alone and element_bytes(value.ty) < 4:
            self.store(self.extract(value, 0), pointer)
            return
        name = f"llvm.masked.store.{suffix(value.ty)}.p0"
        self.module.declare(name, "void", [value.ty, "ptr", "i32", mask.ty])
        self.line(
            f"call void @{name}({value.ty} {value.ref}, ptr {pointer.ref}, "
            f"i32 {element_bytes(value.ty)}, {mask.ty} {mask.ref})"
        )

    def prefetch(self, pointer: Val, locality: int = 3, *, write: bool = False) -> None:
        """Ask for a cache line that will be read or written; 3 is the nearest cache."""
        self.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
        how = f"i32 {int(write)}, i32 {locality}, i32 1"
        self.line(f"call void @llvm.prefetch.p0(ptr {pointer.ref}, {how})")

    def variable(self, ty: str, count: int = 1, align: int = 64) -> Val:
        """Stack memory made in the entry block; LLVM turns single values into registers."""
        self._count += 1
        self._entry.append(f"  %a{self._count} = alloca {ty}, i64 {count}, align {align}")
        return Val("ptr", f"%a{self._count}")

    # ---- control --------------------------------------------------------------------------------

    @contextmanager
    def loop(
        self, start: Int, stop: Int, step: Int = 1, *, init: Sequence[Val] = ()
    ) -> Iterator[Loop]:
        """`for index in range(start, stop, step)`, step positive, with loop-carried values.

        Inside, read `loop.index` and `loop.carried` and end the body with `loop.carry(values)`.
        After it, `loop.results` are the carried values (the initial ones if it never ran).
        """
        lo, hi = as_value(start), as_value(stop)
        known = lo.literal is not None and hi.literal is not None
        before, body, done = self._block, self.label("loop"), self.label("done")
        runs = known and (lo.literal or 0) < (hi.literal or 0)
        if runs:
            self.branch(body)
        else:
            self.branch_if(self.icmp("slt", lo, hi), body, done)
        self.start(body)
        made = Loop(self)
        slot = len(self._lines)
        self._count += 1
        made.index = Val("i64", f"%i{self._count}")
        for value in init:
            self._count += 1
            made.carried.append(Val(value.ty, f"%c{self._count}"))
        yield made
        if len(made.carried_out) != len(made.carried):
            raise ValueError("a loop with carried values must end its body with carry(values)")
        following = self.add(made.index, step)
        again = self.icmp("slt", following, hi)
        latch = self._block
        self.branch_if(again, body, done)
        phis = [f"  {made.index.ref} = phi i64 [{lo.ref}, %{before}], [{following.ref}, %{latch}]"]
        for at, first, last in zip(made.carried, init, made.carried_out, strict=True):
            phis.append(
                f"  {at.ref} = phi {at.ty} [{first.ref}, %{before}], [{last.ref}, %{latch}]"
            )
        self._lines[slot:slot] = phis
        self.start(done)
        for first, last in zip(init, made.carried_out, strict=True):
            if runs:
                made.results.append(last)
            else:
                made.results.append(
                    self.emit(
                        first.ty,
                        f"phi {first.ty} [{first.ref}, %{before}], [{last.ref}, %{latch}]",
                    )
                )

    @contextmanager
    def when(self, condition: Val) -> Iterator[None]:
        """Run the body only if the i1 holds."""
        yes, done = self.label("then"), self.label("endif")
        self.branch_if(condition, yes, done)
        self.start(yes)
        yield
        self.branch(done)
        self.start(done)


class Loop:
    """What the body of `Function.loop` sees."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.index = i64(0)
        self.carried: list[Val] = []
        self.carried_out: list[Val] = []
        self.results: list[Val] = []

    def carry(self, values: Sequence[Val]) -> None:
        """Hand the carried values to the next iteration."""
        self.carried_out = list(values)
