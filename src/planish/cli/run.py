"""planish run: a plan on arrays from files, the outputs to files."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planish.cli import arguments

if TYPE_CHECKING:
    import numpy as np


def run(
    plan: arguments.PlanFile,
    input: Annotated[
        list[str],
        typer.Option(
            "--input", "-i",
            help="NAME=FILE.npy, or FILE.npz with arrays by name; may be repeated. Random inputs "
            "without any.",
            show_default=False,
        ),
    ] = [],  # noqa: B006  # typer copies it
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-d", help="Folder for OUTPUT.npy files; made if needed."),
    ] = None,
    npz: Annotated[
        Path | None, typer.Option("--npz", help="File for all outputs together.")
    ] = None,
    shape: arguments.Shapes = [],  # noqa: B006  # as above
    threads: arguments.Threads = 0,
    json: arguments.Json = "",
    quiet: arguments.Quiet = False,
) -> None:  # fmt: skip
    """Run a plan once."""
    import numpy as np

    from planish.cli.files import read_arrays
    from planish.cli.terminal import Terminal, size_text
    from planish.measure import dims_of, parse_shapes, random_feeds
    from planish.measure.bench import peak_rss
    from planish.runtime import load

    terminal = Terminal(json, quiet)
    began = time.perf_counter()
    with load(plan, threads=threads) as engine:
        loaded = time.perf_counter() - began
        only = engine.inputs[0].name if len(engine.inputs) == 1 else ""
        feeds = read_arrays(input, only)
        if not input and engine.inputs:
            terminal.warn("no --input given: the inputs are random numbers")
            feeds = random_feeds(engine.plan, dims_of(engine.plan, parse_shapes(shape)))
        began = time.perf_counter()
        outputs = engine.run(feeds)
        ran = time.perf_counter() - began
        rows = [(n, str(a.dtype), list(a.shape), *_figures(a)) for n, a in outputs.items()]
        written = _write(outputs, output_dir, npz)
        memory = {**engine.memory(), "peak_rss": peak_rss()}
        terminal.table(
            "Outputs",
            ("name", "dtype", "shape", "min", "mean", "max"),
            rows,
            ("min", "mean", "max"),
        )
        terminal.say(
            f"loaded in {loaded * 1e3:.1f} ms, ran in {ran * 1e3:.2f} ms (a first run), "
            f"peak memory {size_text(memory['peak_rss'])}"
        )
        for path in written:
            terminal.say(f"wrote {path}")
        terminal.finish(
            {
                "plan": str(plan),
                "load_ms": loaded * 1e3,
                "run_ms": ran * 1e3,
                "threads": engine.threads,
                "random_inputs": not input,
                "inputs": {n: list(np.shape(a)) for n, a in feeds.items()},
                "outputs": [
                    dict(zip(("name", "dtype", "shape", "min", "mean", "max"), row, strict=True))
                    for row in rows
                ],
                "files": [str(path) for path in written],
                "memory": memory,
            }
        )


def _figures(array: object) -> tuple[float | None, float | None, float | None]:
    """Minimum, mean and maximum; nothing for texts and empty arrays."""
    import numpy as np

    data = np.asarray(array)
    if data.dtype == object or not data.size:
        return None, None, None
    numbers = data.astype(np.float64)
    return float(numbers.min()), float(numbers.mean()), float(numbers.max())


def _write(outputs: dict[str, np.ndarray], folder: Path | None, npz: Path | None) -> list[Path]:
    """Write the outputs.

    Raises:
        PlanishError: The system refuses.
    """
    import numpy as np

    from planish.base.errors import PlanishError

    written: list[Path] = []
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name, array in outputs.items():
                # A name may hold slashes; the file stays in the folder.
                stem = "".join("_" if letter in "/\\:" else letter for letter in name)
                path = folder / f"{stem or 'output'}.npy"
                if path in written:
                    path = folder / f"{stem}.{len(written)}.npy"
                np.save(path, array, allow_pickle=False)
                written.append(path)
        if npz is not None:
            # Not np.savez: there an output named "file" is the file.
            with zipfile.ZipFile(npz, "w") as box:
                for name, array in outputs.items():
                    with box.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            written.append(npz)
    except (OSError, ValueError) as error:
        raise PlanishError(f"cannot write the outputs: {error}") from error
    return written
