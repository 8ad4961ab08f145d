"""What the quantised zoo is made of: preparing graphs, cached files, peaks, stray layers."""

from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fma_peak import INSTRUCTIONS, KINDS, instruction, source


def _value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _model(nodes: list, constants: dict, inputs: list, outputs: list) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _scaled_norm(rng: np.random.Generator) -> onnx.ModelProto:
    """BatchNormalization → Mul → Add → Conv, factor behind an Unsqueeze."""
    per_channel = {name: rng.uniform(0.5, 1.5, 4).astype("f4") for name in "sbmvf"}
    constants = per_channel | {
        "a": rng.standard_normal((4, 1, 1)).astype("f4"),
        "axes": np.array([1, 2], "i8"),
        "w": rng.standard_normal((3, 4, 1, 1)).astype("f4"),
    }
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Unsqueeze", ["f", "axes"], ["f3"]),
        helper.make_node("Mul", ["n", "f3"], ["t"]),
        helper.make_node("Add", ["t", "a"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    return _model(nodes, constants, [_value("x", 1, 4, 5, 5)], [_value("y", 1, 3, 5, 5)])


def test_scales_behind_a_norm_become_part_of_it() -> None:
    reference = pytest.importorskip("onnx.reference")
    from zoo_quantised import join_scales

    rng = np.random.default_rng(0)
    model = _scaled_norm(rng)
    feeds = {"x": rng.standard_normal((1, 4, 5, 5)).astype("f4")}
    (before,) = reference.ReferenceEvaluator(model).run(None, feeds)
    join_scales(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node if n.op_type in ("Mul", "Add")] == []
    (after,) = reference.ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_sums_of_two_become_additions() -> None:
    from zoo_quantised import add_pairs

    nodes = [
        helper.make_node("Sum", ["x", "x"], ["two"]),
        helper.make_node("Sum", ["two", "x", "x"], ["y"]),
    ]
    model = _model(nodes, {}, [_value("x", 2)], [_value("y", 2)])
    add_pairs(model)
    assert [node.op_type for node in model.graph.node] == ["Add", "Sum"]


def test_a_quantised_file_is_made_once_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort = pytest.importorskip("onnxruntime")
    import zoo
    import zoo_quantised

    rng = np.random.default_rng(0)
    path = tmp_path / "net.onnx"
    onnx.save(_scaled_norm(rng), path)
    model = zoo.ZooModel("net", path, {"x": ("float32", (1, 4, 5, 5))}, True, "light")
    made = zoo_quantised.quantised(model, folder=tmp_path)
    kinds = zoo_quantised.describe(made.path)
    assert kinds["Conv"] == 1
    assert kinds["BatchNormalization"] == 1
    weights = {t.name: t for t in onnx.load(made.path).graph.initializer}
    scales = numpy_helper.to_array(weights["w_scale"])
    assert scales.shape == (3,)  # one a filter
    session = ort.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, zoo.random_inputs(model))
    assert y.shape == (1, 3, 5, 5)

    monkeypatch.setattr(zoo_quantised, "_quantise", lambda *args: pytest.fail("made again"))
    assert zoo_quantised.quantised(model, folder=tmp_path) == made
    assert zoo_quantised.seconds(made) > 0


def test_unknown_names_are_refused() -> None:
    from zoo_quantised import select

    with pytest.raises(KeyError, match="light_resnet50"):
        select(["resnet_51"])


@pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: f"{row.kind}-{row.name}")
def test_each_peak_loop_is_valid_ir(row: object) -> None:
    llvm.parse_assembly(source(row)).verify()


@pytest.mark.parametrize("kind", KINDS)
def test_every_machine_has_an_instruction(kind: str) -> None:
    assert instruction(kind).kind == kind


def test_batches_cover_all_samples() -> None:
    from zoo_data import batches

    samples = [(np.full(2, i, "f4"), i) for i in range(5)]
    sizes = [(x.shape, list(labels)) for x, labels in batches(iter(samples), 2)]
    assert sizes == [((2, 2), [0, 1]), ((2, 2), [2, 3]), ((1, 2), [4])]
