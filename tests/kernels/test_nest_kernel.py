"""How nests are scheduled, and what their code does beyond what the conformance test covers."""

from __future__ import annotations

import numpy as np
import pytest
from byte_nests import average_pool, copy, global_average, input_image, shuffle
from nests import N, image, layer_norm, nest, pointwise, pool, reduction, softmax, tensor, transpose
from trial import targets

from planish.base.dtypes import DType
from planish.base.expr import parse_expr
from planish.kernels.check import largest_error, run_kernel
from planish.kernels.cpu.nest import KERNEL
from planish.kernels.kernel import Config
from planish.kernels.loops.clamp import clamp_reduction
from planish.kernels.loops.linear import linear, never_negative
from planish.kernels.loops.moves import moved_as_bits
from planish.kernels.loops.normal import ROW, normalise
from planish.kernels.loops.schedule import Schedule, plan
from planish.kernels.reference import run_reference
from planish.kernels.workload import Workload
from planish.targets.cpu import CpuTarget

F32 = DType.F32


def schedule(w: Workload, unroll: int = 4, grain: int = 4096) -> Schedule:
    return plan(normalise(w), 64, unroll, grain)


def run(w: Workload, inputs: list[np.ndarray], target: CpuTarget | None = None) -> list[np.ndarray]:
    target = target or targets()[0]
    config: Config = next(iter(KERNEL.configs(w, target)))
    return run_kernel(KERNEL, w, config, target, inputs)


# ---- normal form --------------------------------------------------------------------------------


def test_dense_loops_become_one() -> None:
    made = schedule(pointwise("(neg (load:f32 0 o0 o1 m0))", tensor(7, 6, 40)))
    assert [loop.extent for loop in made.nest.outers] == [7 * 6 * 40]


def test_channels_last_loops_become_one() -> None:
    x = image(2, 5, 6, 7)
    w = nest([x], x, "o0<2 o1<5 o2<6",
             "t0:f32 = map m0<7 : (neg (load:f32 0 o0 o1 o2 m0)) -> 0[ o0 o1 o2 m0 ]")  # fmt: skip
    assert [loop.extent for loop in schedule(w).nest.outers] == [2 * 5 * 6 * 7]


def test_symbolic_loops_become_one() -> None:
    made = schedule(pointwise("(neg (load:f32 0 o0 o1 m0))", tensor(N, 6, 40)))
    assert [loop.extent for loop in made.nest.outers] == [N * 240]


def test_broadcast_keeps_loops_apart() -> None:
    w = pointwise("(add (load:f32 0 o0 o1 m0) (load:f32 1 m0))", tensor(7, 6, 40), tensor(40))
    assert [loop.extent for loop in schedule(w).nest.outers] == [42, 40]


def test_strides_keep_loops_apart() -> None:
    w = pointwise("(neg (load:f32 0 o0 m0))", tensor(7, 24),
                  output=tensor(7, 24, strides=(40, 1)))  # fmt: skip
    assert [loop.extent for loop in schedule(w).nest.outers] == [7, 24]


def test_quotient_and_remainder_split_a_loop() -> None:
    w = pointwise("(load:f32 0 (floordiv m0 4) (mod m0 4))",
                  tensor(6, 4, strides=(8, 1)), output=tensor(24))  # fmt: skip
    made = normalise(w)
    assert [loop.extent for loop in made.outers] == [6, 4]


def test_shared_maps_become_outer_loops() -> None:
    made = normalise(pool(33, 8, 4, 2, 2, 0, "max"))
    assert not made.rows and all(not step.maps for step in made.steps)


def test_rows_of_temporaries_are_memory() -> None:
    made = normalise(softmax(3, 50))
    assert made.rows == ((1, 50),)
    assert made.steps[1].target == ROW + 1


def test_rows_of_unknown_length_are_computed_again() -> None:
    made = normalise(softmax(3, N))
    assert not made.rows and len(made.steps) == 3


# ---- schedules ----------------------------------------------------------------------------------


def test_lanes_follow_the_contiguous_loop() -> None:
    assert schedule(softmax(3, 50)).inner == ("r0", "m0", "r0", "m0")
    assert schedule(layer_norm(3, 48)).inner == ("r0", "", "r0", "", "m0")
    made = schedule(pool(64, 9, 9, 3, 1, 1, "sum"))
    assert made.vector and made.nest.outers[-1].extent == 64
    assert schedule(reduction("sum", F32, 0, 9, 77)).vector
    assert not schedule(reduction("sum", F32, 1, 9, 77)).vector


def test_swapped_axes_go_through_tiles() -> None:
    assert schedule(transpose(2, 37, 25, 19)).across
    assert schedule(transpose(2, 37, 25, 19, back=True)).across
    assert not schedule(pointwise("(neg (load:f32 0 m0))", tensor(40))).across


@pytest.mark.parametrize("grain", [1, 100, 5000, 10**9])
def test_units_cover_every_point_once(grain: int) -> None:
    w = pointwise("(add (load:f32 0 o0 o1 m0) (load:f32 1 m0))", tensor(7, 6, 400), tensor(400))
    made = schedule(w, grain=grain)
    points = 1
    for extent in made.counted:
        assert isinstance(extent, int)
        points *= extent
    inside = 1
    for loop in made.suffix:
        assert isinstance(loop.extent, int)
        inside *= made.block if loop == made.split else loop.extent
    assert points * inside >= 7 * 6 * 400
    if made.split is not None:
        assert isinstance(made.split.extent, int)
        assert (made.counted[-1] - 1) * made.block < made.split.extent


# ---- bounds -------------------------------------------------------------------------------------


def test_checks_of_a_window_become_bounds() -> None:
    step = normalise(pool(64, 9, 9, 3, 1, 1, "max")).steps[0]
    made, bounds = clamp_reduction(step, set())
    assert "select" not in str(made.expr)
    assert all(b.at_least and b.below for b in bounds.values())


def test_checks_against_another_value_stay() -> None:
    """A maximum over zeros outside the data is no maximum over the data."""
    w = nest(
        [tensor(9)], tensor(9), "o0<9",
        "t0:f32 = max r0<3 : (select (lt (add o0 r0) 9) (load:f32 0 (add o0 r0)) 0x0p+0:f32)"
        " -> 0[ o0 ]",
    )  # fmt: skip
    step = normalise(w).steps[0]
    assert clamp_reduction(step, set())[0] == step
    x = -np.arange(1, 10, dtype=np.float32)
    np.testing.assert_array_equal(run(w, [x])[0], run_reference(w, [x])[0])


def test_signs_of_index_arithmetic() -> None:
    assert never_negative(parse_expr("(floordiv (add m0 3) 2)"))
    assert not never_negative(parse_expr("(sub m0 3)"))
    assert not never_negative(parse_expr("[N-3]"))
    assert never_negative(parse_expr("[2*N]"))
    assert linear(parse_expr("(sub (mul m0 4) (mul 2 m0))")).factor("m0") == 2


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", targets(), ids=lambda t: t.isa)
@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("combiner", ["max", "min", "argmax", "argmin", "argmax_last"])
def test_nan_wins(combiner: str, along: int, target: CpuTarget) -> None:
    w = reduction(combiner, F32, along, 40, 50)
    x = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    x[3, 7] = x[3, 20] = x[30, 7] = x[0, 0] = x[39, 49] = np.nan
    x[5] = -np.inf
    with np.errstate(invalid="ignore"):
        want = run_reference(w, [x])[0]
    np.testing.assert_array_equal(run(w, [x], target)[0], want)


@pytest.mark.parametrize("target", targets(), ids=lambda t: t.isa)
def test_nan_in_windows(target: CpuTarget) -> None:
    w = pool(20, 9, 9, 3, 1, 1, "max")
    x = np.random.default_rng(0).normal(size=(2, 20, 9, 9)).astype(np.float32)
    x[0, 3, 4, 4] = x[1, 19, 0, 0] = x[1, 0, 8, 8] = np.nan
    np.testing.assert_array_equal(run(w, [x], target)[0], run_reference(w, [x])[0])


@pytest.mark.parametrize("combiner", ["argmax", "argmin", "argmax_last", "argmin_last"])
@pytest.mark.parametrize("along", [0, 1])
def test_equal_values_keep_their_order(combiner: str, along: int) -> None:
    w = reduction(combiner, DType.I32, along, 40, 50)
    x = np.random.default_rng(0).integers(0, 3, (40, 50)).astype(np.int32)
    np.testing.assert_array_equal(run(w, [x])[0], run_reference(w, [x])[0])


def test_later_points_overwrite_earlier_ones() -> None:
    w = nest(
        [tensor(5), tensor(5, dtype=DType.I64)], tensor(3), "",
        "t0:f32 = map m0<5 : (load:f32 0 m0) -> 0[ (load:i64 1 m0) ]",
    )  # fmt: skip
    x = np.arange(5, dtype=np.float32)
    (got,) = run(w, [x, np.array([0, 2, 1, 2, 0])])
    np.testing.assert_array_equal(got, [4, 2, 3])


@pytest.mark.parametrize("target", targets(), ids=lambda t: t.isa)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130])
def test_every_rest(size: int, target: CpuTarget) -> None:
    rng = np.random.default_rng(size)
    x = rng.normal(size=(3, size)).astype(np.float32)
    gaps = tensor(3, size, strides=(200, 1))
    for w in (
        pointwise("(abs (load:f32 0 o0 m0))", tensor(3, size), output=gaps),
        reduction("sum", F32, 1, 3, size),
        reduction("prod", F32, 0, 3, size),
        softmax(3, size),
    ):  # fmt: skip
        assert largest_error(run(w, [x], target)[0], run_reference(w, [x])[0]) < 1e-5


def test_refusals() -> None:
    target = targets()[0]
    text = Workload("nest", (tensor(3, dtype=DType.STRING),), (tensor(3),), nest=None)
    assert "no nest" in str(KERNEL.refuse(text, target))
    strings = nest([tensor(3, dtype=DType.STRING)], tensor(3), "",
                   "t0:f32 = map m0<3 : 0x0p+0:f32 -> 0[ m0 ]")  # fmt: skip
    assert "not for native code" in str(KERNEL.refuse(strings, target))
    rows = nest([tensor(N)], tensor(N), "",
                "t0:f32 = sum m0<N r0<N : (load:f32 0 r0)",
                "t1:f32 = map m0<N : (temp:f32 0 (floordiv m0 2)) -> 0[ m0 ]")  # fmt: skip
    assert "not known" in str(KERNEL.refuse(rows, target))


def test_short_rows_of_bytes_are_woven() -> None:
    made = schedule(input_image(1, 3, 20, 24, channels=4))
    assert made.woven is not None and made.woven.extent == 4
    assert schedule(shuffle(20, 3, 40)).woven is not None
    assert schedule(copy((9, 24), target=(72, 3))).woven is None
    assert schedule(transpose(1, 3, 20, 21)).woven is None


def test_sums_of_bytes_are_whole() -> None:
    for w, dtype in ((global_average(8, 7, 3), DType.U16), (average_pool(8, 9, 3, 1), DType.I16)):
        step = normalise(w).steps[0]
        assert step.dtype is dtype
    assert normalise(global_average(8, 40)).steps[0].dtype is DType.I32
    assert normalise(softmax(3, 50)).steps[2].dtype is F32


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16], ids=str)
def test_copies_of_short_floats_keep_every_bit(dtype: DType) -> None:
    """Also the payloads of NaN, which conversions would change; literals are converted."""
    w = pointwise(f"(select (lt m0 20) (load:{dtype} 0 o0 m0) 0x1.8p+0:{dtype})",
                  tensor(9, 20, dtype=dtype), output=tensor(9, 33, dtype=dtype))  # fmt: skip
    bits = np.random.default_rng(0).integers(0, 1 << 16, (9, 20)).astype(np.uint16)
    for target in targets():
        (got,) = run(w, [bits.view(dtype.numpy)], target)
        np.testing.assert_array_equal(got[:, :20].view(np.uint16), bits)
        assert (got[:, 20:].astype(np.float32) == 1.5).all()
    computed = pointwise(f"(neg (load:{dtype} 0 m0))", tensor(9, dtype=dtype))
    assert moved_as_bits(computed) is computed
