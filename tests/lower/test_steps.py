"""Lowered steps, run in NumPy, against ONNX's reference; what was placed, copied and reused."""

from __future__ import annotations

import pytest
from simulate import simulate
from small_models import MODELS, SIZES, assert_close, expected, feeds_of, model

from planish.base.errors import VerifyError
from planish.lower.lowering import Lowered
from planish.lower.profiles import make_profiles
from planish.lower.schedule import group_steps, read_buffers, reuse_in_place, written_buffers
from planish.pipeline import Optimised, lower, optimise, read_graph
from planish.targets.cpu import host_target

DATA_SIZED = ("data_dependent",)


def _lowered(name: str) -> tuple[Optimised, Lowered]:
    graph = read_graph(model(MODELS[name]))
    ranges = make_profiles(graph, None)
    made = optimise(graph)
    return made, lower(made, host_target("", 1), ranges)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in DATA_SIZED])
@pytest.mark.parametrize("in_place", [False, True])
def test_steps_compute_what_the_model_says(name: str, in_place: bool) -> None:
    made = model(MODELS[name])
    feeds = feeds_of(made, SIZES)
    optimised, lowered = _lowered(name)
    if in_place:
        reuse_in_place(lowered.steps)
    assert_close(simulate(lowered, optimised.graph, feeds, SIZES), expected(made, feeds))


@pytest.mark.parametrize("name", MODELS)
def test_steps_of_one_group_do_not_wait_for_each_other(name: str) -> None:
    _, lowered = _lowered(name)
    groups = group_steps(lowered.steps)
    assert groups == sorted(groups)
    for first, second in (
        (a, b)
        for n, a in enumerate(lowered.steps)
        for m, b in enumerate(lowered.steps)
        if n < m and groups[n] == groups[m]
    ):
        assert not set(map(id, written_buffers(first))) & set(map(id, read_buffers(second)))
        assert first.host is None and second.host is None


def test_an_inception_block_has_no_concat_left() -> None:
    _, lowered = _lowered("inception")
    assert not [step for step in lowered.steps if step.note]
    made, _ = _lowered("inception")
    (concat,) = [layer for layer in made.layers if layer.kind == "concat"]
    into = [s for s in lowered.steps for out in s.outputs if out.shape != out.buffer.elements
            and out.buffer.name == concat.anchor.output.name]  # fmt: skip
    assert into, "producers write into the concat's buffer"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("concat_of_output", "is an output of the graph"),
        ("concat_same_twice", "more than once"),
        ("concat_with_constant", "is a constant"),
        ("concat_in_two", "already lies in"),
    ],
)
def test_a_concat_that_stays_says_why(name: str, says: str) -> None:
    _, lowered = _lowered(name)
    notes = [step.note for step in lowered.steps] + [note for _, note, _ in lowered.notes]
    assert any(says in note for note in notes), notes


def test_a_result_takes_over_the_memory_of_what_dies() -> None:
    _, lowered = _lowered("long_chain_in_place")
    before = len({id(b.root()) for s in lowered.steps for b in written_buffers(s)})
    saved = reuse_in_place(lowered.steps)
    after = len({id(b.root()) for s in lowered.steps for b in written_buffers(s)})
    assert before - after == saved


def test_a_defect_in_lowering_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError("nothing there")

    monkeypatch.setattr("planish.lower.lowering.loop_nest", broken)
    with pytest.raises(VerifyError, match=r"layer '.*' \(.*\): IndexError: nothing there"):
        _lowered("softmax")
