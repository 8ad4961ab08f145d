"""Where a plan comes from: model, versions, machine, options. Equal builds give equal text."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import asdict
from pathlib import Path

import llvmlite
import numpy as np
import onnx

import planish
from planish.pipeline.options import Options
from planish.pipeline.quantiser import Quantiser
from planish.plan import Plan


def with_provenance(
    plan: Plan,
    options: Options,
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    quantiser: Quantiser | None = None,
) -> Plan:
    """The plan with its provenance filled in. No time and no path, so that bytes stay equal."""
    plan.provenance = {
        "model_sha256": _digest(model),
        "planish": planish.__version__,
        "llvmlite": llvmlite.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "options": {**asdict(options), "pins": [list(pin) for pin in options.pins]},
    }
    if quantiser is not None:
        plan.provenance["quantization"] = quantiser.record()
    return plan


def _digest(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> str:
    hasher = hashlib.sha256()
    if isinstance(model, onnx.ModelProto):
        hasher.update(model.SerializeToString(deterministic=True))
    elif isinstance(model, bytes):
        hasher.update(model)
    else:
        with Path(model).open("rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    return hasher.hexdigest()
