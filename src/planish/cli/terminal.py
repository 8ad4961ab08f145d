"""What the verbs print, and where: people's text or JSON on stdout; progress, warnings on stderr.

Without a terminal there are no colours, no bars and no line shorter than its text.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from planish.base.errors import PlanishError
from planish.pipeline.options import Progress as Report

_WIDE = 200  # columns of a file or pipe


class Terminal:
    """The output of one command.

    Args:
        json_to: "" for people's text, "-" for JSON on stdout instead, else a file for JSON too.
        quiet: Print warnings only.
    """

    def __init__(self, json_to: str = "", quiet: bool = False) -> None:
        self.json_to = json_to
        self.quiet = quiet
        self._muted = quiet or json_to == "-"
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)

    def say(self, text: str = "", style: str = "") -> None:
        """A line of text."""
        if not self._muted:
            self._out.print(Text(text, style=style), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something that must be seen; on stderr, quiet or not."""
        self._err.print(Text(f"warning: {text}", style="bold yellow"), soft_wrap=True)

    def warn_host(self, lines: list[str]) -> None:
        """Name the layers that run on the host, loudly: they are the slow ones."""
        if lines:
            self.warn(f"{len(lines)} layers run on the host through onnx.reference, slowly:")
        for line in lines:
            self.warn(f"  {line}")

    def note(self, text: str) -> None:
        """A remark that is no result; on stderr."""
        if not self.quiet:
            self._err.print(Text(text), soft_wrap=True)

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        right: Sequence[str] = (),
    ) -> None:
        """A table.

        Args:
            title: Its heading; "" for none.
            columns: Headings.
            rows: A cell a column; floats are shown with three digits that count.
            right: Columns of numbers.
        """
        if self._muted:
            return
        table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE)
        for column in columns:
            number = column in right
            table.add_column(
                column, justify="right" if number else "left", no_wrap=number, overflow="fold"
            )
        for row in rows:
            table.add_row(*[Text(cell_text(cell)) for cell in row])
        self._out.print(table)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the JSON, where asked for.

        Raises:
            PlanishError: The file cannot be written.
        """
        if not self.json_to:
            return
        text = json.dumps(plain(record), indent=1, allow_nan=False)
        if self.json_to == "-":
            sys.stdout.write(text + "\n")
            return
        try:
            Path(self.json_to).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise PlanishError(f"cannot write {self.json_to}: {error.strerror}") from error
        self.note(f"JSON: {self.json_to}")

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """A bar with the time left for each stage; without a terminal, a line a stage."""
        if self._muted or not self._err.is_terminal:
            yield self._stage_lines()
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self._err, transient=True) as bars:
            tasks: dict[str, Any] = {}

            def report(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done, total=total)

            yield report

    def _stage_lines(self) -> Report:
        told: set[str] = set()

        def report(what: str, done: int, total: int) -> None:
            if what not in told and not self._muted:
                self.note(f"{what}: {total}")
            told.add(what)

        return report


def cell_text(cell: object) -> str:
    """A cell's text."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        if cell == 0 or not math.isfinite(cell):
            return f"{cell:g}"
        if abs(cell) >= 1000:
            return f"{cell:,.0f}"
        return f"{cell:.3g}" if abs(cell) < 1 else f"{cell:.{2 if abs(cell) < 100 else 1}f}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def size_text(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples are lists; what is no finite number is null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width)
