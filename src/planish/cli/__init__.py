"""The command line: one file a verb; `main` is what the `planish` command runs."""

from planish.cli.entry import main

__all__ = ["main"]
