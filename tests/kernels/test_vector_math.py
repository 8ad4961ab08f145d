"""Elementary functions against f64 over wide ranges: errors in ulp, and the edges exactly."""

from __future__ import annotations

import numpy as np
import pytest
from lanes import run_function
from trial import targets

from planish.base.dtypes import DType
from planish.base.expr import Load, Var, call
from planish.kernels.cpu.narrow import shorten, widen
from planish.kernels.cpu.vector_math import FUNCTIONS, VectorMath
from planish.kernels.reference_expr import eval_expr
from planish.targets.cpu import CpuTarget

ULPS = {"erf": 6.0, "tanh": 6.0}  # the others: 3
EDGES = np.array(
    [0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 1e-45, -1e-45, 3.4e38,
     -3.4e38, 88.7, 88.8, -87.5, -103, -104, -105, 8388608, 4194304.5, 1e6, 1e9],
    np.float32,
)  # fmt: skip


def samples(seed: int) -> np.ndarray:
    """All magnitudes, the ranges where functions vary, and the edges."""
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, 1 << 32, 1 << 14, dtype=np.uint32).view(np.float32)]
    parts += [(rng.normal(size=1 << 12) * s).astype(np.float32) for s in (1e-3, 0.1, 1, 5, 30, 90)]
    parts += [np.repeat(EDGES, EDGES.size), np.tile(EDGES, EDGES.size)]
    whole = np.concatenate(parts)
    return whole[: whole.size // 64 * 64].copy()


def exact(fn: str, arguments: list[np.ndarray]) -> np.ndarray:
    wide = [a.astype(np.float64) for a in arguments]
    loads = [Load(n, (Var("m0"),), DType.F64) for n in range(len(wide))]
    return eval_expr(call(fn, *loads), {"m0": np.arange(wide[0].size)}, wide)


@pytest.mark.parametrize("target", targets(), ids=lambda t: t.isa)
@pytest.mark.parametrize("fn", sorted(FUNCTIONS))
def test_f32(fn: str, target: CpuTarget) -> None:
    x = samples(1)
    arguments = [x]
    if fn == "pow":
        arguments = [x, np.random.default_rng(2).permutation(x)]
        arguments[1][-(EDGES.size**2) :] = np.tile(EDGES, EDGES.size)
        arguments[0][-(EDGES.size**2) :] = np.repeat(EDGES, EDGES.size)
    got = run_function(
        target, target.lanes(4), lambda f, a: VectorMath(f, target).apply(fn, a), arguments, "float"
    )
    with np.errstate(all="ignore"):
        want = exact(fn, arguments)
        rounded = want.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    normal = finite & (np.abs(want) > 1.2e-38)
    ulp = np.spacing(np.abs(rounded[normal])).astype(np.float64)
    error = np.abs(got[normal] - want[normal]) / ulp
    worst = int(np.argmax(error))
    where = [a[normal][worst] for a in arguments]
    assert error[worst] <= ULPS.get(fn, 3.0), f"{fn}{where}: {error[worst]:.2f} ulp"
    tiny = finite & ~normal
    allowed = 3e-39 if fn == "sigmoid" else 3e-45
    assert np.abs(got[tiny] - want[tiny]).max(initial=0.0) <= allowed


@pytest.mark.parametrize("fn", sorted(FUNCTIONS))
def test_f64(fn: str) -> None:
    target = targets()[0]
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(size=512) * s for s in (0.01, 0.3, 1, 20)])
    arguments = [np.abs(x), rng.permutation(x)] if fn == "pow" else [x]
    got = run_function(
        target, 8, lambda f, a: VectorMath(f, target).apply(fn, a), arguments, "double"
    )
    with np.errstate(all="ignore"):
        want = exact(fn, arguments)
    finite = np.isfinite(want)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("target", targets(), ids=lambda t: t.isa)
@pytest.mark.parametrize("how", ["floor", "ceil", "trunc", "round"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding(how: str, dtype: type, target: CpuTarget) -> None:
    with np.errstate(invalid="ignore"):
        x = np.concatenate([samples(4).astype(dtype), np.arange(-8, 8, 0.25, dtype)])
    element = "float" if dtype is np.float32 else "double"
    got = run_function(
        target, 8, lambda f, a: VectorMath(f, target).rounded(how, a[0]), [x], element
    )
    with np.errstate(invalid="ignore"):
        want = {"floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint}[how](x)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("target", targets(), ids=lambda t: t.isa)
@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_every_narrow_float_survives(dtype: DType, target: CpuTarget) -> None:
    """Each of the 65536 patterns widens to its value and shortens back."""
    raw = np.arange(1 << 16, dtype=np.uint16)
    value = raw.view(dtype.numpy).astype(np.float32)

    def there(f, a):
        m = VectorMath(f, target)
        return m.bits(widen(m, f.cast("trunc", a[0], "<8 x i16>"), dtype))

    wide = run_function(target, 8, there, [raw.astype(np.uint32)], "i32").view(np.float32)
    np.testing.assert_array_equal(wide, value)

    def back(f, a):
        m = VectorMath(f, target)
        return f.cast("zext", shorten(m, m.floats(a[0], "<8 x float>"), dtype), "<8 x i32>")

    again = run_function(target, 8, back, [value.view(np.uint32)], "i32").astype(np.uint16)
    number = ~np.isnan(value)
    np.testing.assert_array_equal(again[number], raw[number])
    assert np.isnan(again[~number].view(dtype.numpy).astype(np.float32)).all()


@pytest.mark.parametrize("target", targets(), ids=lambda t: t.isa)
@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_shortening_rounds_to_even(dtype: DType, target: CpuTarget) -> None:
    value = np.concatenate([samples(5), np.linspace(-70000, 70000, 1 << 12, dtype=np.float32)])

    def body(f, a):
        m = VectorMath(f, target)
        return f.cast("zext", shorten(m, a[0], dtype), "<8 x i32>")

    def bits(f, a):
        return VectorMath(f, target).floats(body(f, a), "<8 x float>")

    got = run_function(target, 8, bits, [value], "float").view(np.uint32).astype(np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):
        want = value.astype(dtype.numpy)
    np.testing.assert_array_equal(got.view(dtype.numpy).astype(np.float32), want.astype(np.float32))
