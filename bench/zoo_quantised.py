"""QDQ files of the zoo's networks, made by onnxruntime's static quantiser: the same for every peer.

    python bench/zoo_quantised.py                make all of them and print a table
    python bench/zoo_quantised.py 'light_*'      only some

Activations are u8 per tensor (MinMax), weights s8 per output channel or, where asked, per tensor.
Trained networks are calibrated on the data of ../shared, the others on random inputs. Batch norm is
folded into the convolutions first, as the quantiser's own documentation asks for.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import itertools
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

import zoo
import zoo_data

RECIPE_VERSION = 1  # raise it when the recipe changes: the cached files are made anew
RANDOM_CALIBRATION = 8  # inputs, where there is no real data
OPSET = 13  # the first in which DequantizeLinear has an axis
IR_VERSION = 8

NAMES = (
    "light_resnet50",
    "light_inception_v1",
    "light_inception_v2",
    "light_squeezenet",
    "mobilenet_v1_1.0_224",
    "mobilenetv2_1.0_224",
    "mobilenet_v2",
    "light_densenet121",
    "light_vgg19",
    "light_shufflenet",
    "kwt1_mfcc",
    "bert_base",
    "resnet20_cifar10",
    "resnet56_cifar10",
    "squeezenet1.1",
    "lenet_mnist",
)
# Left in floats: no runtime has integer kernels for them, so that quantising what they read and
# write costs accuracy and gains nothing.
FLOAT_OPERATORS = {
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
}
TRANSFORMERS = {"kwt1_mfcc", "bert_base"}
# Its chains of elementwise operators would get a pair after each. Products that write floats are
# what the fastest of the peers runs fastest.
TRANSFORMER_OPERATORS = ["MatMul", "Gemm"]
FLOAT_OUTPUTS = {"OpTypesToExcludeOutputQuantization": TRANSFORMER_OPERATORS}


def quantised(
    model: zoo.ZooModel,
    *,
    per_channel: bool = True,
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> zoo.ZooModel:
    """The QDQ file of `model`, made where it is missing; the same inputs and batches.

    Raises:
        FileNotFoundError: A trained network, and no data to calibrate it on.
    """
    suffix = "qdq" if per_channel else "qdq_tensor"
    target = (folder or zoo.default_dir()) / "qdq" / f"{model.name}.{suffix}.onnx"
    made = replace(model, name=f"{model.name}.{suffix}", path=target, dynamic_path=None)
    if _is_current(target, model.path):
        return made
    progress(f"quantising {model.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with _silence(), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        partial = Path(scratch) / "quantised.onnx"
        _quantise(prepare(model, Path(scratch)), partial, model, per_channel)
        os.replace(partial, target)
    record = {**_recipe(), "seconds": time.perf_counter() - begin}
    _stamp(target).write_text(json.dumps(record))
    return made


def seconds(made: zoo.ZooModel) -> float | None:
    """How long the quantiser took over a file; None where that was not kept."""
    return json.loads(_stamp(made.path).read_text()).get("seconds")


def _recipe() -> dict[str, str | int]:
    import onnxruntime

    return {"version": RECIPE_VERSION, "onnxruntime": onnxruntime.__version__}


def _stamp(target: Path) -> Path:
    return target.with_suffix(".json")


def _is_current(target: Path, source: Path) -> bool:
    if not target.exists() or not _stamp(target).exists():
        return False
    fresh = target.stat().st_mtime >= source.stat().st_mtime
    return fresh and _recipe().items() <= json.loads(_stamp(target).read_text()).items()


def prepare(model: zoo.ZooModel, scratch: Path) -> Path:
    """The float model as the quantiser likes it: a recent opset, batch norm folded, no Sum."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    graph = onnx.load(model.path)
    if graph.opset_import[0].version < OPSET:
        graph = version_converter.convert_version(graph, OPSET)
        graph.ir_version = IR_VERSION
    join_scales(graph)
    add_pairs(graph)
    source, target = scratch / "recent.onnx", scratch / "folded.onnx"
    onnx.save(graph, source)
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    folded = onnx.load(target)
    keep = {node.domain for node in folded.graph.node} | {""}
    wanted = [opset for opset in folded.opset_import if opset.domain in keep]
    folded.ClearField("opset_import")
    folded.opset_import.extend(wanted)
    for index, node in enumerate(folded.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"  # nodes are left out by name
    onnx.save(folded, target)
    return target


def add_pairs(model: onnx.ModelProto) -> None:
    """Sum(a, b) becomes Add(a, b), in place: the quantiser knows Add only."""
    for node in model.graph.node:
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"


def join_scales(model: onnx.ModelProto) -> None:
    """BatchNormalization → Mul(m) → Add(a) becomes one BatchNormalization, in place.

    m and a are constants per channel, by themselves or behind an Unsqueeze. What stands behind a
    convolution would be folded anyway; this is for the ones in front of it (DenseNet), which are
    left in the file.
    """
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made = {out: node for node in graph.node for out in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def per_channel(name: str, channels: int) -> np.ndarray | None:
        if name not in constants and name in made and made[name].op_type == "Unsqueeze":
            name = made[name].input[0]
        value = constants.get(name)
        return value.reshape(-1) if value is not None and value.size == channels else None

    def follower(node: onnx.NodeProto, kind: str) -> onnx.NodeProto | None:
        found = readers.get(node.output[0], [])
        return found[0] if len(found) == 1 and found[0].op_type == kind else None

    gone: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            continue
        times = follower(node, "Mul")
        plus = times and follower(times, "Add")
        if times is None or plus is None:
            continue
        scale, shift = constants[node.input[1]], constants[node.input[2]]
        factor = per_channel(times.input[1], scale.size)
        summand = per_channel(plus.input[1], scale.size)
        if factor is None or summand is None:
            continue
        for index, value in ((1, scale * factor), (2, shift * factor + summand)):
            name = f"{node.output[0]}_joined_{index}"
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
            node.input[index] = name
        node.output[0] = plus.output[0]
        gone += [times, plus]
    kept = [node for node in graph.node if not any(node is other for other in gone)]
    graph.ClearField("node")
    graph.node.extend(kept)


def calibration_feeds(model: zoo.ZooModel, limit: int | None = None) -> Iterator[dict]:
    """Inputs to calibrate on, one sample each: real ones for a trained network, else random ones.

    Raises:
        FileNotFoundError: A trained network, and no ../shared/data.
    """
    if model.name not in zoo_data.DATASETS:
        for seed in range(limit or RANDOM_CALIBRATION):
            yield zoo.random_inputs(model, 1, seed=1000 + seed)
        return
    if not zoo_data.DATA.is_dir():
        raise FileNotFoundError(f"{zoo_data.DATA}: the data to calibrate {model.name} on")
    (feed,) = model.inputs
    for count, (sample, _) in enumerate(zoo_data.DATASETS[model.name].calibration()):
        if count == limit:
            return
        yield {feed: np.ascontiguousarray(sample[None])}


def check_feeds(model: zoo.ZooModel, batch: int, count: int) -> list[dict[str, np.ndarray]]:
    """`count` inputs to compare outputs on, none of which calibration has seen.

    Real ones where there are some: noise saturates a network that was calibrated on pictures.
    """
    name = model.name.removesuffix(".qdq").removesuffix(".qdq_tensor")
    if name not in zoo_data.DATASETS or not zoo_data.DATA.is_dir():
        return [zoo.random_inputs(model, batch, seed) for seed in range(1, count + 1)]
    (feed,) = model.inputs
    chunks = zoo_data.batches(zoo_data.DATASETS[name].held_out(), batch)
    return [{feed: samples} for samples, _ in itertools.islice(chunks, count)]


def operators(name: str) -> list[str]:
    """The operator types that are quantised."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    if name in TRANSFORMERS:
        return TRANSFORMER_OPERATORS
    return sorted((set(QDQRegistry) | set(QLinearOpsRegistry)) - FLOAT_OPERATORS)


def float_activations(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that follow a float operator at once, as ReLU does in DenseNet.

    Quantised by themselves they would get a pair between them and that operator.
    """
    made = {out: node for node in model.graph.node for out in node.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("Relu", "Clip")
        and node.input[0] in made
        and made[node.input[0]].op_type in FLOAT_OPERATORS
    ]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps back what the quantiser recommends (`prepare` has done it) and warns of."""
    import onnxruntime

    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)
        logging.disable(logging.NOTSET)


def _quantise(source: Path, target: Path, model: zoo.ZooModel, per_channel: bool) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
            self._feeds = feeds

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    quantize_static(
        str(source),
        str(target),
        Reader(calibration_feeds(model)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=operators(model.name),
        nodes_to_exclude=float_activations(onnx.load(source)),
        per_channel=per_channel,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options=FLOAT_OUTPUTS if model.name in TRANSFORMERS else {},
    )


def select(names: Iterable[str] | None = None) -> list[str]:
    """Those of NAMES that fit `names` (globs; None for all) and whose float network can be had.

    Raises:
        KeyError: A name that fits none of them.
    """
    chosen: list[str] = []
    for pattern in names or ["*"]:
        fits = fnmatch.filter(NAMES, pattern)
        if not fits:
            raise KeyError(f"no quantised model {pattern!r}; there are: {', '.join(NAMES)}")
        chosen += [name for name in fits if name not in chosen]
    return [name for name in chosen if name in zoo.sources()]


def models(
    names: Iterable[str] | None = None,
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[zoo.ZooModel]:
    """The QDQ files of the networks called `names`, as `select` understands them."""
    found = []
    for name in select(names):
        (model,) = zoo.models([name], folder, progress)
        found.append(quantised(model, folder=folder, progress=progress))
    return found


def describe(path: Path) -> dict[str, int]:
    """How many nodes of each type the file has, the commonest first."""
    kinds = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
    return dict(sorted(((k, kinds.count(k)) for k in set(kinds)), key=lambda item: -item[1]))


def main(arguments: list[str] | None = None) -> int:
    """Makes the files and prints them as a table."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description="Make the QDQ files that the benchmarks use.")
    parser.add_argument("names", nargs="*", help="models or globs; all by default")
    parser.add_argument("--dir", type=Path, default=zoo.default_dir(), help="where to keep them")
    options = parser.parse_args(arguments)
    console = Console()
    table = Table("model", "MiB", "nodes", title=f"QDQ files in {options.dir / 'qdq'}")
    for model in models(options.names, options.dir, progress=console.print):
        nodes = ", ".join(f"{kind} {count}" for kind, count in describe(model.path).items())
        table.add_row(model.name, f"{model.path.stat().st_size / 2**20:.1f}", nodes)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
