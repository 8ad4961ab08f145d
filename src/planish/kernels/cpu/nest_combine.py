"""How reductions combine: accumulators in registers, from the first value to the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from planish.base.dtypes import DType
from planish.kernels.cpu.arithmetic import Arithmetic, literal
from planish.kernels.loops.clamp import identity
from planish.kernels.loops.normal import Step
from planish.targets.ir import Val, real

_FUNCTIONS = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "or": "or"}


class Combiner:
    """The combiner of one step. An accumulator is a list: [value], or for args [value, position].

    Args:
        step: A step with a reduction.
        arithmetic: Where code goes.
    """

    def __init__(self, step: Step, arithmetic: Arithmetic) -> None:
        self.name = step.combiner
        self.is_arg = step.combiner.startswith("arg")
        self.dtype = step.expr.dtype if self.is_arg else step.dtype
        self.arithmetic = arithmetic
        self.f = arithmetic.f

    def start(self, lanes: int) -> list[Val]:
        """The accumulator of nothing."""
        value = literal(identity(self.name, self.dtype), self.dtype, lanes)
        return [value, literal(0, DType.I64, lanes)] if self.is_arg else [value]

    def add(self, total: Sequence[Val], value: Sequence[Val], mask: Val | None = None) -> list[Val]:
        """Combine a value or another accumulator into one; lanes off the mask keep theirs."""
        if self.is_arg:
            return self._better(total, value, mask)
        (x,) = value
        if mask is not None:
            x = self.f.select(mask, x, self.start(x.lanes)[0])
        return [self.arithmetic.call(_FUNCTIONS[self.name], [total[0], x], self.dtype)]

    def _better(self, total: Sequence[Val], value: Sequence[Val], mask: Val | None) -> list[Val]:
        """The better of two (value, position); of equals the first, or the last. NaN beats all."""
        f, call = self.f, self.arithmetic.call
        (best, at), (x, position) = total, value
        wins = call("gt" if "max" in self.name else "lt", [x, best], self.dtype)
        equal = call("eq", [x, best], self.dtype)
        if self.dtype.is_float:
            new, old = f.fcmp("uno", x, x), f.fcmp("uno", best, best)
            one = literal(1, DType.BOOL, x.lanes)
            wins = f.binary("or", wins, f.binary("and", new, f.binary("xor", old, one)))
            equal = f.binary("or", equal, f.binary("and", new, old))
        earlier = f.icmp("sgt" if self.name.endswith("_last") else "slt", position, at)
        wins = f.binary("or", wins, f.binary("and", equal, earlier))
        if mask is not None:
            wins = f.binary("and", wins, mask)
        return [f.select(wins, x, best), f.select(wins, position, at)]

    def tree(self, values: Sequence[Sequence[Val]]) -> list[Val]:
        """Combine values pair by pair, so that few wait for each other."""
        if self.name in ("max", "min") and self.dtype.is_float:
            return [self._extreme([value[0] for value in values])]
        parts = [list(value) for value in values]
        while len(parts) > 1:
            pairs = [self.add(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
            parts = pairs + parts[2 * len(pairs) :]
        return parts[0]

    def _extreme(self, values: Sequence[Val]) -> Val:
        """The largest or smallest float: NaN is looked for apart, two values at a time."""
        f, predicate = self.f, "ogt" if self.name == "max" else "olt"
        best, broken = values[0], f.fcmp("uno", values[0], values[-1])
        for value in values[1:]:
            best = f.select(f.fcmp(predicate, best, value), best, value)
        for a, b in zip(values[1:-1:2], [*values[2:-1:2], values[-1]], strict=False):
            broken = f.binary("or", broken, f.fcmp("uno", a, b))
        return f.select(broken, real(math.nan, best.ty), best)

    def across(self, total: Sequence[Val]) -> list[Val]:
        """Combine the lanes, halving the vector until one is left."""
        if self.name in ("max", "min") and self.dtype.is_float and total[0].lanes > 1:
            return [self._extreme_lane(total[0])]
        return self._halved(total, self.add)

    def _halved(
        self, total: Sequence[Val], add: Callable[[list[Val], list[Val]], list[Val]]
    ) -> list[Val]:
        lanes, parts = total[0].lanes, list(total)
        while lanes > 1:
            half = lanes // 2
            low = [self.f.shuffle(p, p, range(half)) for p in parts]
            high = [self.f.shuffle(p, p, range(half, lanes)) for p in parts]
            if half == 1:
                low, high = ([self.f.extract(p, 0) for p in side] for side in (low, high))
            parts, lanes = add(low, high), half
        return parts

    def _extreme_lane(self, total: Val) -> Val:
        """The largest or smallest lane of floats; NaN is looked for once, for all lanes."""
        f, predicate = self.f, "ogt" if self.name == "max" else "olt"
        broken = self.arithmetic.math.any_lane(f.fcmp("uno", total, total))

        def better(a: list[Val], b: list[Val]) -> list[Val]:
            return [f.select(f.fcmp(predicate, a[0], b[0]), a[0], b[0])]

        (best,) = self._halved([total], better)
        return f.select(broken, real(math.nan, best.ty), best)

    def result(self, total: Sequence[Val], to: DType) -> Val:
        """The reduction's value."""
        if self.is_arg:
            return self.arithmetic.cast(total[1], DType.I64, to)
        return total[0]
