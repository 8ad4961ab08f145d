"""A layer as kernels see it: a hashable, printable record with no graph in it.

Kernels are written, tested, tuned and cached from this record alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from planish.base.dtypes import DType
from planish.base.expr import Expr, Size, print_expr, walk
from planish.base.nest import Nest
from planish.base.shapes import Dim, Shape, evaluate, product, symbols_of

NARROW_SUMS = 25  # bits; see `Workload.sum_bits`
Attr = int | float | str | tuple[int, ...] | tuple[str, ...]


@dataclass(frozen=True)
class Operand:
    """A tensor argument of a workload.

    Attributes:
        dtype: Element type.
        shape: Logical shape, in the axis order of the ONNX operator.
        strides: Elements between neighbours along each logical axis; 0 repeats (broadcast).
        const: Known at build time, so a kernel may have it packed in a format of its own.
    """

    dtype: DType
    shape: Shape
    strides: Shape
    const: bool = False

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        dense = "" if self.strides == dense_strides(self.shape) else f"@{list(self.strides)}"
        return f"{self.dtype}[{shape}]{dense}{'const' if self.const else ''}"


@dataclass(frozen=True)
class Workload:
    """One layer.

    Ops and their own operands, before the extra ones that only the epilogue loads:

    - `conv`: x [N, C, *spatial], w [O, C/group, *kernel]; attrs: strides, dilations, pads
      (begin…, end… as ONNX), group; sum_bits, `NARROW_SUMS`, is there where the constant weights of
      bytes keep all sums within ±2 to that power. Any number of spatial axes. Several outputs share
      the output channels in order (their channel counts add up to O): the outputs of merged
      sibling layers.
      When one batch or spatial axis more than needed can be merged with its neighbour, lowering has
      done so: a 1×1 convolution arrives with one spatial axis.
    - `conv_transpose`: x [N, C, *spatial], w [C, O/group, *kernel]; attrs as of `conv`. x[i] · w[k]
      is added to output i·stride + k·dilation - pad (begin); what falls outside is dropped. One
      output [N, O, *out]; output padding is already in its shape.
    - `matmul`: a [*batch, M, K], b [*batch, K, N]; both have the output's batch axes (stride 0
      where broadcast). b may be const. One output [*batch, M, N].
    - `attention`: q [*batch, Q, D], k [*batch, K, D], v [*batch, K, E]; attrs: scale (a float).
      softmax(q·kᵀ·scale)·v, the scores passed through `mask` first. Output [*batch, Q, E].
    - `nest`: what `nest` says.

    Attributes:
        op: One of the above.
        inputs: Operands in order. Extra operands of the epilogue follow the op's own.
        outputs: Tensors written.
        attrs: Sorted (name, value) pairs.
        epilogue: For each output, the value stored at output index o0, o1, … (the output's own
            logical axes; with several outputs o1 counts from that output's first channel).
            `Temp(0, ())` is the accumulator. Loads index extra operands. () stores the accumulator.
        nest: The body of a `nest` workload.
        mask: For `attention`: the score that the softmax sees at [*batch, q, k] (o0, o1, …), an
            epilogue of the scaled product, `Temp(0, ())`. None leaves it as it is.
        threads: Workers that share the layer.
    """

    op: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    attrs: tuple[tuple[str, Attr], ...] = ()
    epilogue: tuple[Expr, ...] = ()
    nest: Nest | None = None
    threads: int = 1
    mask: Expr | None = None

    def attr(self, name: str) -> Attr:
        """An attribute by name.

        Raises:
            KeyError: There is none of that name.
        """
        return dict(self.attrs)[name]

    def ints(self, name: str) -> tuple[int, ...]:
        """A tuple-of-int attribute."""
        value = self.attr(name)
        if not isinstance(value, tuple):
            raise KeyError(f"attribute {name!r} is {value!r}, not a tuple")
        return tuple(int(v) for v in value)

    @property
    def sum_bits(self) -> int:
        """Sums of products of integers lie within ±2 to this power; 31 where nothing is known."""
        return int(str(dict(self.attrs).get("sum_bits", 31)))

    @property
    def params(self) -> tuple[str, ...]:
        """Names of the symbolic sizes, sorted; kernels get their values in this order."""
        dims: list[Dim] = []
        for operand in (*self.inputs, *self.outputs):
            dims += [*operand.shape, *operand.strides]
        names: set[str] = set()
        for dim in dims:
            names |= symbols_of(dim)
        if self.nest is not None:
            for dim in nest_dims(self.nest):
                names |= symbols_of(dim)
        return tuple(sorted(names))

    @property
    def digest(self) -> str:
        """16 hex digits that name the workload; equal text, equal digest."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        words = [self.op, *map(str, self.inputs), "->", *map(str, self.outputs)]
        words += [f"{name}={_attr_text(value)}" for name, value in self.attrs]
        words.append(f"threads={self.threads}")
        lines = [" ".join(words)]
        lines += [f"  mask {print_expr(self.mask)}"] if self.mask is not None else []
        lines += [f"  epilogue {print_expr(e)}" for e in self.epilogue]
        if self.nest is not None:
            lines += ["  " + line for line in str(self.nest).splitlines()]
        return "\n".join(lines)


def nest_dims(nest: Nest) -> list[Dim]:
    """Every size that a nest mentions."""
    dims: list[Dim] = list(nest.outer)
    for stage in nest.stages:
        dims += [*stage.map, *stage.reduce]
        exprs = [stage.expr, *(stage.store.index if stage.store else ())]
        dims += [e.dim for expr in exprs for e in walk(expr) if isinstance(e, Size)]
    return dims


def flops(workload: Workload) -> Dim:
    """Floating-point operations: two a multiply-add of a contraction, one a point of a nest."""
    if workload.op == "nest":
        assert workload.nest is not None
        points: Dim = 0
        for stage in workload.nest.stages:
            points = points + product((*stage.map, *stage.reduce))
        return points * product(workload.nest.outer)
    x, w = workload.inputs[0], workload.inputs[1]
    if workload.op == "conv":
        made: Dim = 0
        for output in workload.outputs:
            made = made + product(output.shape)
        return made * product(w.shape[1:]) * 2
    if workload.op == "conv_transpose":
        return product(x.shape) * product(w.shape[1:]) * 2
    if workload.op == "matmul":
        return product(workload.outputs[0].shape) * x.shape[-1] * 2
    out = workload.outputs[0]  # attention: scores, then their product with the values
    rows = product(out.shape[:-1])
    return rows * w.shape[-2] * (x.shape[-1] + out.shape[-1]) * 2


_SYMBOL = 8


def typical(dim: Dim) -> int:
    """A size as estimates take it: each symbol counts as 8, so that all estimates agree."""
    return max(1, evaluate(dim, dict.fromkeys(symbols_of(dim), _SYMBOL)))


def dense_strides(shape: Shape) -> Shape:
    """Row-major strides: the last axis is contiguous."""
    strides: list[Dim] = []
    step: Dim = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))


def channels_last_strides(shape: Shape) -> Shape:
    """Strides of [N, C, *spatial] stored as N, *spatial, C."""
    if len(shape) < 3:
        return dense_strides(shape)
    order = (0, *range(2, len(shape)), 1)
    inner = dense_strides(tuple(shape[axis] for axis in order))
    strides: list[Dim] = [0] * len(shape)
    for axis, stride in zip(order, inner, strict=True):
        strides[axis] = stride
    return tuple(strides)


def elements(operand: Operand) -> Dim:
    """Number of elements of an operand."""
    return product(operand.shape)


def _attr_text(value: Attr) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
