"""What the model zoo is made of: batches, multiply-adds and random weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def _conv_net(tmp_path: Path, reshape: list[int]) -> Path:
    """Conv 3 -> 8 over 6x6, Reshape to `reshape`, Gemm to 5; batch 1."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((8, 3, 3, 3)).astype("f4"),
        "target": np.array(reshape, "i8"),
        "g": rng.standard_normal((5, 128)).astype("f4"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Reshape", ["c", "target"], ["r"], name="flat"),
        helper.make_node("Gemm", ["r", "g"], ["y"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return path


def test_macs_are_counted_from_inferred_shapes(tmp_path: Path) -> None:
    from macs import count_macs

    path = _conv_net(tmp_path, [1, 128])
    assert count_macs(path, {}) == 8 * 4 * 4 * 27 + 5 * 128


def test_macs_where_the_graph_computes_its_shapes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from macs import count_macs

    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["rows"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "rows"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 1), "f4"), "w")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path
    )
    feeds = {"x": np.array([0, 1, 1, 0, 1, 0, 0, 0, 0], "f4")}
    assert count_macs(path, feeds) == 4 * 1 * 3


def test_another_batch_frees_a_reshape_and_is_proved(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from zoo_batch import prove, rebatch

    path = _conv_net(tmp_path, [1, 128])
    model = onnx.load(path)
    assert rebatch(model, 3) == ["flat"]
    onnx.save(model, tmp_path / "three.onnx")
    pictures = np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype("f4")
    prove(path, tmp_path / "three.onnx", {"x": pictures})


def test_a_graph_that_mixes_its_rows_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from zoo_batch import BatchError, prove, rebatch

    path = _conv_net(tmp_path, [1, 128])
    model = onnx.load(path)
    rebatch(model, 3)
    mix = helper.make_node("CumSum", ["mixed", "axis"], ["y"])
    model.graph.node[-1].output[0] = "mixed"
    model.graph.node.append(mix)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, "i8"), "axis"))
    onnx.save(model, tmp_path / "three.onnx")
    pictures = np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype("f4")
    with pytest.raises(BatchError, match="row 1"):
        prove(path, tmp_path / "three.onnx", {"x": pictures})


def test_light_models_keep_their_nodes_and_repeat(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from zoo_light import fill, light_files

    source = light_files()["light_squeezenet"]
    first, second = fill(source), fill(source)
    assert first.SerializeToString() == second.SerializeToString()
    kept = [n.name for n in onnx.load(source).graph.node if n.op_type != "ConstantOfShape"]
    assert [n.name for n in first.graph.node] == kept
    assert len(first.graph.input) == 1
