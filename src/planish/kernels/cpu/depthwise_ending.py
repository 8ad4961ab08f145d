"""The end of a depthwise convolution of bytes, where its results are bytes and packs make them."""

from __future__ import annotations

from collections.abc import Sequence

from planish.base.expr import Expr, Load, Temp, Var, loads_of, transform, walk
from planish.kernels.cpu.depthwise_ground import Block, Ground, Place
from planish.kernels.cpu.epilogue import Bias, split_bias
from planish.kernels.cpu.expression import ExprEmitter, Memory, memory_type
from planish.kernels.cpu.quads import CHUNKS, store_bytes
from planish.kernels.cpu.requantize import (
    Rounding,
    at_most,
    bytes_of,
    halve,
    round_to_i32,
    take_rounding,
)
from planish.targets.ir import Val, vector, zero


class Ending:
    """The epilogue of a tile in the order of the chunks, ended by packs."""

    def __init__(self, ground: Ground, block: Block, place: Place) -> None:
        self.ground, self.block, self.place = ground, block, place
        self.f, self.frame, self.d = ground.f, ground.frame, ground.d
        assert self.d.rounding is not None
        self.rounding: Rounding = self.d.rounding
        self.bias: Bias = split_bias(self.d.w, self.d.t, 0, lane_axis=1)
        assert self.bias.store.expr is not None
        self.loads: list[Load] = [
            load
            for load in dict.fromkeys(loads_of(self.bias.store.expr))
            if load.tensor in self.d.ordered
        ]
        self.value = transform(self._rounded(), self._numbered)
        self.operands = [
            Memory(pointer, operand.strides, operand.dtype)
            for pointer, operand in zip(self.frame.inputs, self.d.w.inputs, strict=True)
        ]
        self.read: dict[tuple[int, int], Val] = {}
        self.base: Val | None = None

    def _rounded(self) -> Expr:
        """What is rounded, without the operand that the sums start from."""
        expr = self.bias.store.expr
        made = take_rounding(expr) if expr is not None else None
        assert made is not None
        return made.value

    def _numbered(self, expr: Expr) -> Expr:
        """Loads by channel become temporaries 1, 2, …."""
        if isinstance(expr, Load) and expr in self.loads:
            return Temp(1 + self.loads.index(expr), (), expr.dtype)
        return expr

    def start(self, chunk: int) -> Val:
        """What a chunk's sums start from."""
        if self.bias.load is None:
            return zero(self.ground.sum_type)
        if self.bias.load.tensor in self.d.ordered:
            return self._constant(self.bias.load, chunk)
        return self.bias.start(self.frame, zero(self.ground.sum_type), self.block.channel)

    def _constant(self, load: Load, chunk: int) -> Val:
        """A chunk of a constant, as it lies in memory."""
        f, d, key = self.f, self.d, (load.tensor, chunk)
        if key not in self.read:
            size = load.dtype.size
            first = f.mul(self.block.number, d.tile.bytes * size)
            at = f.offset(self.frame.inputs[load.tensor], first)
            ty = vector(memory_type(load.dtype), d.lanes)
            self.read[key] = f.load(ty, f.offset(at, chunk * d.lanes * size))
        return self.read[key]

    def finish(
        self, pixel: tuple[int, int], chunks: tuple[int, ...], parts: Sequence[Val]
    ) -> list[Val]:
        """Go on with a pixel whose last parts are the sums of some chunks; at the end, store it.

        Returns:
            What of the pixel there is: i16 vectors of two chunks each, then rounded i32 vectors.
        """
        count = len(parts) - len(chunks)
        made = list(parts[:count])
        made += [self._round(pixel, *both) for both in zip(chunks, parts[count:], strict=True)]
        narrow = [part for part in made if part.element == "i16"]
        wide = made[len(narrow) :]
        while len(wide) > 1:
            narrow.append(halve(self.f, self.rounding, *wide[:2]))
            wide = wide[2:]
        if len(narrow) == CHUNKS // 2:
            self._store(pixel, bytes_of(self.f, self.rounding, narrow))
        return narrow + wide

    def _round(self, pixel: tuple[int, int], chunk: int, value: Val) -> Val:
        """A vector of sums as rounded i32, not yet narrowed."""
        emitter = ExprEmitter(
            self.f,
            self.d.t,
            self.frame.size,
            lanes=self.d.lanes,
            lane_var="o1",
            vars=self._variables(pixel),
            operands=self.operands,
            temps={0: value},
        )
        for number, load in enumerate(self.loads):
            raw = self._constant(load, chunk)
            emitter.temps[1 + number] = emitter.arithmetic.from_memory(raw, load.dtype)
        held = at_most(self.f, emitter.emit(self.value, exact=True), self.rounding.most)
        return round_to_i32(self.f, held)

    def _variables(self, pixel: tuple[int, int]) -> dict[str, Val]:
        """The output's index at a pixel, where anything reads it."""
        if not any(isinstance(part, Var) for part in walk(self.value)):
            return {}
        index = self.ground.index_of(self.place, self.block.channel, pixel)
        return {f"o{axis}": at for axis, at in enumerate(index)}

    def _store(self, pixel: tuple[int, int], value: Val) -> None:
        if self.base is None:
            first = self.ground.index_of(self.place, self.block.channel, (0, 0))
            self.base = self.frame.at(self.frame.outputs[0], self.ground.y, first)
        at = self.ground.address_of(self.base, pixel)
        store_bytes(self.f, value, at, self.block.count, masked=self.ground.wide)
