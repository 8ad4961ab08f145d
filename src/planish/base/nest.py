"""Loop nests: the shape of every layer that is not a contraction.

A nest runs its stages in order for each point of its outer loops. The outer loops are parallel:
no point reads what another writes. A stage either *maps* (one value for each point of its inner
loops) or *reduces* (one combined value), or both: an inner map with a reduction inside it.

    nest o0<8 o1<128
      t0 = max r0<128: (load:f32 0 o0 o1 r0)                      softmax over the last axis
      t1 = map m0<128: (exp (sub (load:f32 0 o0 o1 m0) (temp:f32 0)))
      t2 = sum r0<128: (temp:f32 1 r0)
      map m0<128: (div (temp:f32 1 m0) (temp:f32 2)) -> 0[o0 o1 m0]

Loop variables: `o0…` outer, `m0…` inner map, `r0…` reduction; the last one varies fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.expr import Expr, parse_expr, print_expr
from planish.base.shapes import Dim, parse_dim

# How a reduction combines. `first` of an empty reduction is undefined; the identity of the others
# is 0, 1, the lowest and the highest value. argmax and argmin give the i64 position in the
# flattened reduction space of the first best (argmax_last, argmin_last: of the last best).
COMBINERS = ("sum", "prod", "max", "min", "argmax", "argmin", "argmax_last", "argmin_last", "or")


@dataclass(frozen=True)
class Store:
    """Where a stage's value goes: output number `tensor` at `index`, in the nest's variables."""

    tensor: int
    index: tuple[Expr, ...]


@dataclass(frozen=True)
class Stage:
    """One step of a nest, run for each point of the outer loops.

    Attributes:
        map: Extents of the inner map loops m0…; () gives one value per outer point.
        reduce: Extents of the reduction loops r0…; () for a plain map.
        combiner: How the reduction combines; "" for a plain map.
        expr: The value, or the value combined.
        dtype: dtype of the result (of the accumulator, for a reduction).
        store: Where the value goes; None keeps it as a temporary for later stages, which read it
            as `Temp(stage number, map indices)`.
    """

    map: tuple[Dim, ...]
    reduce: tuple[Dim, ...]
    combiner: str
    expr: Expr
    dtype: DType
    store: Store | None = None


@dataclass(frozen=True)
class Nest:
    """Parallel outer loops around stages. Operands are numbered as the workload's inputs."""

    outer: tuple[Dim, ...]
    stages: tuple[Stage, ...]

    def __str__(self) -> str:
        return print_nest(self)


def print_nest(nest: Nest) -> str:
    """The text of a nest, one line a stage."""
    lines = [" ".join(["nest", *_loops("o", nest.outer)])]
    for number, stage in enumerate(nest.stages):
        loops = [*_loops("m", stage.map), *_loops("r", stage.reduce)]
        head = " ".join([f"t{number}:{stage.dtype} = {stage.combiner or 'map'}", *loops])
        tail = ""
        if stage.store is not None:
            at = " ".join(map(print_expr, stage.store.index))
            tail = f" -> {stage.store.tensor}[ {at} ]"
        lines.append(f"  {head} : {print_expr(stage.expr)}{tail}")
    return "\n".join(lines)


def parse_nest(text: str) -> Nest:
    """Read a nest back from its text.

    Raises:
        ValueError: The text is not a nest.
    """
    head, *rows = [line for line in text.strip().splitlines() if line.strip()]
    words = head.split()
    if not words or words[0] != "nest":
        raise ValueError(f"a nest starts with 'nest', not {head!r}")
    try:
        outer = tuple(parse_dim(word.split("<", 1)[1]) for word in words[1:])
        return Nest(outer, tuple(map(_parse_stage, rows)))
    except IndexError as error:
        raise ValueError(f"a loop or a stage of this nest is cut short: {text!r}") from error


def _parse_stage(row: str) -> Stage:
    left, found, right = row.partition(" : ")
    if not found:
        raise ValueError(f"a stage has ' : ' before its expression: {row!r}")
    name, _, kind, *loops = left.split()
    body, stored, target = right.partition(" -> ")
    store = None
    if stored:
        number, _, at = target.partition("[")
        words = parse_expr(f"(load:i64 0 {at.strip().removesuffix(']')})")
        store = Store(int(number), getattr(words, "index", ()))
    extents = {p: tuple(parse_dim(w.split("<")[1]) for w in loops if w[0] == p) for p in "mr"}
    return Stage(
        map=extents["m"],
        reduce=extents["r"],
        combiner="" if kind == "map" else kind,
        expr=parse_expr(body),
        dtype=DType(name.split(":")[1]),
        store=store,
    )


def _loops(prefix: str, extents: tuple[Dim, ...]) -> list[str]:
    return [f"{prefix}{n}<{extent}" for n, extent in enumerate(extents)]
