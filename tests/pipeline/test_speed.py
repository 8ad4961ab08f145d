"""8 bits only where they pay, on plans whose times are made up."""

from __future__ import annotations

from collections.abc import Sequence

from planish.pipeline.speed import choose_by_time, conversions, layer_times, record_of
from planish.plan import NativeStep, Plan

LAYERS = {"a": ("conv_a", "relu_a"), "b": ("conv_b",), "c": ("conv_c",)}


def step(origin: Sequence[str], micros: float, note: str = "") -> NativeStep:
    return NativeStep(
        name=" + ".join(origin), origin=tuple(origin), args=(), params=(), phases=(), group=0,
        weight=1.0, kernel="", tactic="", reason=(note,) if note else (), workload="",
        micros=micros,
    )  # fmt: skip


def plan(steps: Sequence[NativeStep]) -> Plan:
    return Plan("p", (), (), (), tuple(steps), (), (), 0, 0, (), 1, {})


class Machine:
    """Times of each layer in 8 bits and floats, and of a conversion before each 8-bit layer."""

    def __init__(self, narrow: dict[str, float], convert: float = 0.0) -> None:
        self.narrow, self.convert = narrow, convert
        self.built: list[frozenset[str]] = []

    def build(self, floats: frozenset[str]) -> Plan:
        self.built.append(floats)
        steps = []
        for name, origin in LAYERS.items():
            if name in floats:
                steps.append(step(origin, 10.0))
                continue
            if self.convert:
                steps.append(step(origin[:1], self.convert, "converts f32 to u8"))
            steps.append(step(origin, self.narrow[name]))
        return plan(steps)

    def measure(self, plans: Sequence[Plan]) -> list[float]:
        return [sum(step.micros for step in made.steps) for made in plans]

    def choose(self):
        floats = self.build(frozenset(LAYERS))
        return choose_by_time(self.build, floats, LAYERS, self.measure)


def test_all_layers_pay() -> None:
    made = Machine({"a": 3.0, "b": 3.0, "c": 3.0}).choose()
    assert made.layers == () and not made.floats
    assert [t.what for t in made.tried] == ["fp32", "int8"]


def test_a_layer_that_loses_goes_back() -> None:
    made = Machine({"a": 3.0, "b": 14.0, "c": 3.0}).choose()
    assert made.layers == ("b",) and not made.floats
    assert [t.what for t in made.tried] == ["fp32", "int8", "int8 with 1 layer in fp32"]
    assert made.tried[-1].micros == made.micros == 16.0
    assert record_of(made.tried)[-1]["layers"] == ["b"]


def test_conversions_count() -> None:
    made = Machine({"a": 3.0, "b": 9.0, "c": 3.0}, convert=2.0).choose()
    assert made.layers == ("b",)
    assert made.tried[1].conversions == (3, 6.0)
    assert conversions(made.plan) == (2, 4.0)


def test_a_slower_plan_is_not_kept() -> None:
    made = Machine({"a": 11.0, "b": 12.0, "c": 13.0}).choose()
    assert made.floats and made.layers == tuple(LAYERS) and made.micros == 30.0


def test_reverting_that_does_not_help_is_taken_back() -> None:
    class Odd(Machine):
        def measure(self, plans: Sequence[Plan]) -> list[float]:
            each = super().measure(plans)
            return [t + (50.0 if len(p.steps) == 3 and self.one(p) else 0.0)
                    for t, p in zip(each, plans, strict=True)]  # fmt: skip

        def one(self, made: Plan) -> bool:
            return sum(s.micros == 10.0 for s in made.steps) == 1

    made = Odd({"a": 3.0, "b": 11.0, "c": 3.0}).choose()
    assert made.layers == () and not made.floats
    assert made.tried[-1].what == "int8 with 1 layer in fp32"


def test_time_is_shared_out_over_nodes() -> None:
    made = plan([step(("conv_a", "relu_a", "conv_b"), 9.0), step(("conv_c",), 4.0)])
    assert layer_times(made, LAYERS) == {"a": 6.0, "b": 3.0, "c": 4.0}
