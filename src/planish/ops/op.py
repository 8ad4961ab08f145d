"""What an operator declares about itself. One record an operator; a file a family.

An operator sees only what it needs: the types of its inputs, their contents where constant, and its
attributes. It never sees a graph. Expressions number the operator's inputs 0, 1, … as given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.expr import Expr
from planish.base.nest import Nest
from planish.base.shapes import Dim, Shape, Sym, substitute, symbol, symbols_of

Attrs = Mapping[str, Any]


@dataclass(frozen=True)
class Arg:
    """What an operator knows of one input.

    Attributes:
        dtype: Element type.
        shape: Logical shape; None where the rank is unknown.
        data: Contents of a constant.
        dims: Contents of a small tensor of rank 0 or 1 with whole-numbered elements as sizes, where
            they follow from shapes: the result of Shape, Gather, Concat, Add … on sizes. Floats may
            carry sizes too (Cast, then Mul by 2.0). `sizes.known_sizes` reads `data` the same way,
            so a caller need not fill this in for constants.
    """

    dtype: DType
    shape: Shape | None
    data: np.ndarray | None = None
    dims: tuple[Dim, ...] | None = None


Args = Sequence[Arg | None]  # None: an optional input left out


@dataclass(frozen=True)
class Fact:
    """What must hold between two sizes for a result to be right; not decidable at build time.

    Attributes:
        kind: "equal", or "broadcast": equal, or one of the two is 1.
        a: One size.
        b: The other size.
    """

    kind: str
    a: Dim
    b: Dim


@dataclass(frozen=True)
class Result:
    """What is known of one output before running.

    Attributes:
        dtype: Element type.
        shape: Shape; None where the rank is unknown. Named sizes of a model are 1 or more. Sizes
            that depend on the contents of tensors (NonZero, Compress …) are 0 or more; they are
            `unknown(0)`, `unknown(1)` …, numbered within the operator, and `name_unknowns` makes
            them unique in a graph.
        dims: Contents as sizes, as in `Arg.dims`.
        facts: What the runtime has to check once the symbols have values.
    """

    dtype: DType
    shape: Shape | None
    dims: tuple[Dim, ...] | None = None
    facts: tuple[Fact, ...] = ()


_UNKNOWN = "_unknown"  # how the names of data-dependent sizes begin


def unknown(number: int) -> Sym:
    """The data-dependent size number `number` of an operator's results."""
    return symbol(f"{_UNKNOWN}{number}")


def is_unknown(name: str) -> bool:
    """True for the name of a data-dependent size."""
    return name.startswith(_UNKNOWN)


def name_unknowns(results: Sequence[Result], prefix: str) -> list[Result]:
    """Results with the fresh data-dependent sizes renamed after `prefix`.

    Args:
        results: What `infer` gave.
        prefix: Unique in the graph; the name of the node's first output serves.
    """
    found: set[str] = set()
    for result in results:
        for dim in (*(result.shape or ()), *(result.dims or ())):
            found |= symbols_of(dim)
    fresh = [name for name in found if is_unknown(name) and name[len(_UNKNOWN) :].isdigit()]
    if not fresh:
        return list(results)
    env: dict[str, Dim] = {
        name: symbol(f"{_UNKNOWN}_{prefix}_{name[len(_UNKNOWN) :]}") for name in fresh
    }

    def rename(dims: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
        return None if dims is None else tuple(substitute(dim, env) for dim in dims)

    def renamed(fact: Fact) -> Fact:
        return Fact(fact.kind, substitute(fact.a, env), substitute(fact.b, env))

    return [
        replace(r, shape=rename(r.shape), dims=rename(r.dims), facts=tuple(map(renamed, r.facts)))
        for r in results
    ]


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
    """A node of an expansion.

    Attributes:
        op: Operator name.
        inputs: Names of the operator's inputs ("0", "1", …) or of earlier primitives' outputs,
            constants, or None for an input left out.
        outputs: Fresh names; "out0", "out1", … are the operator's own outputs.
        attrs: (name, value) pairs.
    """

    op: str
    inputs: tuple[str | np.ndarray | None, ...]
    outputs: tuple[str, ...]
    attrs: tuple[tuple[str, Any], ...] = ()


Infer = Callable[[Args, Attrs], list[Result]]
Element = Callable[[Args, Attrs, int, tuple[Expr, ...]], Expr]
Reduce = Callable[[Args, Attrs, int, tuple[Expr, ...]], Reduction]
MakeNest = Callable[[Args, Attrs], Nest]
Expand = Callable[[Args, Attrs], list[Primitive] | None]
Plain = Callable[[Args, Attrs], bool]
Refuse = Callable[[Args, Attrs], str | None]
Flops = Callable[[Args, Attrs], Dim | None]


@dataclass(frozen=True)
class Op:
    """One operator at the canonical opset.

    At most one of `element`, `reduce`, `nest`, `expand` and `anchor` says how it runs natively,
    with two exceptions. Beside `anchor` or `expand` there may be `reduce`, the same in plain form,
    for dtypes and sizes that no template takes and for instances that cannot be expanded. And an
    operator with both `anchor` and `expand` is expanded until its instances have the form that the
    template takes. An operator with none of them runs on the host.

    Attributes:
        name: ONNX operator name.
        infer: Output types (and sizes carried by shape arithmetic) from the inputs.
        element: (args, attrs, output number, output index) -> the output element. For pointwise
            operators, broadcasts and everything that only moves elements. Here and below, a Load
            on the side of a `select` that is not taken is not performed: its index may be illegal.
        reduce: (args, attrs, output number, output index) -> the output element as a reduction.
        nest: The whole loop nest, for operators that are neither (softmax, scatter, scan, …).
            Stores number the operator's outputs; a Load numbered len(args)+n reads back output n.
            The points of a map run in order, so a map that reads back its own output sees what
            earlier points stored. `prune.keep_outputs` drops what nobody wants.
        reads_back: The nest reads its own outputs, so nothing may be fused to its stores.
        expand: Primitive operators that mean the same; None where this instance cannot be expanded.
        anchor: Name of the contraction template's workload op ("conv", "matmul", "attention", …).
        plain: Whether this instance runs by `reduce` although there is a template, which needs
            numbers where this one has symbolic sizes.
        refuse: Why this instance cannot run natively although the operator can; None when it can.
            `table.refusal` asks it together with the rules that hold for all operators.
        opaque: Its types are known although operands are no tensors; `infer` never looks at these.
        flops: Floating point operations of one run; None: one for each output element, or for each
            element reduced.
    """

    name: str
    infer: Infer
    element: Element | None = None
    reduce: Reduce | None = None
    nest: MakeNest | None = None
    reads_back: bool = False
    expand: Expand | None = None
    anchor: str = ""
    plain: Plain | None = None
    refuse: Refuse | None = None
    opaque: bool = False
    flops: Flops | None = None
