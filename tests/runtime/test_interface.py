"""What callers may hand in and get out: names, dtypes, shapes, layouts, DLPack, buffers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny_plans as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planish.base.dtypes import DType
from planish.base.errors import InputError, PlanishError, ShapeError
from planish.plan import Profile, TensorInfo
from planish.runtime import Engine
from planish.runtime.address import address_of

N = tiny.N


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(tiny.add1_plan(profiles=(Profile((("N", 1, 4, 64),)),)), threads=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def square() -> Iterator[Engine]:
    """Two inputs that share a symbol; the sizes 2 and 2*N are demanded, too."""
    inputs = [("a", (N, 2)), ("b", (2, N)), ("c", (N * 2,))]
    step = tiny.step("add1", [tiny.X, tiny.Y], N * 2)
    plan = tiny.plan([step], inputs=inputs, outputs=[("y", (N, 2))])
    with Engine(plan) as engine:
        yield engine


def message(engine: Engine, kind: type[PlanishError], *args: Any) -> str:
    with pytest.raises(kind) as caught:
        engine.run(*args)
    return str(caught.value)


def test_names(engine: Engine) -> None:
    x = tiny.ramp(3)
    assert "missing inputs ['x']" in message(engine, InputError, {})
    assert "unknown inputs ['z']" in message(engine, InputError, {"x": x, "z": x})
    assert "the inputs are x: f32[N]" in message(engine, InputError, {"z": x})
    assert "found ndarray" in message(engine, InputError, x)
    assert "found NoneType" in message(engine, InputError, None)
    assert "found list" in message(engine, InputError, [x])
    with pytest.raises(InputError, match=r"expected 1 inputs, x: f32.N.; found 2"):
        engine(x, x)


def test_dtypes(engine: Engine) -> None:
    told = message(engine, InputError, {"x": np.zeros(3)})
    assert "input 'x': expected dtype float32, found float64" in told
    assert "astype('float32')" in told
    assert "found >f4" in message(engine, InputError, {"x": np.zeros(3, ">f4")})
    assert "found object" in message(engine, InputError, {"x": np.array([None])})
    for junk in ([1.0, 2.0], 3, "text", None, object()):
        assert "expected a NumPy array" in message(engine, InputError, {"x": junk})


def test_shapes(engine: Engine, square: Engine) -> None:
    x = tiny.ramp(4)
    told = message(engine, ShapeError, {"x": x.reshape(2, 2)})
    assert "expected shape [N], found [2, 2]: rank 2" in told
    told = message(engine, ShapeError, {"x": tiny.ramp(65)})
    assert "N = 65 is not from 1 to 64" in told and "--profile" in told
    assert "N = 0 is not from 1" in message(engine, ShapeError, {"x": tiny.ramp(0)})

    def feeds(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> dict[str, Any]:
        return {n: np.zeros(s, np.float32) for n, s in (("a", a), ("b", b), ("c", c))}

    square.run(feeds((3, 2), (2, 3), (6,)))
    told = message(square, ShapeError, feeds((3, 2), (2, 4), (6,)))
    assert "input 'b'" in told and "N = 4, but axis 0 of input 'a' has N = 3" in told
    told = message(square, ShapeError, feeds((3, 2), (2, 3), (7,)))
    assert "expected shape [2*N], found [7]: axis 0 has 7, expected 6" in told
    told = message(square, ShapeError, feeds((3, 5), (2, 3), (6,)))
    assert "axis 1 has 5, expected 2" in told


def test_several_profiles() -> None:
    profiles = (Profile((("N", 1, 1, 4),)), Profile((("N", 10, 12, 20),)))
    with Engine(tiny.add1_plan(profiles=profiles)) as engine:
        for size in (1, 4, 10, 20):
            engine(tiny.ramp(size))
        told = message(engine, ShapeError, {"x": tiny.ramp(7)})
        assert "N = 7 is not from 1 to 4; or N = 7 is not from 10 to 20" in told


def test_layouts_are_copied_where_they_must(engine: Engine) -> None:
    wide = tiny.ramp(20)
    raw = np.zeros(41, np.uint8)
    odd = raw[1:].view(np.float32)  # not aligned
    odd[:] = tiny.ramp(10)
    readonly = tiny.ramp(10)
    readonly.flags.writeable = False
    for x in (wide[::2], wide[::-1], odd, readonly, np.broadcast_to(wide[:1], 7), wide[3:9]):
        assert np.array_equal(engine.run({"x": x})["y"], x + 1)


class Exporter:
    """Speaks DLPack and nothing else, as another framework's tensor."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class Broken:
    def __dlpack__(self, **_: Any) -> Any:
        raise RuntimeError("it lies on another device")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def test_dlpack(engine: Engine) -> None:
    x = tiny.ramp(10)
    out = np.zeros(10, np.float32)
    made = engine.run({"x": Exporter(x)}, {"y": Exporter(out)})["y"]
    assert np.array_equal(out, x + 1)
    assert address_of(made) == address_of(out)
    assert np.array_equal(np.from_dlpack(engine(x)), x + 1)
    assert "another device" in message(engine, InputError, {"x": Broken()})


def test_numpy_subclasses_and_scalars(engine: Engine) -> None:
    class Mine(np.ndarray):
        pass

    x = tiny.ramp(5).view(Mine)
    assert np.array_equal(engine.run({"x": x})["y"], np.asarray(x) + 1)
    scalar = tiny.plan(
        [tiny.step("add1", [tiny.X, tiny.Y], 1)], inputs=[("x", ())], outputs=[("y", ())]
    )
    with Engine(scalar) as small:
        made = small(np.float32(4))
        assert made.shape == () and made == 5


def test_output_buffers(engine: Engine) -> None:
    x, out = tiny.ramp(6), np.zeros(6, np.float32)
    assert engine.run({"x": x}, {"y": out})["y"] is out
    assert np.array_equal(out, x + 1)
    fresh = engine.run({"x": x})["y"]
    assert fresh is not out and not np.may_share_memory(fresh, out)
    readonly = np.zeros(6, np.float32)
    readonly.flags.writeable = False
    told = message(engine, InputError, {"x": x}, {"y": readonly})
    assert "output 'y': expected a buffer that is writable" in told
    told = message(engine, InputError, {"x": x}, {"y": np.zeros(12, np.float32)[::2]})
    assert "C-contiguous" in told
    odd = np.zeros(25, np.uint8)[1:].view(np.float32)
    assert "aligned" in message(engine, InputError, {"x": x}, {"y": odd})
    assert "dtype float32, found float64" in message(
        engine, InputError, {"x": x}, {"y": np.zeros(6)}
    )
    told = message(engine, ShapeError, {"x": x}, {"y": np.zeros((2, 3), np.float32)})
    assert "expected a buffer of shape [6], found [2, 3]" in told
    assert "unknown output 'q'" in message(engine, InputError, {"x": x}, {"q": out})
    assert "found list" in message(engine, InputError, {"x": x}, [out])
    assert "expected a NumPy array" in message(engine, InputError, {"x": x}, {"y": [0.0] * 6})
    assert "NumPy scalar" in message(engine, InputError, {"x": x}, {"y": np.float32(1)})


def test_buffers_that_overlap(engine: Engine) -> None:
    both = np.zeros(12, np.float32)
    for x, y in ((both[:6], both[:6]), (both[:6], both[5:11]), (both[3:9], both[0:6])):
        assert "shares memory" in message(engine, InputError, {"x": x}, {"y": y})
    both[:6] = tiny.ramp(6)
    engine.run({"x": both[:6]}, {"y": both[6:]})
    assert np.array_equal(both[6:], tiny.ramp(6) + 1)


def test_every_dtype_goes_through() -> None:
    """The boundary takes and gives them all."""
    for dtype in DType:
        if dtype in (DType.STRING, DType.OBJECT):
            continue
        plan = dataclasses.replace(
            tiny.static_plan((3,)),
            inputs=(TensorInfo("x", dtype, (3,)),),
            outputs=(TensorInfo("y", dtype, (3,)),),
            steps=(),
        )
        with Engine(plan) as engine:
            assert engine(np.zeros(3, dtype.numpy)).dtype == dtype.numpy


def test_address_is_numpys() -> None:
    for array in (np.zeros(4)[1:], np.zeros((3, 4)).T, np.zeros(0), np.ones(())):
        assert address_of(array) == array.ctypes.data


_arrays = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=3),
    st.builds(
        lambda shape, dtype, order, step: np.zeros(shape, dtype, order)[..., ::step],
        st.lists(st.integers(0, 70), min_size=1, max_size=2),
        st.sampled_from(["f4", ">f4", "f8", "i4", "?", "U3", "O", "V5", "M8[s]"]),
        st.sampled_from("CF"),
        st.sampled_from([1, 1, 1, 2, -1]),
    ),
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(st.sampled_from(["x", "x", "y", "", 3, None]), _arrays, max_size=3),
    st.none() | st.dictionaries(st.sampled_from(["y", "z", 0]), _arrays, max_size=2),
)
def test_fuzz(engine: Engine, feeds: dict[Any, Any], outputs: dict[Any, Any] | None) -> None:
    """Whatever comes in: the right answer or an error of ours."""
    try:
        made = engine.run(feeds, outputs)
    except PlanishError:
        return
    assert set(feeds) == {"x"}
    assert feeds["x"].dtype == np.float32
    assert np.array_equal(made["y"], feeds["x"] + 1)
