"""inspect and explain: what is in a file, what becomes of a model."""

import json
from pathlib import Path

import onnx
from commands import planish, small_model


def test_inspect_shows_a_plan_without_running_it(plan: Path) -> None:
    made = planish("inspect", plan, "--reasons")
    assert made.returncode == 0, made.stderr
    for word in ("conv_a", "cpu.conv", "model_sha256", "arena", "likeliest by estimate", "N 1:2:4"):
        assert word in made.stdout
    report = json.loads(planish("inspect", plan, "--json").stdout)
    assert report["inputs"] == [{"name": "x", "dtype": "f32", "shape": ["N", 3, 8, 8]}]
    assert report["provenance"]["options"]["level"] == 0


def test_inspect_prints_the_text_of_a_plan(plan: Path) -> None:
    assert planish("inspect", plan, "--text").stdout.startswith("plan small\n")


def test_inspect_shows_a_models_operators(tmp_path: Path) -> None:
    model = small_model(tmp_path / "host.onnx", batch=1, host=True)
    made = planish("inspect", model, "--json")
    rows = {row["op"]: row for row in json.loads(made.stdout)["operators"]}
    assert rows["Conv"]["nodes"] == rows["Conv"]["native"] == 2
    assert rows["Unique"]["host"] == 1
    assert "Unique (unique)" in made.stderr


def test_inspect_lists_inputs_that_become_constants(tmp_path: Path) -> None:
    path = small_model(tmp_path / "defaults.onnx", batch=1)
    model = onnx.load(path)
    stored = model.graph.initializer[0]
    info = onnx.helper.make_tensor_value_info(stored.name, stored.data_type, stored.dims)
    model.graph.input.append(info)
    onnx.save(model, path)
    assert json.loads(planish("inspect", path, "--json").stdout)["folded"] == [stored.name]
    assert f"become constants: {stored.name}; " in planish("inspect", path).stdout
    built = planish("build", path, "-o", tmp_path / "m.plan", "--level", 0, "--input", stored.name)
    assert built.returncode == 0, built.stderr
    report = json.loads(planish("inspect", tmp_path / "m.plan", "--json").stdout)
    assert [tensor["name"] for tensor in report["inputs"]] == ["x", stored.name]


def test_inspect_tells_all_problems_of_a_bad_file(tmp_path: Path) -> None:
    path = small_model(tmp_path / "bad.onnx")
    model = onnx.load(path)
    model.graph.node[1].input[0] = "nobody_a"
    model.graph.node[3].input[0] = "nobody_b"
    onnx.save(model, path)
    made = planish("inspect", path)
    assert made.returncode == 1
    for word in ("relu_a", "nobody_a", "relu_b", "nobody_b"):
        assert word in made.stderr
    made = planish("inspect", path, "--json")
    assert made.returncode == 1
    assert [word for word in json.loads(made.stdout)["problems"] if "nobody_a" in word]


def test_explain_tells_the_fate_of_each_node(model: Path) -> None:
    made = planish("explain", model, "--json", "--profile", "N=1")
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)
    fates = {row["name"]: row["fate"] for row in report["nodes"]}
    assert set(fates) >= {"conv_a", "relu_a", "join", "identity", "classify"}
    assert "Conv + Relu" in fates["relu_a"]
    assert "removed by" in fates["identity"]
    assert "gone" in fates["join"]
    assert report["stages"][0] == {"stage": "nodes in the model", "left": 9}


def test_explain_times_layers(model: Path) -> None:
    made = planish("explain", model, "--json", "--profile", "N=2", "--time")
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)
    layers = [row["micros"] for row in report["layers"] if row["how"].startswith("one step")]
    assert layers and min(layers) > 0
    assert sum(row["micros"] for row in report["layers"]) <= report["micros"] * 1.001
    untimed = json.loads(planish("explain", model, "--json", "--profile", "N=2").stdout)
    assert untimed["micros"] is None and untimed["layers"][0]["micros"] is None


def test_explain_for_people_can_be_cut_to_a_node(model: Path) -> None:
    made = planish("explain", model, "--node", "identity", "--no-layers")
    assert "Identity identity: removed by" in made.stdout
    assert "conv_a" not in made.stdout


def test_explain_names_the_host(tmp_path: Path) -> None:
    model = small_model(tmp_path / "host.onnx", batch=1, host=True)
    assert "Unique (unique)" in planish("explain", model, "--quiet").stderr
