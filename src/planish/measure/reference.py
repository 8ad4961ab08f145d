"""A model run by somebody else: onnxruntime where it is installed, else onnx.reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import numpy as np
import onnx

from planish.base.errors import InputError, UnsupportedError
from planish.reference.evaluator import make_evaluator

RUNTIMES = ("onnxruntime", "reference")


def pick_runtime(asked: str = "") -> str:
    """The runtime to compare with.

    Args:
        asked: One of `RUNTIMES`; "" takes the first that is installed.

    Raises:
        UnsupportedError: It is not installed, or there is no such runtime.
    """
    if asked and asked not in RUNTIMES:
        raise UnsupportedError(f"runtime {asked!r} is not one of {list(RUNTIMES)}")
    has = importlib.util.find_spec("onnxruntime") is not None
    if asked == "onnxruntime" and not has:
        raise UnsupportedError("onnxruntime is not installed", hint="pip install onnxruntime")
    return asked or ("onnxruntime" if has else "reference")


def run_reference(
    model: onnx.ModelProto | str, feeds: Mapping[str, np.ndarray], runtime: str
) -> dict[str, np.ndarray]:
    """The outputs of a model by name.

    Args:
        model: The model, or the path of its file.
        feeds: An array for each input.
        runtime: From `pick_runtime`.

    Raises:
        InputError: The runtime does not take the model or the inputs.
    """
    try:
        if runtime == "onnxruntime":
            return _by_onnxruntime(model, feeds)
        evaluator = make_evaluator(model)
        made = evaluator.run(None, dict(feeds))
        return dict(zip(evaluator.output_names, map(np.asarray, made), strict=True))
    except Exception as error:  # each runtime has errors of its own
        raise InputError(f"{runtime} cannot run the model: {error}") from error


def _by_onnxruntime(
    model: onnx.ModelProto | str, feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    import onnxruntime  # optional, and slow to import

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    data = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def with_inner_outputs(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with every tensor of its main graph as an output, where its type is known.

    Returns:
        A copy, and the names of the added outputs in the order they are computed.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {info.name: info for info in inferred.graph.value_info}
    taken = {info.name for info in inferred.graph.output}
    added = []
    for node in inferred.graph.node:
        for name in node.output:
            info = known.get(name)
            if name in taken or info is None or not info.type.tensor_type.HasField("shape"):
                continue
            taken.add(name)
            added.append(name)
            inferred.graph.output.append(info)
    return inferred, added
