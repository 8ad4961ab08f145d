"""Defects of planish itself, told as errors that say where they happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from planish.base.errors import PlanishError, VerifyError


@contextmanager
def defects_named(where: str) -> Iterator[None]:
    """Turn exceptions that nobody meant to raise into a `VerifyError` that names the place.

    Args:
        where: What is being worked on, as a reader knows it: "layer 'conv1' (Conv)".

    Raises:
        VerifyError: The body raised something that is no `PlanishError`.
    """
    try:
        yield
    except (PlanishError, MemoryError):
        raise
    except Exception as error:
        raise VerifyError(
            f"{where}: {type(error).__name__}: {error}",
            hint="a defect of planish, please report it with the model",
        ) from error
