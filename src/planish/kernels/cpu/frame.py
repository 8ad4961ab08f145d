"""The frame of a contraction kernel's phase: argument slots, run-time sizes, units of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from planish.base.shapes import Dim, Sym
from planish.kernels.workload import Operand, Workload
from planish.targets.ir import Function, Module, Val, i64


class Frame:
    """A phase function under construction.

    Args:
        module: Where the function goes.
        symbol: Its name.
        workload: Gives the order of the argument slots.
    """

    def __init__(self, module: Module, symbol: str, workload: Workload) -> None:
        self.f: Function = module.function(
            symbol, [("ptr", "args"), ("i64", "begin"), ("i64", "end"), ("ptr", "private")]
        )
        self.workload = workload
        self.private = self.f.params["private"]
        count = len(workload.inputs)
        self.inputs = [self._slot("ptr", n) for n in range(count)]
        self.outputs = [self._slot("ptr", count + n) for n in range(len(workload.outputs))]
        first = count + len(workload.outputs)
        self.shared = self._slot("ptr", first)
        self._params = {
            name: self._slot("i64", first + 1 + n) for n, name in enumerate(workload.params)
        }
        self._sizes: dict[Sym, Val] = {}
        for operand in (*workload.inputs, *workload.outputs):
            self.prepare((*operand.shape, *operand.strides))

    def _slot(self, ty: str, number: int) -> Val:
        return self.f.load(ty, self.f.offset(self.f.params["args"], 8 * number), align=8)

    def prepare(self, dims: Sequence[Dim]) -> None:
        """Compute run-time sizes here, at the top of the function, so that loops only read them."""
        for dim in dims:
            if isinstance(dim, Sym) and dim not in self._sizes:
                self._sizes[dim] = self._polynomial(dim)

    def size(self, dim: Dim) -> Val:
        """The value of a size. A symbolic one that was not prepared is computed at its use."""
        if isinstance(dim, int):
            return i64(dim)
        return self._sizes.get(dim) or self._polynomial(dim)

    def _polynomial(self, dim: Sym) -> Val:
        f = self.f
        total = i64(0)
        for monomial, factor in dim.terms:
            term = i64(factor)
            for atom in monomial:
                if isinstance(atom, str):
                    term = f.mul(term, self._params[atom])
                else:
                    term = f.mul(term, self._apply(atom.fn, self.size(atom.a), self.size(atom.b)))
            total = f.add(total, term)
        return total

    def _apply(self, fn: str, a: Val, b: Val) -> Val:
        f = self.f
        if fn in ("min", "max"):
            return f.min(a, b) if fn == "min" else f.max(a, b)
        rest = f.binary("srem", a, b)
        crosses = f.icmp("slt", f.binary("xor", rest, b), 0)
        crosses = f.binary("and", crosses, f.icmp("ne", rest, 0))
        if fn == "mod":
            return f.select(crosses, f.add(rest, b), rest)
        return f.sub(f.binary("sdiv", a, b), f.cast("zext", crosses, "i64"))

    @contextmanager
    def units(self) -> Iterator[Val]:
        """The body for one unit; closes the function."""
        with self.f.loop(self.f.params["begin"], self.f.params["end"]) as loop:
            yield loop.index
        self.f.ret()

    def split(self, number: Val, extents: Sequence[Dim]) -> list[Val]:
        """The index along each axis of a row-major position; the last axis varies fastest."""
        f = self.f
        digits: list[Val] = []
        for extent in reversed(extents[1:]):
            size = self.size(extent)
            digits.append(f.urem(number, size))
            number = f.udiv(number, size)
        return [number, *reversed(digits)]

    def move(self, pointer: Val, operand: Operand, axis: int, index: Val | int) -> Val:
        """The address `index` elements further along an axis of an operand."""
        f = self.f
        step = f.mul(self.size(operand.strides[axis]), operand.dtype.size)
        return f.offset(pointer, f.mul(step, index))

    def at(self, pointer: Val, operand: Operand, index: Sequence[Val | int]) -> Val:
        """The address of an element."""
        for axis, position in enumerate(index):
            pointer = self.move(pointer, operand, axis, position)
        return pointer
