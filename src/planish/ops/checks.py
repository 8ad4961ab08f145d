"""Reading inputs and attributes, and saying what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

from planish.base.dtypes import DType
from planish.base.errors import ModelError
from planish.base.shapes import Dim, Shape, Sym, dim_max
from planish.ops.op import Arg, Args, Attrs, Fact

FLOATS = frozenset((DType.F32, DType.F64, DType.F16, DType.BF16))
INTEGERS = frozenset(d for d in DType if d.is_integer and d.bits >= 8)
NUMBERS = FLOATS | INTEGERS
BOOL = frozenset((DType.BOOL,))
ANY = frozenset(DType)


def given(args: Args, number: int) -> Arg | None:
    """Input `number`, None where it is left out."""
    return args[number] if number < len(args) else None


def require(args: Args, number: int) -> Arg:
    """Input `number`.

    Raises:
        ModelError: It is missing.
    """
    arg = given(args, number)
    if arg is None:
        raise ModelError(f"input {number} is missing; {len(args)} inputs were found")
    return arg


def shape_of(args: Args, number: int) -> Shape:
    """The shape of an input; for code that runs only where ranks are known.

    Raises:
        ModelError: The rank is not known.
    """
    shape = require(args, number).shape
    if shape is None:
        raise ModelError(f"the rank of input {number} is not known")
    return shape


def expect_dtype(args: Args, number: int, accepts: frozenset[DType]) -> DType:
    """The dtype of an input, one of those accepted.

    Raises:
        ModelError: It is another.
    """
    dtype = require(args, number).dtype
    if dtype not in accepts:
        names = ", ".join(sorted(d.value for d in accepts))
        raise ModelError(f"input {number} is {dtype}, expected one of {names}")
    return dtype


def expect_rank(shape: Shape | None, low: int, number: int, high: int | None = None) -> None:
    """Check the rank of input `number` where it is known.

    Raises:
        ModelError: It lies outside [low, high]; without `high`, below `low`.
    """
    if shape is None or (low <= len(shape) and (high is None or len(shape) <= high)):
        return
    range_ = f"{low}" if high == low else f"{low} or more" if high is None else f"{low} to {high}"
    raise ModelError(f"input {number} has shape {text(shape)}, expected rank {range_}")


def axis_of(axis: int, rank: int, name: str = "axis") -> int:
    """A non-negative axis.

    Raises:
        ModelError: It lies outside [-rank, rank).
    """
    if not -rank <= axis < rank:
        raise ModelError(f"{name} is {axis}, expected a value from {-rank} to {rank - 1}")
    return axis % rank if rank else 0


def axes_of(axes: Sequence[int], rank: int, name: str = "axes") -> tuple[int, ...]:
    """Sorted non-negative axes.

    Raises:
        ModelError: One is out of range or comes twice.
    """
    found = sorted(axis_of(axis, rank, name) for axis in axes)
    if len(set(found)) < len(found):
        raise ModelError(f"{name} are {tuple(axes)}, expected no axis twice")
    return tuple(found)


def int_attr(attrs: Attrs, name: str, default: int | None = None) -> int:
    """An integer attribute.

    Raises:
        ModelError: It is missing and has no default.
    """
    value = attrs.get(name, default)
    if value is None:
        raise ModelError(f"attribute {name!r} is missing")
    return int(value)


def flag_attr(attrs: Attrs, name: str, default: int) -> bool:
    """An attribute that says yes (1) or no (0).

    Raises:
        ModelError: It is another number.
    """
    value = int_attr(attrs, name, default)
    if value not in (0, 1):
        raise ModelError(f"attribute {name!r} is {value}, expected 0 or 1")
    return value == 1


def float_attr(attrs: Attrs, name: str, default: float) -> float:
    """A float attribute."""
    value = attrs.get(name)
    return default if value is None else float(value)


def str_attr(attrs: Attrs, name: str, default: str, accepts: Sequence[str] = ()) -> str:
    """A string attribute.

    Raises:
        ModelError: It is none of those accepted.
    """
    value = attrs.get(name)
    value = default if value is None else value
    value = value.decode() if isinstance(value, bytes) else str(value)
    if accepts and value not in accepts:
        raise ModelError(f"attribute {name!r} is {value!r}, expected one of {', '.join(accepts)}")
    return value


def ints_attr(attrs: Attrs, name: str) -> tuple[int, ...] | None:
    """A tuple of integers; None where it is left out."""
    value = attrs.get(name)
    return None if value is None else tuple(int(v) for v in value)


def dtype_attr(attrs: Attrs, name: str, default: DType | None = None) -> DType:
    """A dtype given as its ONNX number; 0 and nothing mean the default.

    Raises:
        ModelError: The number is unknown, or missing without a default.
    """
    value = attrs.get(name) or None
    if value is None and default is not None:
        return default
    try:
        return value if isinstance(value, DType) else DType.from_onnx(int(value or 0))
    except KeyError:
        raise ModelError(f"attribute {name!r} is {value}, expected the number of a dtype") from None


def same_dtype(args: Args, numbers: Sequence[int]) -> DType:
    """The one dtype of some inputs that are there.

    Raises:
        ModelError: They differ.
    """
    found = {n: arg.dtype for n in numbers if (arg := given(args, n)) is not None}
    if len(set(found.values())) != 1:
        listing = ", ".join(f"input {n}: {dtype}" for n, dtype in found.items())
        raise ModelError(f"expected inputs of one dtype, found {listing or 'none'}")
    return next(iter(found.values()))


def equal(a: Dim, b: Dim, what: str) -> tuple[Fact, ...]:
    """() where two sizes are equal, the fact to check at run time where that is not known.

    Raises:
        ModelError: They differ.
    """
    if a == b:
        return ()
    if isinstance(a - b, int):
        raise ModelError(f"{what}: expected equal sizes, found {a} and {b}")
    return (Fact("equal", a, b),)


def broadcast(shapes: Sequence[Shape]) -> tuple[Shape, tuple[Fact, ...]]:
    """The shape that shapes broadcast to, as NumPy does it.

    Two sizes that are not known to be equal give the one that is a number, or their maximum: right
    for any sizes that may meet (each is then 1 or the result), and noted as a fact to check.

    Raises:
        ModelError: The shapes do not fit each other.
    """
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = []
    facts: list[Fact] = []
    for axis in range(-rank, 0):
        out: Dim = 1
        for shape in shapes:
            if -axis > len(shape) or shape[axis] == 1 or shape[axis] == out:
                continue
            size = shape[axis]
            if out == 1:
                out = size
            elif isinstance(out, Sym) or isinstance(size, Sym):
                facts.append(Fact("broadcast", out, size))
                out = _wider(out, size)
            else:
                listing = " and ".join(map(text, shapes))
                raise ModelError(f"shapes {listing} do not broadcast: {out} meets {size}")
        result.append(out)
    return tuple(result), tuple(facts)


def _wider(a: Dim, b: Dim) -> Dim:
    """The result of two sizes, not both known, that may be broadcast against each other."""
    if isinstance(a, int):
        return a
    return b if isinstance(b, int) else dim_max(a, b)


def text(shape: Shape | None) -> str:
    """A shape as error messages show it."""
    return "[?]" if shape is None else f"[{','.join(map(str, shape))}]"
