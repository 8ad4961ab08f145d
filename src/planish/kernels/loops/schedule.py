"""Decides how a nest in normal form runs: which loop lanes follow, and what a unit of work is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planish.base.dtypes import DType
from planish.base.expr import Call, Const, Expr, Load, Var, children, walk
from planish.base.shapes import Dim, ceildiv
from planish.kernels.loops.linear import linear
from planish.kernels.loops.lookup import looked_up
from planish.kernels.loops.normal import ROW, Loop, Normal, Step, merge_outers

# Estimated cycles; only how they compare matters.
_LANE_LOAD, _LANE_STORE = 2.0, 1.2  # one lane of a vector that is loaded or stored lane by lane
_ALONE = 2.0  # a value without lanes, on top of its operations
_ACROSS = 15.0  # combining the lanes of an accumulator
_HEAVY = {
    **dict.fromkeys(("exp", "erf", "tanh", "sigmoid", "div", "sqrt", "recip", "rsqrt"), 8.0),
    **dict.fromkeys(("log", "log1p", "expm1", "softplus", "atan", "asin", "acos"), 12.0),
    **dict.fromkeys(("pow", "sin", "cos", "tan", "sinh", "cosh", "mod", "fmod"), 25.0),
    "cast": 0.5,
}
_ROW_BYTES = 1 << 20  # temporaries that lanes of outer points may need
_WOVEN = 4  # rows that are woven at most
_UNKNOWN = 64  # passes assumed of a loop whose extent is symbolic
_FAR = 1 << 40  # stride assumed of a symbolic stride


@dataclass(frozen=True)
class Schedule:
    """How a nest runs.

    Attributes:
        nest: The nest, its outer loops in the order in which they run.
        lanes: Values in a vector.
        unroll: Vectors computed at a time.
        vector: The outer loop that lanes follow, which is the last one; "" when lanes follow loops
            inside the steps.
        inner: For each step, the map or reduction loop that lanes follow; "" for none.
        across: The outer loop, the last but one, along which strided loads are neighbours; tiles of
            both are transposed. "" for none.
        prefix: Outer loops that the unit number counts through.
        split: The outer loop of which a unit does `block` passes; None where units do whole loops.
        block: Passes.
        suffix: Outer loops that run inside a unit.
        woven: A short loop taken out of the outer ones: its points are neighbours in the output,
            and lanes follow the loop around it. All of it is computed at once and stored woven.
    """

    nest: Normal
    lanes: int
    unroll: int
    vector: str
    inner: tuple[str, ...]
    across: str
    prefix: tuple[Loop, ...]
    split: Loop | None
    block: int
    suffix: tuple[Loop, ...]
    woven: Loop | None = None

    @property
    def counted(self) -> tuple[Dim, ...]:
        """Extents that the unit number runs through, the last fastest."""
        extents = tuple(loop.extent for loop in self.prefix)
        if self.split is None:
            return extents
        return (*extents, ceildiv(self.split.extent, self.block))


def estimate(dim: Dim) -> int:
    """A size, or a guess for a symbolic one."""
    return dim if isinstance(dim, int) else _UNKNOWN


def passes(loops: tuple[Loop, ...]) -> int:
    """Estimated passes through the body of nested loops."""
    total = 1
    for loop in loops:
        total *= max(1, estimate(loop.extent))
    return total


def work(nest: Normal) -> int:
    """Estimated values computed for one outer point."""
    return sum(passes((*step.maps, *step.reduces)) for step in nest.steps)


def lanes_for(nest: Normal, vector_bytes: int, tables: int = 0) -> int:
    """Values in a vector: as many as fit, counting 4 bytes a value where sizes are mixed."""
    exprs = [looked_up(s.expr, tables) for s in nest.steps]
    sizes = {e.dtype.size for expr in exprs for e in walk(expr) if _is_data(e)}
    sizes |= {step.dtype.size for step in nest.steps}
    width = 8 if sizes == {8} else min(4, max(sizes))
    return vector_bytes // width


def _is_data(e: object) -> bool:
    """Whether a sub-expression is a value and no index arithmetic."""
    if isinstance(e, Load):
        return True
    return isinstance(e, Call | Const) and e.dtype is not DType.I64


def plan(nest: Normal, vector_bytes: int, unroll: int, grain: int, *, tables: int = 0) -> Schedule:
    """Choose loops for lanes and units.

    Args:
        nest: The nest.
        vector_bytes: Width of a register.
        unroll: Vectors at a time.
        grain: Values that a unit should compute.
        tables: Instructions from which on functions of one byte are looked up in tables; 0: never.
    """
    lanes = lanes_for(nest, vector_bytes, tables)
    nest = merge_outers(replace(nest, outers=_by_stride(nest)))
    woven = _woven(nest)
    if woven is not None:
        nest = replace(nest, outers=nest.outers[:-1])
        along = nest.outers[-1]
        unroll = fit_unroll(along.extent, lanes, 1)
        units = _units(nest, along.var, "", lanes, unroll, grain)
        return Schedule(nest, lanes, unroll, along.var, ("",), "", *units, woven)
    vector, outer_cost = _best_outer(nest, lanes)
    inner, inner_cost = _best_inner(nest, lanes)
    if outer_cost > inner_cost:
        vector = ""
    if vector:
        inner = ("",) * len(nest.steps)
    across = _across(nest, vector) if vector else ""
    lanes = min(lanes, 16) if across else lanes
    last = [name for name in (across, vector) if name]
    front = tuple(o for o in nest.outers if o.var not in last)
    by_name = {o.var: o for o in nest.outers}
    if across:
        unroll = 1  # what is left of tiles goes lane by lane: long code
    elif vector:
        unroll = fit_unroll(by_name[vector].extent, lanes, unroll)
    nest = replace(nest, outers=(*front, *(by_name[name] for name in last)))
    prefix, split, block, suffix = _units(nest, vector, across, lanes, unroll, grain)
    return Schedule(nest, lanes, unroll, vector, inner, across, prefix, split, block, suffix)


def fit_unroll(extent: Dim, lanes: int, unroll: int) -> int:
    """Vectors at a time so that, where possible, none of a loop's vectors is left over."""
    if not isinstance(extent, int):
        return unroll
    vectors = max(1, extent // lanes)
    exact = [n for n in range(max(1, unroll // 2), unroll + 1) if vectors % n == 0]
    return max(exact, default=min(unroll, vectors))


def _stride(step: Step, var: str) -> int:
    """How far a step's store moves along a loop."""
    if step.offset is None:
        return 0
    slope = dict(linear(step.offset).terms).get(Var(var), 0)
    return abs(slope) if isinstance(slope, int) else _FAR


def _by_stride(nest: Normal) -> tuple[Loop, ...]:
    """Outer loops, those that jump far in the output first."""
    stores = [step for step in nest.steps if 0 <= step.target < ROW]
    if not stores:
        return nest.outers
    return tuple(sorted(nest.outers, key=lambda loop: -_stride(stores[-1], loop.var)))


def _points(loop: Loop, lanes: int) -> tuple[int, float]:
    """(lanes of a loop in use, vectors for each of its passes)."""
    extent = max(1, estimate(loop.extent))
    return min(extent, lanes), _round_up(extent, lanes) / lanes / extent


def _vector_cost(step: Step, loop: Loop, lanes: int, turned: bool) -> float:
    """Estimated cycles of one vector of a step's values with lanes along a loop.

    Args:
        step: The step.
        loop: The loop.
        lanes: Lanes of a vector.
        turned: Loads that jump go through transposed tiles.
    """
    used, _ = _points(loop, lanes)
    total = float(sum(map(_operation_cost, walk(step.expr))))
    offsets = [e.index[0] for e in walk(step.expr) if isinstance(e, Load)]
    for offset in dict.fromkeys(offsets):
        near = linear(offset).factor(loop.var) in (0, 1)
        total += 1.0 if near else 2.5 if turned else _LANE_LOAD * used
    if step.offset is not None:
        near = linear(step.offset).factor(loop.var) in (0, 1)
        total += 1.0 if near else _LANE_STORE * used
    return total


def _operation_cost(e: Expr) -> float:
    if not isinstance(e, Call) or e.dtype is DType.I64:
        return 0.0
    return _HEAVY.get(e.fn, 0.5)


def _outer_cost(nest: Normal, loop: Loop, lanes: int) -> float:
    """Cycles for each outer point with lanes along an outer loop."""
    turned = bool(_across(nest, loop.var))
    rows = 4 * lanes * sum(count for _, count in nest.rows)
    if rows > _ROW_BYTES:
        return float("inf")
    _, share = _points(loop, lanes)
    return share * sum(
        passes((*step.maps, *step.reduces)) * _vector_cost(step, loop, lanes, turned)
        for step in nest.steps
    )


def _best_outer(nest: Normal, lanes: int) -> tuple[str, float]:
    """The best outer loop for lanes, and its cost; of equals the innermost."""
    costs = [(_outer_cost(nest, o, lanes), -n, o.var) for n, o in enumerate(nest.outers)]
    best = min(costs, default=(float("inf"), 0, ""))
    return best[2], best[0]


def _best_inner(nest: Normal, lanes: int) -> tuple[tuple[str, ...], float]:
    """The best loop inside each step ("" for none), and the cost of all steps."""
    chosen, total = [], 0.0
    for step in nest.steps:
        count = passes((*step.maps, *step.reduces))
        alone = count * (_ALONE + sum(map(_operation_cost, walk(step.expr))))
        choices = [(alone, 0, "")]
        for n, loop in enumerate(() if step.ordered else (*step.maps, *step.reduces)):
            _, share = _points(loop, lanes)
            cost = count * share * _vector_cost(step, loop, lanes, turned=False)
            if loop in step.reduces:
                cost += _ACROSS * count / max(1, estimate(loop.extent))
            choices.append((cost, -n, loop.var))
        best = min(choices)
        chosen.append(best[2])
        total += best[0]
    return tuple(chosen), total


def _across(nest: Normal, vector: str) -> str:
    """The loop along which the loads that jump from lane to lane are neighbours."""
    (step, *others) = nest.steps
    if others or step.reduces or step.maps or step.ordered:
        return ""
    for loop in nest.outers:
        long = not isinstance(loop.extent, int) or loop.extent >= 4
        if loop.var != vector and long and tiled_loads(step, vector, loop.var):
            return loop.var
    return ""


def tiled_loads(step: Step, vector: str, across: str) -> list[Load]:
    """Loads that jump along `vector` and are neighbours along `across`; each once.

    Loads on a side of a `select` do not count, as they may not be read everywhere.
    """
    found: list[Load] = []

    def visit(e: Expr) -> None:
        if isinstance(e, Load):
            total = linear(e.index[0])
            slope = total.factor(vector)
            if slope is not None and slope not in (0, 1) and total.factor(across) == 1:
                found.append(e)
            return
        for child in e.args[:1] if isinstance(e, Call) and e.fn == "select" else children(e):
            visit(child)

    visit(step.expr)
    return list(dict.fromkeys(found))


def _woven(nest: Normal) -> Loop | None:
    """The last loop, if it is short and weaves rows of bytes that run along the loop before it."""
    if len(nest.outers) < 2 or len(nest.steps) != 1:
        return None
    (step,), (along, short) = nest.steps, nest.outers[-2:]
    if step.reduces or step.maps or step.ordered or step.offset is None or step.dtype.size != 1:
        return None
    if not isinstance(short.extent, int) or not 2 <= short.extent <= _WOVEN:
        return None
    stored = linear(step.offset)
    if stored.factor(short.var) != 1 or stored.factor(along.var) != short.extent:
        return None
    offsets = [linear(e.index[0]) for e in walk(step.expr) if isinstance(e, Load)]
    if not all(offset.factor(along.var) in (0, 1) for offset in offsets):
        return None
    return short if any(offset.factor(along.var) == 1 for offset in offsets) else None


def _units(
    nest: Normal, vector: str, across: str, lanes: int, unroll: int, grain: int
) -> tuple[tuple[Loop, ...], Loop | None, int, tuple[Loop, ...]]:
    """(prefix, split, block, suffix): the innermost loops that make up the grain are the suffix."""
    done = max(1, work(nest))
    for at in range(len(nest.outers) - 1, -1, -1):
        loop = nest.outers[at]
        if isinstance(loop.extent, int) and done * loop.extent <= grain:
            done *= loop.extent
            continue
        block = max(1, grain // done)
        if loop.var == vector:
            block = _round_up(block, lanes * unroll)
        elif loop.var == across:
            block = _round_up(block, lanes)
        if isinstance(loop.extent, int):
            step = {vector: lanes * unroll, across: lanes}.get(loop.var, 1)
            count = _round_up(loop.extent, block) // block
            block = _round_up(_round_up(loop.extent, count) // count, step)
            if block >= loop.extent:
                done *= loop.extent
                continue
        if block == 1:
            return nest.outers[: at + 1], None, 1, nest.outers[at + 1 :]
        return nest.outers[:at], loop, block, nest.outers[at:]
    return (), None, 1, nest.outers


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
