"""Ranges of the symbolic dims: how a user says them, and what is assumed where nothing is said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from planish.base.errors import ModelError, ShapeError
from planish.base.shapes import Dim, Sym, name_of, substitute, symbols_of
from planish.graph.graph import Graph, TensorType, Value
from planish.graph.infer import facts_of, infer_types
from planish.ops.op import is_unknown
from planish.plan.records import Profile

# What an unsaid dim may be: (min, opt, max) of a leading axis (a batch), and of any other.
DEFAULT_BATCH = (1, 1, 64)
DEFAULT_OTHER = (1, 128, 512)

Triple = tuple[int, int, int]

# A name, which may hold any of the marks around it, and its sizes.
_PART = re.compile(r"\s*(\S.*?)\s*=\s*([\dx:]*)\s*(?:[,;]|$)", re.DOTALL)


def make_profiles(
    graph: Graph, said: str | Mapping[str, object] | Sequence[object] | None
) -> tuple[Profile, ...]:
    """The profiles of a build.

    Args:
        graph: The graph; its inputs name the symbolic dims.
        said: None; or one profile; or a list of them. A profile is text,
            "data=1x3x224x224:8x3x224x224:32x3x224x224,mask=…" (min:opt:max, or one shape for all
            three), or a mapping of input names to (min, opt, max) shapes or one shape, or of
            symbolic dims to (min, opt, max) or one size; text may name dims, too ("batch=1:8:32").

    Returns:
        One profile or more, each with every symbolic dim of the inputs; () for a static model.

    Raises:
        ShapeError: A profile does not fit the inputs.
    """
    names = list(
        dict.fromkeys(n for v in graph.inputs for d in v.type.shape or () for n in symbols_of(d))
    )
    if said is None or isinstance(said, str | Mapping):
        said = [{} if said is None else said]
    if not names:
        return ()
    made = []
    for one in said:
        ranges = dict(_ranges(graph, _parse(one) if isinstance(one, str) else one))
        for name, triple in _assumed(graph).items():
            ranges.setdefault(name, triple)
        made.append(Profile(tuple((name, *_checked(name, ranges[name])) for name in names)))
    return tuple(made)


def assumed_dims(graph: Graph, profiles: Sequence[Profile], said: object) -> list[str]:
    """The dims whose range nobody said, as lines for the build log."""
    if said:
        return []
    return [
        f"dim {name!r}: no profile given, {low}:{opt}:{high} assumed"
        for profile in profiles
        for name, low, opt, high in profile.dims
    ]


def _assumed(graph: Graph) -> dict[str, Triple]:
    ranges: dict[str, Triple] = {}
    for value in graph.inputs:
        for axis, dim in enumerate(value.type.shape or ()):
            for name in symbols_of(dim):
                ranges.setdefault(name, DEFAULT_OTHER if axis else DEFAULT_BATCH)
    return ranges


def _parse(text: str) -> dict[str, object]:
    """`name=shape:shape:shape,name=…` as a mapping."""
    found: dict[str, object] = {}
    at = 0
    while at < len(text) or not found:
        part = _PART.match(text, at)
        if part is None:
            rest = re.split("[,;]", text[at:])[0]
            _, given, shapes = rest.partition("=")
            if given:
                raise ShapeError(f"profile {text!r}: {shapes!r} holds something that is no size")
            raise ShapeError(
                f"profile {text!r}: expected name=MIN:OPT:MAX, found {rest!r}",
                hint="write it like data=1x3x224x224:8x3x224x224:32x3x224x224",
            )
        name, shapes = part.groups()
        at = part.end()
        sizes = [tuple(int(d) for d in s.split("x") if d.strip()) for s in shapes.split(":")]
        if len(sizes) not in (1, 3):
            raise ShapeError(f"profile {text!r}: expected one shape or three, found {len(sizes)}")
        found[name] = tuple(sizes * 3)[:3]
    return found


def _ranges(graph: Graph, said: object) -> Iterator[tuple[str, Triple]]:
    if not isinstance(said, Mapping):
        raise ShapeError(f"a profile is text or a mapping, not {type(said).__name__}")
    inputs = {value.name: value for value in graph.inputs}
    names = {n for v in graph.inputs for d in v.type.shape or () for n in symbols_of(d)}
    for key, value in said.items():
        if key in inputs:
            yield from _of_input(inputs[key], value)
        elif key in names:
            yield key, _triple(key, value)
        else:
            raise ShapeError(
                f"profile names {key!r}, which is neither an input ({sorted(inputs)}) nor a "
                f"symbolic dim ({sorted(names)})"
            )


def _of_input(value: Value, given: object) -> Iterator[tuple[str, Triple]]:
    shapes = list(given) if isinstance(given, Sequence) else []
    if shapes and all(isinstance(d, int) for d in shapes):
        shapes = [tuple(shapes)] * 3
    if len(shapes) != 3 or any(not isinstance(s, Sequence) for s in shapes):
        raise ShapeError(f"profile of {value.name!r}: expected min, opt and max, found {given!r}")
    for shape in shapes:
        if len(shape) != len(value.shape):
            raise ShapeError(
                f"profile of {value.name!r}: {tuple(shape)} has {len(shape)} dims, the input "
                f"{value.type} has {len(value.shape)}"
            )
    for axis, dim in enumerate(value.shape):
        sizes = tuple(int(shape[axis]) for shape in shapes)
        if isinstance(dim, int):
            if any(size != dim for size in sizes):
                raise ShapeError(
                    f"profile of {value.name!r}: axis {axis} is {dim} in the model, not {sizes}"
                )
            continue
        yield _name(value, dim), (sizes[0], sizes[1], sizes[2])


def _name(value: Value, dim: Dim) -> str:
    name = name_of(dim)
    if not name:
        raise ShapeError(f"input {value.name!r} has the computed size {dim}; name its dims instead")
    return name


def _triple(name: str, given: object) -> Triple:
    if isinstance(given, int):
        return given, given, given
    if isinstance(given, Sequence):  # text gives each size as a shape of rank 1
        given = [d[0] if isinstance(d, tuple) and len(d) == 1 else d for d in given]
    if isinstance(given, Sequence) and len(given) == 3 and all(isinstance(d, int) for d in given):
        return int(given[0]), int(given[1]), int(given[2])
    raise ShapeError(f"profile of dim {name!r}: expected min, opt and max, found {given!r}")


def _checked(name: str, triple: Triple) -> Triple:
    low, middle, high = triple
    if not 0 < low <= middle <= high:
        raise ShapeError(f"profile of dim {name!r}: expected 0 < min <= opt <= max, found {triple}")
    return triple


def fix_dims(graph: Graph, profiles: Sequence[Profile]) -> tuple[Profile, ...]:
    """Make dims that every profile holds to one value plain numbers.

    So a model built for one shape gets the code of a static model.

    Returns:
        The profiles without those dims; () when none is left.
    """
    ranges: dict[str, set[int]] = {}
    for profile in profiles:
        for name, low, _, high in profile.dims:
            ranges.setdefault(name, set()).update((low, high))
    fixed: dict[str, Dim] = {n: min(sizes) for n, sizes in ranges.items() if len(sizes) == 1}
    if not fixed:
        return tuple(profiles)
    _fix(graph, fixed)
    left = [tuple(row for row in profile.dims if row[0] not in fixed) for profile in profiles]
    return tuple(Profile(dims) for dims in dict.fromkeys(left) if dims)


def settle_dims(graph: Graph) -> None:
    """Make dims that the graph itself holds to one value plain numbers.

    A product of x [2,K] with a weight [5,3] runs with K = 5 only.

    Raises:
        ModelError: Two nodes hold a dim to different values.
    """
    while True:
        fixed: dict[str, Dim] = {}
        for fact in facts_of(graph):
            for dim, size in ((fact.a, fact.b), (fact.b, fact.a)):
                if fact.kind != "equal" or not isinstance(dim, Sym) or not isinstance(size, int):
                    continue
                name, size = _solved(dim, size)
                if not name or is_unknown(name):
                    continue
                if fixed.setdefault(name, size) != size:
                    raise ModelError(f"dim {name!r} would have to be {fixed[name]} and {size}")
        if not fixed:
            return
        _fix(graph, fixed)
        infer_types(graph)


def _solved(dim: Sym, size: int) -> tuple[str, int]:
    """The symbol and its value where a size holds one, times a number and plus one; else ("", 0).

    Raises:
        ModelError: No whole number solves it.
    """
    terms = dict(dim.terms)
    rest = terms.pop((), 0)
    ((atoms, step), *more) = terms.items()
    if more or len(atoms) != 1 or not isinstance(atoms[0], str):
        return "", 0
    name = atoms[0]
    value, remainder = divmod(size - rest, step)
    if remainder or value < 0:
        raise ModelError(f"the size {dim} would have to be {size}")
    return name, value


def _fix(graph: Graph, fixed: Mapping[str, Dim]) -> None:
    """Put numbers in the place of dims."""
    for value in graph.values():
        if value.type.shape is not None:
            shape = tuple(substitute(dim, fixed) for dim in value.shape)
            value.type = TensorType(value.dtype, shape)
        if value.dims is not None:
            value.dims = tuple(substitute(dim, fixed) for dim in value.dims)
