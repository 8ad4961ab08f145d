"""The debug dial: numbered dumps, printed levels, checks after each pass, unoptimised builds."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planish import build
from planish.base.errors import PlanishError, VerifyError
from planish.graph.graph import Graph, Node, Patch
from planish.passes import fold_scales
from planish.passes.rewrite import Pass
from planish.passes.table import PASSES
from planish.pipeline import optimise, read_graph
from planish.pipeline.dumps import Dumps
from planish.pipeline.explain import explain_build
from planish.plan import plan_text
from planish.runtime import Engine


def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((4, 3, 1, 1)).astype(np.float32), "w")
    norm = [
        numpy_helper.from_array(rng.uniform(0.5, 1.5, 4).astype(np.float32), name)
        for name in ("s", "b", "m", "v")
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("Concat", ["r", "x"], ["y"], name="join", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "dial",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7, 4, 4])],
        [weight, *norm],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_dumps_are_numbered_one_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_DUMP", str(tmp_path / "dump"))
    plan = build(model(), level=0)
    names = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert [int(name[:2]) for name in names] == list(range(len(names)))
    stages = [name[3:-4] for name in names]
    assert stages[0] == "import" and "fold_scales" in stages
    assert stages[-6:] == ["layers", "steps", "source", "tactics", "memory", "plan"]
    texts = {s: (tmp_path / "dump" / n).read_text() for s, n in zip(stages, names, strict=True)}
    assert "BatchNormalization" in texts["import"]
    assert "Mul" not in texts["fold_scales"]
    assert "Conv + Relu" in texts["layers"]
    assert "conv f32" in texts["steps"] and "define" in texts["source"]
    assert texts["plan"] == plan_text(plan, times=True)
    assert "cpu." in texts["tactics"] and texts["memory"] == "(no buffers)\n"


def test_the_arena_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = [
        helper.make_node("MaxPool", [a], [b], name=b, kernel_shape=[2, 2])
        for a, b in (("x", "p"), ("p", "q"), ("q", "y"))
    ]
    graph = helper.make_graph(
        pools,
        "pools",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 5, 5])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    monkeypatch.setenv("PLANISH_DUMP", str(tmp_path))
    plan = build(made, level=0)
    (drawing,) = [path.read_text() for path in tmp_path.glob("*-memory.txt")]
    # 2·7·7 and 2·6·6 floats, alive together when the second is made from the first.
    assert "p: 392 at" in drawing and "q: 288 at" in drawing
    assert plan.arena >= 392 + 288


def test_levels_print_more_and_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PLANISH_DUMP", raising=False)
    printed = []
    for level in range(7):
        monkeypatch.setenv("PLANISH_DEBUG", str(level))
        build(model(), level=0)
        printed.append(capsys.readouterr().err)
    assert printed[0] == ""
    assert [len(a) < len(b) for a, b in pairwise(printed)] == [True] * 6
    assert "planish: import: 4 nodes" in printed[1] and "plan dial" in printed[2]
    assert "define" not in printed[3] and "define" in printed[4]
    assert "graph dial" in printed[5] and ".text" in printed[6]


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanishError, match="cannot make the folder"):
        Dumps(tmp_path / "file" / "dump", 0)


def _lying(graph: Graph):
    """Replaces Relu by Abs: well formed, but wrong."""
    for node in list(graph.nodes):
        if node.op == "Relu":
            value = type(node.output)(graph.fresh("wrong"), node.output.type)
            made = Node("Abs", node.inputs, [value], name="abs", origin=node.origin)
            yield Patch("wrong", (node,), (made,), ((node.output, value),))


def _breaking(graph: Graph):
    """Leaves an output without a name of its own."""
    for node in list(graph.nodes):
        if node.op == "Relu":
            value = type(node.output)(graph.fresh("twin"), node.output.type)
            made = Node("Abs", node.inputs, [value], name="abs", origin=node.origin)
            yield Patch("breaks", (node,), (made,), ((node.output, value),))
            made.output.name = graph.inputs[0].name


def test_check_2_finds_a_pass_that_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    lying = (Pass("turn_relu", "wrong", _lying),)
    monkeypatch.setenv("PLANISH_CHECK", "1")
    optimise(read_graph(model()), passes=lying)
    monkeypatch.setenv("PLANISH_CHECK", "2")
    with pytest.raises(VerifyError, match="after pass turn_relu: output 'y' is off"):
        optimise(read_graph(model()), passes=lying)


def test_check_2_accepts_the_real_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_CHECK", "2")
    assert len(optimise(read_graph(model()), passes=PASSES).layers) == 2


def test_check_1_finds_a_malformed_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    breaking = (Pass("break_names", "wrong", _breaking),)
    monkeypatch.setenv("PLANISH_CHECK", "0")
    optimise(read_graph(model()), passes=breaking)
    monkeypatch.setenv("PLANISH_CHECK", "1")
    with pytest.raises(VerifyError, match="after pass break_names"):
        optimise(read_graph(model()), passes=breaking)


def test_a_wrong_rewrite_is_found_by_bisection(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = optimise(read_graph(model())).graph
    assert any(event.step == fold_scales.PASS.name for event in everything.history)
    for limit in (0, 1):
        monkeypatch.setenv("PLANISH_STOP_AFTER", str(limit))
        assert len(optimise(read_graph(model())).graph.history) == limit


def test_unoptimised_runs_each_node_by_itself() -> None:
    x = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32)
    plain, tuned = (build(model(), level=0, optimised=o) for o in (False, True))
    assert plain.stages[-1] == ("each node by itself", 4)
    assert [step.origin for step in plain.steps] == [("conv",), ("norm",), ("relu",), ("join",)]
    assert len(tuned.steps) == 2
    with Engine(plain) as a, Engine(tuned) as b:
        left, right = a.run({"x": x})["y"], b.run({"x": x})["y"]
    assert np.allclose(left, right, rtol=1e-5, atol=1e-6)


def test_explanation_names_what_was_copied() -> None:
    made = explain_build(read_graph(model()), threads=1)
    fates = {node.name: node.fate for node in made.nodes}
    assert "copied" in fates["join"] and "Conv + Relu" in fates["norm"]
    assert [what for what, _ in made.missed] == ["join"]
    assert made.record()["stages"][0] == {"stage": "nodes in the model", "left": 4}
