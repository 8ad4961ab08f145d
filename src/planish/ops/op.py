"""What an operator declares about itself. One record an operator; a file a family.

An operator sees only what it needs: the types of its inputs, their contents where constant, and its
attributes. It never sees a graph. Expressions number the operator's inputs 0, 1, … as given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Expr
from planish.base.nest import Nest
from planish.base.shapes import Dim, Shape

Attrs = Mapping[str, Any]


@dataclass(frozen=True)
class Arg:
    """What an operator knows of one input.

    Attributes:
        dtype: Element type.
        shape: Logical shape; None where the rank is unknown.
        data: Contents of a constant.
        dims: Contents of a small integer tensor (rank 0 or 1) as sizes, where they follow from
            shapes: the result of Shape, Gather, Concat, Add … on sizes. Known whenever `data` is
            such a tensor.
    """

    dtype: DType
    shape: Shape | None
    data: np.ndarray | None = None
    dims: tuple[Dim, ...] | None = None


Args = Sequence[Arg | None]  # None: an optional input left out


@dataclass(frozen=True)
class Result:
    """What is known of one output before running: type, and sizes as in `Arg.dims`."""

    dtype: DType
    shape: Shape | None
    dims: tuple[Dim, ...] | None = None


@dataclass(frozen=True)
class Reduction:
    """An output element as a combination over a space.

    Attributes:
        extents: The reduction space, loop variables r0, r1, ….
        combiner: One of `nest.COMBINERS`.
        body: The value combined, given the output index and the reduction variables in scope.
        finish: Applied to the combined value (`Temp(0, ())`) and the output index; None: as it is.
        dtype: dtype of the accumulator.
    """

    extents: tuple[Dim, ...]
    combiner: str
    body: Expr
    finish: Expr | None
    dtype: DType


@dataclass(frozen=True)
class Primitive:
    """A node of an expansion. Inputs are names of the operator's inputs ("0", "1", …), of earlier
    primitives' outputs, or constants."""

    op: str
    inputs: tuple[str | np.ndarray | None, ...]
    outputs: tuple[str, ...]
    attrs: tuple[tuple[str, Any], ...] = ()


Infer = Callable[[Args, Attrs], list[Result]]
Element = Callable[[Args, Attrs, int, tuple[Expr, ...]], Expr]
Reduce = Callable[[Args, Attrs, int, tuple[Expr, ...]], Reduction]
MakeNest = Callable[[Args, Attrs], Nest]
Expand = Callable[[Args, Attrs], list[Primitive] | None]
Refuse = Callable[[Args, Attrs], str | None]


@dataclass(frozen=True)
class Op:
    """One operator at the canonical opset.

    At most one of `element`, `reduce`, `nest`, `expand` and `anchor` says how it runs natively. An
    operator with none of them runs on the host.

    Attributes:
        name: ONNX operator name.
        infer: Output types (and sizes carried by shape arithmetic) from the inputs.
        element: (args, attrs, output number, output index) -> the output element. For pointwise
            operators, broadcasts and everything that only moves elements.
        reduce: (args, attrs, output number, output index) -> the output element as a reduction.
        nest: The whole loop nest, for operators that are neither (scatter, scan, …). Stores number
            the operator's outputs; a Load numbered len(inputs)+n reads back output n.
        expand: Primitive operators that mean the same; None where this instance cannot be expanded.
        anchor: Name of the contraction template's workload op ("conv", "matmul", "attention", …).
        refuse: Why this instance cannot run natively although the operator can; None when it can.
    """

    name: str
    infer: Infer
    element: Element | None = None
    reduce: Reduce | None = None
    nest: MakeNest | None = None
    expand: Expand | None = None
    anchor: str = ""
    refuse: Refuse | None = None
