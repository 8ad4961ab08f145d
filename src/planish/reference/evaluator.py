"""The one place where models are handed to `onnx.reference`."""

from __future__ import annotations

from functools import cache

import onnx
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from planish.reference.loop import Loop
from planish.reference.scaled_attention import ScaledAttention

_OPS: list[type[OpRun]] = [Loop, ScaledAttention]


def make_evaluator(model: ModelProto | str) -> ReferenceEvaluator:
    """What runs a model node by node, with planish's own operators and repairs.

    Args:
        model: The model, or the path of its file.

    Raises:
        NotImplementedError: onnx.reference's own error for an operator that it lacks, which is
            why callers ask `has_reference` first. Malformed models fail in other ways.
    """
    return ReferenceEvaluator(model, new_ops=_OPS)


@cache
def newest_opset(domain: str) -> int:
    """The newest opset of a domain that the installed ONNX knows; 1 for one that it does not."""
    if domain in ("", "ai.onnx"):
        return onnx.defs.onnx_opset_version()
    schemas = onnx.defs.get_all_schemas_with_history()
    return max((s.since_version for s in schemas if s.domain == domain), default=1)


@cache
def has_reference(domain: str, op: str) -> bool:
    """True when an operator of the newest opset of a domain can be run."""
    node = helper.make_node(op, ["x"], ["y"], domain=domain)
    graph = helper.make_graph([node], "probe", [onnx.ValueInfoProto(name="x")], [])
    opsets = [helper.make_opsetid(d, newest_opset(d)) for d in dict.fromkeys((domain, ""))]
    try:
        make_evaluator(helper.make_model(graph, opset_imports=opsets))
    except NotImplementedError:  # onnx.reference's only way to say that it lacks an operator
        return False
    except Exception:  # it knows the operator, and misses the attributes that the probe lacks
        return True
    return True
