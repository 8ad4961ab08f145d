"""Model files from hell: each is imported, or refused by a `PlanishError`; the process lives on."""

from __future__ import annotations

import functools

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import model_of, node

from planish.base.errors import PlanishError
from planish.graph.verify import verify
from planish.importer import import_model

_SETTINGS = settings(
    deadline=None,
    max_examples=1500,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Small models that touch every part of the format."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    conv = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Shape", "r", "s"),
        node("Reshape", "r s", "y"),
        node("Softmax", "y", "z", axis=1),
    ]
    out = [onnx.ValueInfoProto(name="b")]
    yes = onnx.helper.make_graph([node("Neg", "x", "b")], "yes", [], out)
    no = onnx.helper.make_graph([node("Abs", "x", "b")], "no", [], out)
    branch = node("If", "f", "y", then_branch=yes, else_branch=no)
    opsets = [onnx.helper.make_opsetid("", 21)]
    twice = onnx.helper.make_function("f", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], opsets)
    models = [
        model_of(conv, {"x": ["N", 3, 8, 8]}, ["y", "z"], {"w": weight}, 17),
        model_of([branch], {"x": [3]}, ["y"], {"f": np.array(True)}, 18),
        model_of([node("Twice", "x", "y", domain="f")], {"x": [3]}, ["y"], functions=[twice],
                 domains={"f": 1}),
        model_of([node("Slice", "x", "y", starts=[0], ends=[2]),
                  node("Pad", "y", "z", pads=[1, 1])], {"x": [3]}, ["z"], opset=8),
    ]  # fmt: skip
    return tuple(model.SerializeToString() for model in models)


def check(data: bytes) -> None:
    try:
        graph = import_model(data)
    except PlanishError:
        return
    verify(graph)


@_SETTINGS
@given(st.data())
def test_changed_bytes(data: st.DataObject) -> None:
    model = bytearray(data.draw(st.sampled_from(seeds())))
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(model))


@_SETTINGS
@given(st.data())
def test_cut_and_spliced(data: st.DataObject) -> None:
    left, right = data.draw(st.sampled_from(seeds())), data.draw(st.sampled_from(seeds()))
    begin = data.draw(st.integers(0, len(left)))
    end = data.draw(st.integers(0, len(right)))
    check(left[:begin] + right[end:])


@settings(_SETTINGS, max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    check(data)
    check(b"\x08\x0a" + data)
