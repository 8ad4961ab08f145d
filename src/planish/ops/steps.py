"""Building expansions: primitives in the making."""

from __future__ import annotations

import numpy as np

from planish.base.shapes import Dim
from planish.ops.op import Primitive

Operand = str | np.ndarray | None


class Steps:
    """Primitives in the making; each call appends one and gives the name of its output."""

    def __init__(self) -> None:
        self.made: list[Primitive] = []

    def __call__(self, op: str, *inputs: Operand, **attrs: object) -> str:
        """Append a primitive with one output."""
        name = f"t{len(self.made)}"
        self.made.append(Primitive(op, inputs, (name,), tuple(sorted(attrs.items()))))
        return name

    def reshape(self, x: Operand, *target: int) -> str:
        """Reshape to constant sizes; 0 copies a size, -1 takes the rest."""
        return self("Reshape", x, np.array(target, np.int64))

    def unsqueeze(self, x: Operand, *axes: int) -> str:
        """Insert axes of size 1."""
        return self("Unsqueeze", x, np.array(axes, np.int64))

    def size(self, dim: Dim, x: str, axis: int) -> Operand:
        """A size as an i64 scalar: a constant, or read off axis `axis` of `x`."""
        if isinstance(dim, int):
            return np.array(dim, np.int64)
        part = self("Shape", x, start=axis, end=axis + 1)
        return self("Squeeze", part, np.array([0], np.int64))

    def finish(self, *values: str) -> list[Primitive]:
        """The primitives, with values made the operator's outputs in order.

        A value that is an input, or serves twice, is copied by an Identity.
        """
        made_here = {output for p in self.made for output in p.outputs}
        names: dict[str, str] = {}
        for number, value in enumerate(values):
            if value not in made_here or value in names:
                value = self("Identity", value)
            names[value] = f"out{number}"
        return [
            Primitive(
                p.op,
                tuple(names.get(x, x) if isinstance(x, str) else x for x in p.inputs),
                tuple(names.get(x, x) for x in p.outputs),
                p.attrs,
            )
            for p in self.made
        ]
