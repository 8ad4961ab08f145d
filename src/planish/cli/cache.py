"""planish cache: timing caches, merged and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from planish.cli import arguments

app = typer.Typer(help="Timing caches: merge them, show them.", no_args_is_help=True)


@app.command()
def merge(
    caches: Annotated[list[Path], typer.Argument(help="Timing caches.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The merged one; it may exist.", show_default=False),
    ],
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Merge timing caches. Where they disagree, OUTPUT's own times win, then the first's."""
    from planish.base.errors import CacheError
    from planish.cli.terminal import Terminal
    from planish.tune.cache import merge_caches

    terminal = Terminal(json, quiet)
    missing = [str(path) for path in caches if not path.exists()]
    if missing:
        raise CacheError(f"no such timing cache: {', '.join(missing)}")
    merge_caches(caches, output)
    rows = read_rows(output)
    terminal.say(f"{output}: {len(rows)} workloads, {sum(len(r['micros']) for r in rows)} times")
    terminal.finish({"cache": str(output), "workloads": len(rows)})


@app.command()
def show(
    cache: Annotated[
        Path | None, typer.Argument(help="A timing cache; the user's own by default.")
    ] = None,
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:
    """Show the times in a cache: each workload with its tactics, fastest first."""
    from planish.base.errors import CacheError
    from planish.cli.terminal import Terminal
    from planish.tune.cache import default_cache_path

    terminal = Terminal(json, quiet)
    path = cache or default_cache_path()
    if cache is not None and not path.exists():
        raise CacheError(f"no such timing cache: {path}")
    rows = read_rows(path) if path.exists() else []
    terminal.say(f"{path}: {len(rows)} workloads, {sum(len(r['micros']) for r in rows)} times")
    for row in rows:
        terminal.say()
        terminal.say(f"{row['workload']}  [{row['target']}]", style="bold")
        for tactic, micros in row["micros"].items():
            terminal.say(f"{micros:>12,.1f} us  {tactic}")
    terminal.finish({"cache": str(path), "entries": rows})


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The entries of a cache, as data; the file is checked first.

    Raises:
        CacheError: It is no timing cache.
    """
    import json as codec

    from planish.tune.cache import TimingCache

    TimingCache(path)
    record = codec.loads(path.read_text(encoding="utf-8"))
    rows = []
    for key, entry in record["entries"].items():
        digest, _, target = key.partition(" ")
        times = sorted(entry["micros"].items(), key=lambda row: row[1])
        workload = entry.get("workload", "")
        rows.append(
            {"digest": digest, "target": target, "workload": workload, "micros": dict(times)}
        )
    return rows
