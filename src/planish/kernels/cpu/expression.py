"""Vector code of expressions: loads, index arithmetic, functions, masks.

Nests, and the epilogues of the contraction templates, make their code here. Lanes run along one
loop variable. What does not depend on it is computed once, as a scalar, and repeated only where it
meets something that does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.errors import CompileError
from planish.base.expr import Call, Const, Expr, Load, Size, Temp, Var, children
from planish.base.shapes import Dim
from planish.kernels.cpu.arithmetic import Arithmetic, literal, worth_table
from planish.kernels.cpu.narrow import NARROW
from planish.kernels.cpu.vector_math import VectorMath
from planish.kernels.loops.linear import Linear, address, linear, never_negative
from planish.kernels.loops.lookup import looked_up, table_of
from planish.kernels.loops.requantize import quantizes, requantized
from planish.targets.cpu import CpuTarget
from planish.targets.ir import Function, Int, Val, i64, vector, zero

_COMPARISONS = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}
_FAR = 1 << 30  # lane counts and slopes stay far below it


@dataclass(frozen=True)
class Memory:
    """Elements in memory: an operand, an output, or a buffer of a nest's temporary.

    Attributes:
        pointer: Address of the element with all indices 0.
        strides: Elements between neighbours along each axis.
        dtype: Element type.
    """

    pointer: Val
    strides: tuple[Dim, ...]
    dtype: DType


@dataclass(frozen=True)
class _Guard:
    """Where memory may be read: `uniform` (an i1) and `lanes` (a mask); None for everywhere."""

    uniform: Val | None
    lanes: Val | None


@dataclass(frozen=True)
class _Place:
    """Addresses of one element a lane: base + lane * slope, or base + offsets[lane]."""

    base: Val
    slope: Dim
    offsets: Val | None = None


class ExprEmitter:
    """Emits expressions at one point of the loops. Shared sub-expressions are emitted once.

    An emitter belongs to one straight piece of code: values that it made are used again later, so
    they must be reachable wherever it emits.

    Args:
        function: Where the code goes.
        target: What it is for.
        size: Gives the run-time value of a size (i64).
        lanes: Values computed at a time.
        lane_var: The loop variable that grows by 1 from lane to lane; "" for none.
        vars: Loop variables (at the first lane).
        operands: Tensors that `Load` names by number.
        temps: What `Temp` names by number: values in registers (scalars or vectors of `lanes`), or
            memory that the temporary's indices address.
        mask: Lanes that exist; None for all. At least one does.
    """

    def __init__(
        self,
        function: Function,
        target: CpuTarget,
        size: Callable[[Dim], Val],
        *,
        lanes: int = 1,
        lane_var: str = "",
        vars: Mapping[str, Int] | None = None,
        operands: Sequence[Memory] | Mapping[int, Memory] = (),
        temps: Mapping[int, Val | Memory] | None = None,
        mask: Val | None = None,
    ) -> None:
        self.f = function
        self.target = target
        self.size = size
        self.lanes = lanes
        self.lane_var = lane_var if lanes > 1 else ""
        self.arithmetic = Arithmetic(VectorMath(function, target))
        self.vars = dict(vars or {})
        self.operands = operands
        self.temps = dict(temps or {})
        self._root = _Guard(None, mask)
        self._memo: dict[tuple[int, int], Val] = {}
        self._reads: dict[int, bool] = {}
        self._kept: list[object] = []  # keeps ids of the memo's keys from being used again

    # ---- what others call -----------------------------------------------------------------------

    def emit(self, expr: Expr, *, exact: bool = False) -> Val:
        """The value in registers, one for each lane: f16 and bf16 as f32, bool as i1.

        Args:
            expr: The expression.
            exact: The caller rounds the value to integers, so each rounding step before it counts.
        """
        expr = self._settled(expr)
        self.arithmetic.exact |= exact
        return self._spread(self._value(expr, self._root), expr)

    def value(self, expr: Expr) -> Val:
        """The value in registers; a scalar where it is the same in all lanes."""
        return self._value(self._settled(expr), self._root)

    def _settled(self, expr: Expr) -> Expr:
        """The form to emit. Before a float becomes an integer, each step is rounded by itself."""
        made = looked_up(expr, worth_table(self.target))
        made = requantized(made, fused=self.target.fma)
        self.arithmetic.exact = quantizes(made)
        return made

    def store(self, memory: Memory, index: Sequence[Expr], value: Val) -> None:
        """Write a value in registers; lanes that do not exist are not written."""
        place = self._place(memory, tuple(index), self._root)
        whole = value if value.lanes == self.lanes else self.f.splat(value, self.lanes)
        raw = self.arithmetic.to_memory(whole, memory.dtype)
        mask = self._root.lanes
        if self.lanes == 1:
            self.f.store(raw, place.base)
        elif place.offsets is None and place.slope == 1:
            if mask is None:
                self.f.store(raw, place.base)
            elif mask.ref.startswith("<") and self.target.isa != "avx512":
                self._store_first(raw, place.base, mask.ref.count("true"), memory.dtype.size)
            else:
                self.f.masked_store(raw, place.base, mask)
        else:
            self._scatter(place, raw, memory.dtype)

    def address(self, memory: Memory, index: Sequence[Expr]) -> Val:
        """The address of an element, at the first lane."""
        return self._place(memory, tuple(index), self._root).base

    def contiguous(self, memory: Memory, index: Sequence[Expr]) -> bool:
        """Whether the lanes of an access are neighbours in memory."""
        return address(tuple(index), memory.strides).factor(self.lane_var) == 1

    def _store_first(self, raw: Val, pointer: Val, count: int, bytes_: int) -> None:
        """Write the first lanes piece by piece: masked stores are slow before AVX-512."""
        done, width = 0, self.lanes
        while width:
            if count - done >= width:
                part = self.f.shuffle(raw, raw, range(done, done + width))
                part = part if width > 1 else self.f.extract(part, 0)
                self.f.store(part, self.f.offset(pointer, done * bytes_))
                done += width
            width //= 2

    # ---- values ---------------------------------------------------------------------------------

    def _value(self, expr: Expr, guard: _Guard) -> Val:
        open_guard = self._root if not self._reads_memory(expr) else guard
        for known in (self._root, open_guard):
            made = self._memo.get((id(expr), id(known)))
            if made is not None:
                return made
        value = self._make(expr, open_guard)
        self._kept += [expr, open_guard]
        self._memo[id(expr), id(open_guard)] = value
        return value

    def _make(self, expr: Expr, guard: _Guard) -> Val:
        match expr:
            case Const(value=value, dtype=dtype):
                return literal(value, dtype)
            case Var(name=name):
                return self._variable(name)
            case Size(dim=dim):
                return self.size(dim)
            case Load(tensor=tensor, index=index):
                return self._load(self.operands[tensor], index, guard)
            case Temp(stage=stage, index=index):
                held = self.temps[stage]
                return held if isinstance(held, Val) else self._load(held, index, guard)
            case Call(fn="select"):
                return self._select(expr, guard)
            case Call(fn="cast"):
                return self._cast(expr, guard)
            case Call(fn="nearest", args=(rounded,)):
                return self.arithmetic.math.nearest(self._value(rounded, guard))
            case Call(fn="lookup", args=(number, _)):
                return self.arithmetic.lookup(self._value(number, guard), table_of(expr))
            case Call():
                return self._compared(expr, guard) or self._call(expr, guard)
        raise CompileError(f"{expr!r} is not an expression")

    def _variable(self, name: str) -> Val:
        first = self._scalar_variable(name)
        if name != self.lane_var:
            return first
        return self.f.add(self.f.splat(first, self.lanes), self._iota("i64", 1))

    def _scalar_variable(self, name: str) -> Val:
        value = self.vars[name]
        return value if isinstance(value, Val) else i64(value)

    def _iota(self, element: str, slope: int) -> Val:
        steps = ", ".join(f"{element} {lane * slope}" for lane in range(self.lanes))
        return Val(vector(element, self.lanes), f"<{steps}>")

    def _spread(self, value: Val, expr: Expr) -> Val:
        if value.lanes == self.lanes:
            return value
        if isinstance(expr, Const):
            return literal(expr.value, expr.dtype, self.lanes)
        return self.f.splat(value, self.lanes)

    def _select(self, expr: Call, guard: _Guard) -> Val:
        condition = self._value(expr.args[0], guard)
        inverse = guard
        taken = guard
        if self._reads_memory(expr.args[1]):
            taken = self._narrowed(guard, condition)
        if self._reads_memory(expr.args[2]):
            one = literal(1, DType.BOOL, condition.lanes)
            inverse = self._narrowed(guard, self.f.binary("xor", condition, one))
        yes, no = self._value(expr.args[1], taken), self._value(expr.args[2], inverse)
        if max(condition.lanes, yes.lanes, no.lanes) > 1:
            yes, no = self._spread(yes, expr.args[1]), self._spread(no, expr.args[2])
        return self.f.select(condition, yes, no)

    def _narrowed(self, guard: _Guard, condition: Val) -> _Guard:
        old = guard.uniform if condition.lanes == 1 else guard.lanes
        both = condition if old is None else self.f.binary("and", old, condition)
        if condition.lanes == 1:
            return _Guard(both, guard.lanes)
        return _Guard(guard.uniform, both)

    def _cast(self, expr: Call, guard: _Guard) -> Val:
        (source,) = expr.args
        if source.dtype is DType.I64 and self.lane_var:
            moved = self._cast_index(source, expr.dtype, guard)
            if moved is not None:
                return moved
        return self.arithmetic.cast(self._value(source, guard), source.dtype, expr.dtype)

    def _cast_index(self, source: Expr, to: DType, guard: _Guard) -> Val | None:
        """An index that grows evenly along the lanes, without arithmetic on vectors of i64."""
        parts = self._ramp(linear(source), guard)
        if parts is None or to not in (DType.I32, DType.F32, DType.F64):
            return None
        first, slope = parts
        if to is DType.I32:
            short = self.f.splat(self.f.cast("trunc", first, "i32"), self.lanes)
            return self.f.add(short, self._iota("i32", slope))
        wide = self.f.splat(self.f.cast("sitofp", first, "double"), self.lanes)
        steps = self.f.cast("sitofp", self._iota("i32", slope), wide.ty)
        total = self.f.binary("fadd", wide, steps)
        return self.arithmetic.cast(total, DType.F64, to)

    def _compared(self, expr: Call, guard: _Guard) -> Val | None:
        """A comparison of indices that grow evenly along the lanes: done on 32 bits."""
        if expr.fn not in _COMPARISONS or expr.args[0].dtype is not DType.I64 or not self.lane_var:
            return None
        parts = self._ramp(linear(expr.args[0]).plus(linear(expr.args[1]), -1), guard)
        if parts is None:
            return None
        first, slope = parts
        held = self.f.max(self.f.min(self.f.sub(0, first), _FAR), -_FAR)
        if held.literal is not None:
            bound = literal(held.literal, DType.I32, self.lanes)
        else:
            bound = self.f.splat(self.f.cast("trunc", held, "i32"), self.lanes)
        return self.f.icmp(_COMPARISONS[expr.fn], self._iota("i32", slope), bound)

    def _ramp(self, total: Linear, guard: _Guard) -> tuple[Val, int] | None:
        """(value at lane 0, step from lane to lane) where the step is a known small number."""
        slope = total.factor(self.lane_var)
        if not isinstance(slope, int) or slope == 0 or abs(slope) > 1 << 16:
            return None
        values = self._atoms(total, guard)
        return None if values is None else (self._sum(total, values, 1), slope)

    def _call(self, expr: Call, guard: _Guard) -> Val:
        args = [self._value(arg, guard) for arg in expr.args]
        dtype = expr.args[0].dtype
        if any(arg.lanes > 1 for arg in args):
            args = [self._spread(v, e) for v, e in zip(args, expr.args, strict=True)]
        elif dtype is DType.I64 and expr.fn in ("add", "sub", "mul"):
            return {"add": self.f.add, "sub": self.f.sub, "mul": self.f.mul}[expr.fn](*args)
        if dtype is DType.I64 and expr.fn in ("div", "floordiv", "mod", "fmod"):
            divisor = expr.args[1]
            plain = isinstance(divisor, Const) and int(divisor.value) > 0
            if plain and never_negative(expr.args[0]):
                return self.f.binary("urem" if "mod" in expr.fn else "udiv", args[0], args[1])
        return self.arithmetic.call(expr.fn, args, dtype)

    def _reads_memory(self, expr: Expr) -> bool:
        known = self._reads.get(id(expr))
        if known is None:
            known = isinstance(expr, Load)
            known |= isinstance(expr, Temp) and isinstance(self.temps[expr.stage], Memory)
            known = known or any(map(self._reads_memory, children(expr)))
            self._kept.append(expr)
            self._reads[id(expr)] = known
        return known

    # ---- memory ---------------------------------------------------------------------------------

    def _atoms(self, total: Linear, guard: _Guard) -> list[Val] | None:
        """Values of a sum's atoms, the lane variable's at lane 0; None where others vary too."""
        values = []
        for atom, _ in total.terms:
            if isinstance(atom, Var):
                values.append(self._scalar_variable(atom.name))
            else:
                values.append(self._value(atom, guard))
        return None if any(value.lanes > 1 for value in values) else values

    def _sum(self, total: Linear, values: Sequence[Val], scale: int) -> Val:
        """A sum of scalars times `scale`; the slow loops' parts first, so that they move out."""
        f = self.f
        order = sorted(zip(total.terms, values, strict=True), key=lambda t: _depth(t[0][0]))
        known = total.constant * scale if isinstance(total.constant, int) else 0
        result = i64(0)
        if not isinstance(total.constant, int):
            result = f.mul(self.size(total.constant), scale)
        for (_, factor), value in order:
            step = f.mul(self.size(factor), scale)
            if value.literal is not None and step.literal is not None:
                known += value.literal * step.literal
            else:
                result = f.add(result, f.mul(value, step))
        return f.add(result, known)

    def _place(self, memory: Memory, index: tuple[Expr, ...], guard: _Guard) -> _Place:
        total = address(index, memory.strides)
        bytes_ = memory.dtype.size
        slope = total.factor(self.lane_var) if self.lane_var else 0
        values = self._atoms(total, guard)
        if slope is not None and values is not None:
            return _Place(self._moved(memory.pointer, total, values, bytes_), slope)
        return self._scattered(memory, total, guard)

    def _moved(self, pointer: Val, total: Linear, values: Sequence[Val], bytes_: int) -> Val:
        """The address at lane 0, the part known now added last: it becomes a displacement."""
        constant = total.constant if isinstance(total.constant, int) else 0
        for (_, factor), value in zip(total.terms, values, strict=True):
            if value.literal is not None and isinstance(factor, int):
                constant += value.literal * factor
        whole = total.plus(Linear(constant, ()), -1)
        base = self.f.offset(pointer, self._sum(whole, values, bytes_))
        return self.f.offset(base, constant * bytes_)

    def _scattered(self, memory: Memory, total: Linear, guard: _Guard) -> _Place:
        """Each lane has an offset of its own."""
        f = self.f
        uniform, varying = Linear(total.constant, ()), literal(0, DType.I64, self.lanes)
        for atom, factor in total.terms:
            value = self._value(atom, guard)
            if value.lanes == 1:
                uniform = uniform.plus(Linear(0, ((atom, factor),)))
            else:
                step = f.mul(self.size(factor), memory.dtype.size)
                spread = f.splat(step, self.lanes)
                if step.literal is not None:
                    spread = literal(step.literal, DType.I64, self.lanes)
                varying = f.add(varying, f.binary("mul", value, spread))
        values = [self._value(atom, guard) for atom, _ in uniform.terms]
        base = self._moved(memory.pointer, uniform, values, memory.dtype.size)
        return _Place(base, 0, varying)

    def _lane_address(self, place: _Place, lane: int, dtype: DType) -> Val:
        if place.offsets is not None:
            return self.f.offset(place.base, self.f.extract(place.offsets, lane))
        step = self.f.mul(self.size(place.slope), dtype.size * lane)
        return self.f.offset(place.base, step)

    def _load(self, memory: Memory, index: tuple[Expr, ...], guard: _Guard) -> Val:
        place = self._place(memory, index, guard)
        f, element = self.f, memory_type(memory.dtype)
        ty = vector(element, self.lanes)
        if guard.uniform is not None:
            place = _Place(self._safe(guard.uniform, place.base), place.slope, place.offsets)
        if place.offsets is None and place.slope == 0:
            base = place.base
            if guard.lanes is not None and guard.lanes is not self._root.lanes:
                base = self._safe(self.arithmetic.math.any_lane(guard.lanes), base)
            raw = f.load(element, base)
        elif place.offsets is None and place.slope == 1 and guard.lanes is None:
            raw = f.load(ty, place.base)
        elif place.offsets is None and place.slope == 1:
            raw = f.masked_load(ty, place.base, guard.lanes or zero(ty))
        elif place.offsets is None and place.slope == -1 and guard == _Guard(None, None):
            last = f.offset(place.base, -(self.lanes - 1) * memory.dtype.size)
            raw = f.load(ty, last)
            raw = f.shuffle(raw, raw, range(self.lanes - 1, -1, -1))
        else:
            raw = self._gather(place, memory.dtype, guard)
        return self.arithmetic.from_memory(raw, memory.dtype)

    def _gather(self, place: _Place, dtype: DType, guard: _Guard) -> Val:
        """Lane by lane; lanes that may not be read, read zeros instead."""
        f, element = self.f, memory_type(dtype)
        total = zero(vector(element, self.lanes))
        for lane in range(self.lanes):
            at = self._lane_address(place, lane, dtype)
            if guard.lanes is not None:
                at = self._safe(f.extract(guard.lanes, lane), at)
            if guard.uniform is not None:
                at = self._safe(guard.uniform, at)
            total = f.insert(total, f.load(element, at), lane)
        return total

    def _safe(self, condition: Val, pointer: Val) -> Val:
        """The address where the condition holds, else that of some zeros."""
        return self.f.select(condition, pointer, self.f.module.zeros())

    def _scatter(self, place: _Place, raw: Val, dtype: DType) -> None:
        f, mask = self.f, self._root.lanes
        for lane in range(self.lanes):
            at, value = self._lane_address(place, lane, dtype), f.extract(raw, lane)
            if mask is None:
                f.store(value, at)
            else:
                with f.when(f.extract(mask, lane)):
                    f.store(value, at)


def _depth(atom: Expr) -> tuple[int, str]:
    """Sorts outer loops before inner ones."""
    if isinstance(atom, Var):
        return "omr".find(atom.name[:1]), atom.name
    return 3, ""


def memory_type(dtype: DType) -> str:
    """The LLVM type of one element as it is loaded: f16 and bf16 as i16."""
    return "i16" if dtype in NARROW else dtype.llvm
