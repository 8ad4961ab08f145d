"""planish: an ONNX file becomes a plan, tuned on the machine it will run on.

plan = planish.build("model.onnx")
plan.save("model.plan")
engine = planish.load("model.plan")
outputs = engine.run({"input": array})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish.base.errors import PlanishError
    from planish.pipeline import build
    from planish.plan import Plan
    from planish.runtime import Context, Engine, load

__version__ = "0.1.0"
__all__ = ["Context", "Engine", "Plan", "PlanishError", "__version__", "build", "load"]

# Public name -> where it lives; imported when first used, so that each part is quick to start.
_HOMES = {
    "PlanishError": "planish.base.errors",
    "build": "planish.pipeline",
    "Plan": "planish.plan",
    "Engine": "planish.runtime",
    "Context": "planish.runtime",
    "load": "planish.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'planish' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
