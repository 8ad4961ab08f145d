"""The plan file: what it holds, how it is written, read and checked."""

from planish.plan.check import check_plan
from planish.plan.read import read_plan
from planish.plan.records import (
    HeapBuffer,
    HostStep,
    HostTensor,
    NativeStep,
    PhaseCall,
    Plan,
    Profile,
    Ref,
    Step,
    TensorInfo,
)
from planish.plan.text import plan_text
from planish.plan.write import write_plan

__all__ = [
    "HeapBuffer",
    "HostStep",
    "HostTensor",
    "NativeStep",
    "PhaseCall",
    "Plan",
    "Profile",
    "Ref",
    "Step",
    "TensorInfo",
    "check_plan",
    "plan_text",
    "read_plan",
    "write_plan",
]
