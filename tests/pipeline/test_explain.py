"""What explain says of real topologies: the light models of the onnx package."""

from pathlib import Path

import onnx
import pytest

from planish.pipeline import read_graph
from planish.pipeline.explain import Explanation, explain_build

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
pytestmark = pytest.mark.skipif(
    not LIGHT.exists(), reason="this onnx package comes without its light models"
)


@pytest.fixture(scope="module")
def inception() -> Explanation:
    return explain_build(read_graph(LIGHT / "light_inception_v1.onnx"), threads=1)


def test_the_three_sibling_convolutions_of_each_block_are_one_layer(inception: Explanation) -> None:
    siblings = [layer for layer in inception.layers if "||" in layer.ops]
    assert len(siblings) == 9
    assert {layer.ops for layer in siblings} == {" || ".join(["Conv + Relu"] * 3)}
    assert all(layer.how == "one step for 3 siblings" for layer in siblings)


def test_no_concat_is_left(inception: Explanation) -> None:
    concats = [layer for layer in inception.layers if layer.kind == "concat"]
    assert len(concats) == 9 and all(layer.how.startswith("gone") for layer in concats)


def test_every_node_has_a_fate_and_stages_never_grow_back(inception: Explanation) -> None:
    graph = onnx.load(LIGHT / "light_inception_v1.onnx").graph
    made = [node for node in graph.node if node.op_type not in ("Constant", "ConstantOfShape")]
    assert len([n for n in inception.nodes if n.op != "ConstantOfShape"]) == len(made)
    assert all(node.fate for node in inception.nodes)
    names = [stage.name for stage in inception.stages]
    for earlier, later in (
        ("dead layers removed", "constants folded"),
        ("constants folded", "after vertical fusion"),
        ("after vertical fusion", "after horizontal fusion"),
        ("after horizontal fusion", "after concat and view elimination"),
    ):
        assert names.index(earlier) < names.index(later)
    assert inception.stages[-1].left < 60


def test_conv_norm_scale_relu_is_one_layer() -> None:
    made = explain_build(read_graph(LIGHT / "light_inception_v2.onnx"), threads=1)
    convs = [layer for layer in made.layers if layer.kind == "conv"]
    fused = [layer for layer in convs if set(layer.ops.split(" || ")) == {"Conv + Relu"}]
    # Two convolutions are read by several norms, which cannot all be folded into their weights.
    shared = [layer for layer in convs if layer not in fused]
    assert len(fused) > 40 and len(shared) == 2
    for layer in shared:
        assert any(f"absorbed by {layer.name}: " in why for _, why in made.missed)
    norms = [node for node in made.nodes if node.op == "BatchNormalization"]
    assert sum("Conv + Relu" in node.fate for node in norms) >= len(norms) - 6
