"""How pointwise operators are declared: one scalar function each, broadcasting for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.expr import Const, Expr, const, index
from planish.base.shapes import Shape, Sym
from planish.ops.checks import broadcast, expect_dtype, require, same_dtype, shape_of
from planish.ops.op import Arg, Args, Attrs, Op, Refuse, Result
from planish.ops.scalar import Index, accumulator, cast, load, minimum, size, sub
from planish.ops.sizes import Combine, combine, known_sizes

Body = Callable[..., Expr]  # (attrs, x, y, …) -> value


def pointwise(
    name: str,
    body: Body,
    *,
    inputs: int | None,
    accepts: frozenset[DType],
    result: DType | None = None,
    sizes: Combine | Mapping[bool, Combine] | None = None,
    refuse: Refuse | None = None,
) -> Op:
    """An operator whose output element depends on the elements at the same place of its inputs.

    Args:
        name: ONNX operator name.
        body: Attributes and one expression an input -> the value. Half types arrive as f32.
        inputs: How many; None: one or more.
        accepts: dtypes of all inputs, which must be one and the same.
        result: dtype of the output; None: that of the inputs.
        sizes: What it does to sizes; a mapping where that depends on the dtype being a float.
        refuse: As in `Op`.
    """

    def infer(args: Args, attrs: Attrs) -> list[Result]:
        count = len(args) if inputs is None else inputs
        if len(args) != count or count == 0:
            raise ModelError(f"expected {count or 'one or more'} inputs, found {len(args)}")
        dtype = same_dtype(args, range(count))
        expect_dtype(args, 0, accepts)
        shapes = [require(args, n).shape for n in range(count)]
        out = result or dtype
        known = [shape for shape in shapes if shape is not None]
        if len(known) < count:
            return [Result(out, None)]
        shape, facts = broadcast(known)
        fn = sizes.get(dtype.is_float) if isinstance(sizes, Mapping) else sizes
        dims = None if fn is None else combine(fn, [known_sizes(a) for a in args], shape)
        return [Result(out, shape, dims, facts)]

    def element(args: Args, attrs: Attrs, output: int, at: Index) -> Expr:
        operands = [wide(fetch(args, n, at)) for n in range(len(args))]
        return cast(body(attrs, *operands), result or require(args, 0).dtype)

    return Op(name, infer, element=element, refuse=refuse)


def fetch(args: Args, number: int, at: Index, out: Shape | None = None) -> Expr:
    """The element of an input that broadcasting puts at an output index.

    A constant of one element becomes a literal.

    Args:
        args: All inputs.
        number: Which one.
        at: The output index.
        out: The output shape; None: the broadcast of all inputs.
    """
    arg = require(args, number)
    literal = single(arg)
    if literal is not None:
        return literal
    shape = shape_of(args, number)
    if out is None:
        shapes = [shape_of(args, n) for n, a in enumerate(args) if a is not None]
        out = broadcast(shapes)[0]
    tail = at[len(at) - len(shape) :]
    axes = zip(shape, out[len(out) - len(shape) :], tail, strict=True)
    return load(number, [_step(dim, total, i) for dim, total, i in axes], arg.dtype)


def _step(dim: int | Sym, out: int | Sym, i: Expr) -> Expr:
    """The index along an axis of size `dim` at output index `i` of `out`."""
    if dim == 1:
        return index(0)
    if dim == out:
        return i
    return minimum(i, sub(size(dim), index(1)))  # `dim` is 1 or `out`, known only at run time


def single(arg: Arg) -> Const | None:
    """A constant of one element as a literal."""
    if arg.data is None or arg.data.size != 1 or not arg.dtype.llvm:
        return None
    value = arg.data.reshape(-1)[0]
    return const(value.item() if arg.data.dtype.kind in "biuf" else float(value), arg.dtype)


def wide(x: Expr) -> Expr:
    """X in the dtype in which functions of it are computed."""
    return cast(x, accumulator(x.dtype))
