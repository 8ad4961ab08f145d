"""Runs plans: engines, contexts, workers, profiles."""

from planish.runtime.context import Context
from planish.runtime.engine import Engine, load
from planish.runtime.profile import ProfileReport, StepTime

__all__ = ["Context", "Engine", "ProfileReport", "StepTime", "load"]
