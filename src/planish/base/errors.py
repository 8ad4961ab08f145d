"""Every error that planish raises on purpose: what was expected, found, where, what to do."""

from __future__ import annotations


class PlanishError(Exception):
    """Base of all errors of planish.

    Args:
        message: What was expected and what was found, and where.
        hint: What the user can do about it; printed on a line of its own.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint


class ModelError(PlanishError):
    """The ONNX model is malformed, truncated or inconsistent.

    Args:
        message: A summary line.
        problems: Every problem found, each with the node's name.
    """

    def __init__(self, message: str, problems: list[str] | None = None, *, hint: str = "") -> None:
        self.problems = list(problems or [])
        lines = [message, *(f"  - {problem}" for problem in self.problems)]
        super().__init__("\n".join(lines), hint=hint)


class UnsupportedError(PlanishError):
    """The model is valid, but uses something that planish cannot run, not even on the host."""


class ShapeError(PlanishError):
    """A tensor's shape, or a profile, does not fit what was declared."""


class InputError(PlanishError):
    """A run-time input is missing, unknown, or has the wrong dtype, shape or layout."""


class PlanFileError(PlanishError):
    """A plan file is truncated, altered, foreign, too new, or made for another CPU."""


class BuildError(PlanishError):
    """Building a plan failed: no legal kernel, a pinned tactic refused, a bad option."""


class CacheError(PlanishError):
    """A timing cache file cannot be read, merged or written."""


class CompileError(PlanishError):
    """LLVM refused generated code. Always a defect of planish: report it with the dump."""


class EngineClosedError(PlanishError):
    """An engine or context was used after `close()`."""


class VerifyError(PlanishError):
    """An internal invariant does not hold: a graph, a memory plan or a kernel result is wrong."""
